"""Sizes of a model's layers, and a fresh model cut down to recorded ones."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from .. import layers
from ..errors import StructureError
from ..layers import attention
from ..surgery import select_, select_slices_, set_heads_
from ..ties import tie_again_, ties_of


def layer_sizes(model: nn.Module) -> dict[str, dict[str, Any]]:
    """Sizes of every layer that surgery can change, by name."""
    sizes: dict[str, dict[str, Any]] = {}
    for name, module in model.named_modules():
        if layers.is_conv(module):
            wide, groups = (layers.in_width(module), layers.out_width(module)), layers.group_count(module)
            sizes[name] = {"in": wide[0], "out": wide[1], "groups": groups}
        elif isinstance(module, nn.Linear) and not layers.is_own(module):
            sizes[name] = {"in": module.in_features, "out": module.out_features}
            if isinstance(module, layers.IndexedLinear):
                sizes[name]["source"] = module.source_features
        elif layers.is_weighted(module):
            sizes[name] = {"in": layers.in_width(module), "out": layers.out_width(module)}
        elif layers.is_reading(module):
            sizes[name] = {"in": layers.in_width(module), "out": int(module.hidden_size)}  # type: ignore[arg-type]
        elif layers.is_channelwise(module):
            sizes[name] = {"out": layers.out_width(module)}
            if isinstance(module, nn.GroupNorm):
                sizes[name]["groups"] = module.num_groups
        elif (heads := attention.head_count(module)) is not None:
            sizes[name] = {"heads": heads}
    return sizes


def check_sizes(model: nn.Module, sizes: Mapping[str, Mapping[str, int]]) -> None:
    """Refuse sizes that are not those of parts of a model's layers.

    Raises:
        StructureError: a layer is missing, of another kind, or smaller than recorded.
    """
    layers.check_rules(model)
    own = layer_sizes(model)
    own = {name: have for name, have in own.items() if name in sizes or not _new(model.get_submodule(name))}
    if set(own) != set(sizes):
        odd = sorted(set(own) ^ set(sizes))[0]
        module = dict(model.named_modules()).get(odd)
        if odd in sizes and module is not None:
            raise StructureError(
                f"the file holds sizes of layer {odd}, but no rule says where a {type(module).__name__} has its "
                "channels. Register the rule with which it was saved (snnprune.register_layer) before loading."
            )
        if module is not None and layers.is_own(module):
            raise StructureError(
                f"the file holds no sizes of layer {odd}: when it was saved, there was no rule for "
                f"{type(module).__name__}. Remove the rule to load it."
            )
        raise StructureError(
            f"layer {odd!r} is only in one of the saved structure and {type(model).__name__}. Give the "
            "architecture that was pruned."
        )
    for name, wanted in sizes.items():
        have = own[name]
        if set(have) - {"source"} != set(wanted) - {"source"}:
            raise StructureError(f"layer {name} has {dict(wanted)} in the file, which is no size of {have}.")
        if any(wanted[key] > have[key] for key in ("in", "out", "heads") if key in wanted):
            raise StructureError(f"layer {name} has {dict(wanted)} in the file but only {have} in the model.")


def _new(module: nn.Module) -> bool:
    """Whether older versions knew nothing of a layer's channels, so that their files have no sizes of it."""
    kind = layers.kind_of(module)
    return kind is not None and (kind.found or kind.form == "reading" or (layers.is_weighted(module) and not (
        kind.own or layers.is_conv(module) or isinstance(module, nn.Linear))))  # fmt: skip


def shrink_(model: nn.Module, sizes: Mapping[str, Mapping[str, int]], state: Mapping[str, Tensor]) -> None:
    """Cut the layers of a fresh model down to recorded sizes, in place; which channels go does not matter.

    Raises:
        StructureError: a layer is missing, of another kind, or smaller than recorded.
    """
    check_sizes(model, sizes)
    own = layer_sizes(model)
    ties = ties_of(model)
    for name, wanted in sorted(sizes.items(), key=lambda item: "heads" not in item[1]):  # attention opens first
        have = own[name]
        if have == dict(wanted):
            continue
        module = model.get_submodule(name)
        if isinstance(module, nn.Linear) and not layers.is_own(module):
            source = wanted.get("source", wanted["in"])
            if source > layers.in_width(module):
                raise StructureError(
                    f"layer {name} reads from {source} features in the file, but only {have['in']} arrive."
                )
            stored = state.get(f"{name}.index") if "source" in wanted else None
            if "source" in wanted and not _good_index(stored, wanted["in"], source):
                raise StructureError(f"layer {name}: its index selection is missing or out of range.")
            columns = torch.arange(wanted["in"])
            select_(model, name, inputs=columns, outputs=torch.arange(wanted["out"]), index=stored, source=source)
        elif layers.is_weighted(module):
            inputs = None if layers.is_grouped(module) else torch.arange(wanted["in"])
            _same_groups(name, have, wanted)
            select_(model, name, inputs=inputs, outputs=torch.arange(wanted["out"]))
        elif layers.is_reading(module):
            select_(model, name, inputs=torch.arange(wanted["in"]))
        elif "heads" in wanted:
            set_heads_(module, wanted["heads"])
        else:
            _same_groups(name, have, wanted)
            select_(model, name, outputs=torch.arange(wanted["out"]))
    _shrink_parameters_(model, state, {name for name, wanted in sizes.items() if "out" in wanted})
    tie_again_(model, ties)
    attention.unnest_(model)


def _same_groups(name: str, have: Mapping[str, int], wanted: Mapping[str, int]) -> None:
    """Groups of a convolution or norm may become fewer, but each keeps its size."""
    if have.get("groups", 1) == 1:
        fits = wanted.get("groups", 1) == 1
    else:
        fits = all(wanted[k] * have["groups"] == have[k] * wanted["groups"] for k in ("in", "out") if k in have)
    if not fits:
        raise StructureError(f"layer {name} has {dict(wanted)} in the file, which is no part of {dict(have)}.")


def _shrink_parameters_(model: nn.Module, state: Mapping[str, Tensor], done: Collection[str]) -> None:
    """Cut parameters and buffers outside the layers that are done down to the sizes of the file."""
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        stored = state.get(name)
        if stored is None or stored.dim() != tensor.dim() or name.rpartition(".")[0] in done or not stored.numel():
            continue
        for dim, size in enumerate(stored.shape):
            if size < tensor.shape[dim]:
                select_slices_(model, name, dim, torch.arange(size))


def _good_index(index: Tensor | None, length: int, source: int) -> bool:
    """An index selection that cannot read outside its source."""
    if index is None or index.dtype != torch.int64 or tuple(index.shape) != (length,):
        return False
    return bool((index >= 0).all()) and bool((index < source).all())
