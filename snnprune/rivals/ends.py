"""The layers that make a network's outputs: with none of their channels gone, the outputs keep their form."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd

from ..inputs import Inputs, call, tensors_in

_MAKERS = (_ConvNd, nn.Linear, nn.Bilinear, nn.Embedding, nn.EmbeddingBag, nn.MultiheadAttention)


@torch.enable_grad()
def last_layers(model: nn.Module, inputs: Inputs) -> list[str]:
    """Layers whose output reaches an output of the model with no other layer between.

    The graph of the gradients is walked back from the outputs, whatever lies behind the layer: a sum over
    channels, a norm, a choice of some of them. What has no gradient (class numbers) says nothing here.

    Args:
        model: stays as it is.
        inputs: what its forward takes.

    Returns:
        Names of modules, those of all outputs.
    """
    twin = copy.deepcopy(model).eval()
    for parameter in twin.parameters():
        parameter.requires_grad_(parameter.is_floating_point() or parameter.is_complex())
    made: dict[Any, str] = {}

    def seen(name: str) -> Any:
        def hook(_module: nn.Module, _inputs: Any, outputs: Any) -> None:
            made.update({t.grad_fn: name for t in tensors_in(outputs) if t.grad_fn is not None})

        return hook

    for name, module in twin.named_modules():
        if _makes(module):
            module.register_forward_hook(seen(name))
    ends = tensors_in(call(twin, inputs))
    found: dict[str, None] = {}
    waiting, known = [end.grad_fn for end in ends if end.grad_fn is not None], set()
    while waiting:
        node = waiting.pop()
        if node in known:
            continue
        known.add(node)
        if node in made:
            found[made[node]] = None
        else:
            waiting += [before for before, _ in node.next_functions if before is not None]
    return list(found)


def _makes(module: nn.Module) -> bool:
    """Whether it is a layer of channels: of PyTorch, or of the user's own with a matrix and no layers inside."""
    if isinstance(module, _MAKERS):
        return True
    own = next(module.children(), None) is None
    return own and any(parameter.dim() > 1 for parameter in module.parameters(recurse=False))
