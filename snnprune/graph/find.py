"""All groups of a model: channels, found by following a run of it, and single inputs of fully connected layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import nn

from .. import layers
from ..errors import ConfigError, UnsupportedModelError
from ..inputs import Inputs
from ..plain import copied
from .discover import channel_groups
from .keep import named_by, names_of
from .records import Member, NeuronGroup
from .shapes import LayerShapes, layer_shapes
from .tied import uses_of


def find_groups(
    model: nn.Module,
    example_inputs: Inputs,
    *,
    keep: Sequence[str] = (),
    outputs: Sequence[str] = (),
    input_neurons: bool = True,
) -> list[NeuronGroup]:
    """Every group of a model, those that are kept included with their reason.

    Exactness is claimed here by rules; `snnprune.trace` also proves it numerically.

    Args:
        model: any network; nothing in it changes.
        example_inputs: what its forward takes (a tensor, a tuple or a dict).
        keep: shell patterns of module names whose channels must stay, see `named_by`.
        outputs: paths of the outputs that matter; none for all, see `selected`.
        input_neurons: also single inputs of fully connected layers (pixels, flattened units), as in
            arXiv 2110.05954, section 3.3.1.

    Raises:
        UnsupportedModelError: the model does not run, cannot be copied, or is TorchScript.
        ConfigError: a pattern of `keep` or `outputs` matches nothing, or a rule of the user's own does not
            fit a layer.
    """
    _refuse_scripted(model)
    layers.check_rules(model)
    model = copied(model)  # passes may change buffers
    shapes = layer_shapes(model, example_inputs)
    groups, rank = channel_groups(model, example_inputs, outputs)
    groups = [_protect(group, keep) for group in groups]
    if input_neurons:
        groups += _input_groups(model, shapes, groups, keep)
    if groups:
        _check_patterns(groups, keep)
    return sorted(groups, key=lambda g: (rank.get(g.id.removesuffix(":in"), len(rank)), g.kind == "channel"))


def _refuse_scripted(model: nn.Module) -> None:
    """TorchScript runs code of its own, in which no hook can sit and no layer can shrink."""
    for name, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            raise UnsupportedModelError(
                f"{name or 'the model'} is TorchScript, whose code is fixed; give the model that it was made from."
            )


def _check_patterns(groups: Sequence[NeuronGroup], keep: Sequence[str]) -> None:
    """Refuse a pattern that protects nothing, which is a typing mistake more often than not."""
    for pattern in keep:
        if not any(named_by(name, (pattern,)) for group in groups for name in names_of(group)):
            raise ConfigError(f"keep pattern {pattern!r} matches no group, such as {groups[0].id!r}.")


def _protect(group: NeuronGroup, keep: Sequence[str]) -> NeuronGroup:
    """Mark the group as kept when a pattern names it."""
    pattern = next((found for name in names_of(group) if (found := named_by(name, keep))), None)
    return replace(group, reason=f"kept by request ({pattern})") if group.prunable and pattern else group


def _input_groups(
    model: nn.Module,
    shapes: dict[str, LayerShapes],
    groups: list[NeuronGroup],
    keep: Sequence[str],
) -> list[NeuronGroup]:
    """Groups of single inputs of FC layers that no one-to-one channel scale reaches already."""
    owned: dict[str, set[int]] = {}
    for group in groups:
        if not group.prunable:
            continue
        for member in group.consumers:
            if member.one_to_one:
                owned.setdefault(member.module, set()).update(member.channels)
    found = []
    done: set[str] = set()
    partners = _partners(model)
    for name in shapes:
        names = partners.get(name, [name])  # layers with one weight lose the same columns of it
        if name in done or not names or not all(_takes_single_inputs(model, n, shapes) for n in names):
            continue
        done.update(names)
        module = model.get_submodule(name)
        if isinstance(module, layers.IndexedLinear):
            candidates = module.index.tolist()
        else:
            candidates = range(layers.in_width(module))
        taken = set[int]().union(*(owned.get(n, set()) for n in names))
        columns = tuple(sorted(c for c in candidates if c not in taken))
        if not columns:
            continue
        members = tuple(Member(n, "consumer", columns, tuple(range(len(columns)))) for n in names)
        found.append(_protect(NeuronGroup(f"{name}:in", "input", len(columns), members), keep))
    return found


def _takes_single_inputs(model: nn.Module, name: str, shapes: dict[str, LayerShapes]) -> bool:
    """Whether an index selection may stand in front of a layer: it is called once, with one row per input."""
    shape = shapes.get(name)
    if not layers.is_linear(model.get_submodule(name)):
        return False
    return shape is None or (len(shape.input) == 2 and shape.calls == 1)


def _partners(model: nn.Module) -> dict[str, list[str]]:
    """Layer -> all layers that hold its weight, itself included; none where others hold it too."""
    found: dict[str, list[str]] = {}
    for uses in uses_of(model):
        names = [use.name for use in uses]
        linear = [layers.is_linear(use.module) and use.own == "weight" for use in uses]
        plain = all(linear) and not any(isinstance(use.module, layers.IndexedLinear) for use in uses)
        for use in uses:
            if use.own == "weight":
                found[use.name] = names if plain else []
    return found
