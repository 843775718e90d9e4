"""How much the loss depends on single connections."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..probing import Loss, Probe, look
from .weights import weight_of


def measure_connections(
    model: nn.Module, names: Sequence[str], batches: Iterable[Any], loss: Loss
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
    flags = {parameter: parameter.requires_grad for parameter in model.parameters()}
    probe = _ConnectionProbe(model, names)
    try:
        for weight in probe.weights:
            weight.requires_grad_()
        seen = look(model, probe, batches, loss)
    finally:
        for parameter, flag in flags.items():
            parameter.requires_grad_(flag)
    return {
        name: probe.total[name] * weight_of(model, name).detach().square() / max(1, seen)
        for name in names
        if name in probe.reached
    }


class _ConnectionProbe(Probe):
    """Squared inputs and squared gradients at the outputs of every switched layer."""

    def __init__(self, model: nn.Module, names: Sequence[str]) -> None:
        self.weights = [weight_of(model, name) for name in names]
        super().__init__(
            {n: torch.zeros_like(w, dtype=torch.float32) for n, w in zip(names, self.weights, strict=True)}
        )

    def hook(self, model: nn.Module) -> list[Any]:
        return [
            model.get_submodule(name).register_forward_hook(self._watch(name), with_kwargs=True)
            for name in self.total
        ]

    def _watch(self, name: str) -> Callable[[nn.Module, Any, Any, Tensor], None]:
        def forward(module: nn.Module, args: Any, kwargs: Any, output: Tensor) -> None:
            inputs = (args[0] if args else next(iter(kwargs.values()))).detach()
            index = getattr(module, "index", None)
            inputs = inputs if index is None else inputs.index_select(-1, index)

            def backward(gradient: Tensor) -> None:
                self.reached.add(name)
                g = gradient.detach().float().flatten(0, -2).square()
                self.total[name] += g.t() @ inputs.float().flatten(0, -2).square()

            if output.requires_grad:
                output.register_hook(backward)

        return forward

    def begin(self, count: int) -> list[Tensor]:
        return self.weights

    def end(self, found: Sequence[Tensor | None]) -> None:
        """The hooks have taken what they need."""
