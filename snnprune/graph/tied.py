"""Layers that hold one parameter together: its rows and columns are united, dimension by dimension."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .. import layers
from .labels import core, spread
from .ledger import Ledger


@dataclass(frozen=True, slots=True)
class _Use:
    """One module's use of a tensor: which attribute of which module."""

    name: str
    module: Any
    own: str


@dataclass(frozen=True, slots=True)
class _Slices:
    """What one use says about one dimension of a tensor: a label per slice, and whether they are read."""

    name: str
    labels: Tensor
    reads: bool


def uses_of(model: nn.Module) -> list[list[_Use]]:
    """For every parameter and buffer that several modules hold: who holds it. A module counts once."""
    found: dict[int, list[_Use]] = {}
    for name, module in model.named_modules():
        for own, tensor in (*module._parameters.items(), *module._buffers.items()):
            if tensor is not None:
                found.setdefault(id(tensor), []).append(_Use(name, module, own))
    return [uses for uses in found.values() if len({id(use.module) for use in uses}) > 1]


def unite_tied(ledger: Ledger) -> None:
    """Unite what layers with a common parameter hold of it.

    Layers that did not run get the labels of those that did, so that they are cut with them. A scale can be
    folded into a common weight only where all its layers read along the same dimension.
    """
    shared = uses_of(ledger.model)
    waiting = True
    while waiting:  # a layer that did not run may be tied to another one that did not
        waiting = False
        for uses in shared:
            if not any(_labelled(ledger, use) for use in uses):
                continue
            for use in uses:
                if not _labelled(ledger, use) and _enter(ledger, use):
                    waiting = True
    for uses in shared:
        _unite(ledger, uses)


def _labelled(ledger: Ledger, use: _Use) -> bool:
    return use.name in ledger.produced or use.name in ledger.between


def _enter(ledger: Ledger, use: _Use) -> bool:
    """Labels for a layer that did not run; False for what has no neurons."""
    module = use.module
    if layers.is_weighted(module) and not layers.is_grouped(module):
        if layers.is_computed(module):
            return False
        ledger.rows(use.name, module)
        ledger.consumed.setdefault(use.name, ledger.classes.new(layers.in_width(module)))
    elif layers.is_conv(module):
        each = module.out_channels // module.groups
        ledger.between[use.name] = ledger.classes.new(module.groups).repeat_interleave(each)
    elif layers.is_channelwise(module) and layers.out_width(module) > 1:
        ledger.between[use.name] = ledger.classes.new(layers.out_width(module))
    else:
        return False
    return True


def _unite(ledger: Ledger, uses: list[_Use]) -> None:
    tensor = getattr(uses[0].module, uses[0].own)
    for dim in range(tensor.dim()):
        sides = [side for use in uses if (side := _slices(ledger, use, dim, tensor)) is not None]
        for side in sides[1:]:
            ledger.classes.unite(
                sides[0].labels,
                side.labels,
                fixed=f"{sides[0].name} and {side.name} share a weight, of which one reads what no neuron owns",
            )
        for use in uses:
            if _fixed(use.module):
                for side in sides:
                    ledger.classes.pin(side.labels, f"{side.name} shares a parameter with {use.name}")
        if len({side.reads for side in sides}) > 1:
            other = next(side.name for side in sides if not side.reads)
            for side in sides:
                if side.reads:
                    ledger.classes.pin(
                        side.labels,
                        f"{side.name} reads by a weight that it shares with {other}, where it makes them",
                    )
    for use in uses:  # a norm whose parameters are also used outside its call
        raw = ledger.raw.get(f"{use.name}.{use.own}" if use.name else use.own)
        if raw is not None and use.name in ledger.between:
            dim = layers.tensors(use.module, "outputs").get(use.own, 0)
            ledger.classes.unite(core(raw), core(spread(ledger.between[use.name], dim, tensor.shape)))


def _fixed(module: nn.Module) -> bool:
    """True for PyTorch's own layers that are never cut (recurrent layers, embeddings, layer norms, ...)."""
    kind = layers.kind_of(module)
    if kind is not None and kind.own:
        return kind.form == "mixing"
    if (kind is not None and kind.form not in ("mixing", "reading")) or isinstance(
        module, (nn.ParameterList, nn.ParameterDict)
    ):
        return False
    return type(module) is not nn.Module and type(module).__module__.startswith("torch.nn.")


def _slices(ledger: Ledger, use: _Use, dim: int, tensor: Tensor) -> _Slices | None:
    """Labels of the slices of a use's tensor along one dimension, (tensor.shape[dim],)."""
    module, name = use.module, use.name
    found: Tensor | None = None
    reads = False
    kind = layers.kind_of(module)
    if kind is None:
        return None
    if layers.is_grouped(module):
        found = _grouped(ledger.between.get(name), use, dim)
    elif kind.outputs.get(use.own) == dim:
        found = (ledger.between if kind.form == "channelwise" else ledger.produced).get(name)
    elif kind.inputs.get(use.own) == dim:
        found, reads = ledger.consumed.get(name), True
        if found is not None and isinstance(module, layers.IndexedLinear):
            found = found[module.index.cpu()]
    if found is None or len(found) != tensor.shape[dim]:
        return None
    return _Slices(name, found, reads)


def _grouped(rows: Tensor | None, use: _Use, dim: int) -> Tensor | None:
    """A grouped convolution's slices: whole groups, of outputs or (transposed) of inputs."""
    module = use.module
    if rows is None or dim != 0 or use.own not in ("weight", "bias"):
        return None
    if use.own == "bias" or layers.input_dim(module) == 1:
        return rows
    firsts = rows[:: module.out_channels // module.groups]
    return torch.repeat_interleave(firsts, module.in_channels // module.groups)
