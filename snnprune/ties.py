"""Tensors under several names: weights tied between layers, and layers that are registered twice.

One `nn.Parameter` is one thing, however many names lead to it. Whoever replaces it under one name replaces it
under all of them, or the tie is broken without a word: the other name keeps the large tensor, which then
learns, counts and is stored by itself.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .errors import StructureError


@dataclass(frozen=True, slots=True)
class Tie:
    """One parameter or buffer and all its names, in the order of the model; at least two."""

    tensor: Tensor
    names: tuple[str, ...]


def ties_of(model: nn.Module) -> list[Tie]:
    """Every parameter and buffer that stands under more than one name."""
    found: dict[int, tuple[Tensor, list[str]]] = {}
    for name, tensor in (
        *model.named_parameters(remove_duplicate=False),
        *model.named_buffers(remove_duplicate=False),
    ):
        found.setdefault(id(tensor), (tensor, []))[1].append(name)
    return [Tie(tensor, tuple(names)) for tensor, names in found.values() if len(names) > 1]


def tie_again_(model: nn.Module, ties: Iterable[Tie]) -> None:
    """Give all names of a tie the tensor by which one of them was replaced, in place.

    Raises:
        StructureError: names of one tie got tensors of different shapes.
    """
    for tie in ties:
        now = {name: get_tensor(model, name) for name in tie.names}
        new = [tensor for tensor in now.values() if tensor is not tie.tensor]
        if not new:
            continue
        if any(tensor.shape != new[0].shape for tensor in new):
            shapes = ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in now.items())
            raise StructureError(
                f"one parameter under several names would get different shapes ({shapes}). Keep these layers "
                "whole (keep=), or give each a parameter of its own."
            )
        for name in tie.names:
            set_tensor_(model, name, new[0])


def further_names(model: nn.Module, first: Collection[str] = ()) -> dict[str, str]:
    """Further name -> the name under which a parameter or buffer with several names is stored.

    Args:
        model: the network.
        first: names that are to be those of the file; otherwise it is the first in the order of the model.
    """
    found: dict[str, str] = {}
    stored = model.state_dict().keys()
    for tie in ties_of(model):
        names = [name for name in tie.names if name in stored]
        chosen = next((name for name in names if name in first), names[0] if names else "")
        found |= {name: chosen for name in names if name != chosen}
    return found


def check_alike(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Refuse different values for what is one parameter in the model: the last one would win.

    Raises:
        StructureError: there are such.
    """
    for tie in ties_of(model):
        values = [state[name] for name in tie.names if name in state]
        if any(value.shape != values[0].shape or not torch.equal(value, values[0]) for value in values[1:]):
            raise StructureError(
                f"{' and '.join(tie.names[:3])} are one parameter in {type(model).__name__}, but the file holds "
                "different values for them. Build the model as it was when it was saved."
            )


def set_tensor_(model: nn.Module, name: str, tensor: Tensor) -> None:
    """Put a tensor where a parameter or buffer of this dotted name is."""
    owner, _, own = name.rpartition(".")
    module = model.get_submodule(owner)
    (module._parameters if own in module._parameters else module._buffers)[own] = tensor  # type: ignore[assignment]


def replace_module_(model: nn.Module, name: str, new: nn.Module) -> None:
    """Put a module in the place of another one, under every name that this one has."""
    old = model.get_submodule(name)
    for parent in list(model.modules()):
        for child, module in parent._modules.items():
            if module is old:
                parent._modules[child] = new


def get_tensor(model: nn.Module, name: str) -> Tensor:
    """The parameter or buffer of a dotted name."""
    owner, _, own = name.rpartition(".")
    module = model.get_submodule(owner)
    tensor = module._parameters[own] if own in module._parameters else module._buffers[own]
    assert tensor is not None
    return tensor
