"""How much the loss depends on single connections."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import DivergedError
from ...inputs import device_of, inputs_in, kept_buffers, moved, still
from ...layers import attention
from ...ranks import current
from .scorer import weight_of


def measure_connections(
    model: nn.Module,
    names: Sequence[str],
    batches: Iterable[Any],
    loss: Callable[[Callable[..., Any], Any], Tensor],
) -> dict[str, Tensor]:
    """Mean square, over inputs, of the gradient of each input's loss by each connection's scale, at scale 1.

    The gradient of one input's loss by weight (i, j) is the product of the layer's j-th input and the
    gradient at its i-th output, so the mean of its square is one matrix product for a whole batch. Where a
    layer sees several positions of every input (tokens), each counts as an input. Times the squared weight it
    is the Fisher information of the connection's scale (Theis et al. 2018, arXiv 1801.05787, section 2.2).

    Args:
        model: the network; its weights and buffers stay as they are.
        names: fully connected layers.
        batches: what `loss` takes.
        loss: `loss(model, batch)`, a mean over the batch.

    Returns:
        Layer -> (out, in), for the layers that are called and that the gradient reaches; a weight that is used
        without its layer (inside some attention) is judged by its magnitude alone.

    Raises:
        DivergedError: the loss is not finite.
    """
    device = device_of(model)
    total = {name: torch.zeros_like(weight_of(model, name), dtype=torch.float32) for name in names}
    reached: set[str] = set()
    seen = 0

    def watch(name: str) -> Callable[[nn.Module, Any, Any, Tensor], None]:
        def forward(module: nn.Module, args: Any, kwargs: Any, output: Tensor) -> None:
            inputs = (args[0] if args else next(iter(kwargs.values()))).detach()
            index = getattr(module, "index", None)
            inputs = inputs if index is None else inputs.index_select(-1, index)

            def backward(gradient: Tensor) -> None:
                reached.add(name)
                g = gradient.detach().float().flatten(0, -2).square()
                total[name] += g.t() @ inputs.float().flatten(0, -2).square()

            if output.requires_grad:
                output.register_hook(backward)

        return forward

    flags = {parameter: parameter.requires_grad for parameter in model.parameters()}
    with attention.opened(model), still(model), kept_buffers(model):
        handles = [
            model.get_submodule(name).register_forward_hook(watch(name), with_kwargs=True) for name in names
        ]
        try:
            for name in names:
                weight_of(model, name).requires_grad_()
            weights = [weight_of(model, name) for name in names]
            for batch in batches:
                batch = moved(batch, device)
                count = inputs_in(batch)
                with torch.enable_grad(), torch.compiler.set_stance("force_eager"):
                    value = loss(model, batch) * count
                if not bool(torch.isfinite(value)):
                    raise DivergedError(
                        f"the loss became {float(value.detach()):g} before anything was learned. Check the model "
                        "and the data for values that are not finite."
                    )
                seen += count
                torch.autograd.grad(value, weights, allow_unused=True)
        finally:
            for handle in handles:
                handle.remove()
            for parameter, flag in flags.items():
                parameter.requires_grad_(flag)
    reached, seen = current().pool_(total, reached, seen)
    return {
        name: total[name] * weight_of(model, name).detach().square() / max(1, seen)
        for name in names
        if name in reached
    }
