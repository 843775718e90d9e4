"""Which channels of the first, dense network are left: noted by every cut on the layer that it cuts.

What is noted composes over repeated cuts, and goes with the layer into deep copies and into other models.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from .. import layers

_NOTES = (
    "_snnprune_kept"  # of a module: side of the layer, or `tensor.dimension` -> (size before any cut, indices)
)


@dataclass(frozen=True, slots=True)
class KeptChannels:
    """What is left of one layer, in channels of the layer as it was before the first cut.

    Attributes:
        outputs: output channels that stay, ascending; of a per-channel layer (batch norm), its channels;
            none of a layer of which inputs alone can go (LSTM).
        of_outputs: output channels that there were.
        inputs: input channels that the layer reads, ascending; None of a per-channel layer.
        of_inputs: input channels that there were; None likewise.

    Example:
        >>> kept = snnprune.kept_channels(small)["features.3"]
        >>> len(kept.outputs) < kept.of_outputs
        True
    """

    outputs: tuple[int, ...]
    of_outputs: int
    inputs: tuple[int, ...] | None = None
    of_inputs: int | None = None


def note_(module: nn.Module, what: str, keep: Tensor, size: int) -> None:
    """Note a cut.

    Args:
        module: that is cut.
        what: `outputs` or `inputs` of a layer, or `tensor.dimension` of one of its tensors.
        keep: indices that stay.
        size: how many there were.
    """
    notes = module.__dict__.setdefault(_NOTES, {})
    of, before = notes.get(what, (size, range(size)))
    notes[what] = of, tuple(before[i] for i in keep.tolist())


def hand_over_(old: nn.Module, new: nn.Module) -> None:
    """Give what is noted on a module to the one that takes its place."""
    if _NOTES in old.__dict__:
        new.__dict__[_NOTES] = old.__dict__[_NOTES]


def forget_(model: nn.Module) -> None:
    """Let a model be the one that later cuts are counted from, in place."""
    for module in model.modules():
        module.__dict__.pop(_NOTES, None)


def kept_of(model: nn.Module) -> dict[str, KeptChannels]:
    """What is left of every layer that surgery can change, by name."""
    found = {}
    for name, module in model.named_modules():
        kind = layers.kind_of(module)
        if kind is None or kind.form == "mixing":
            continue
        notes = module.__dict__.get(_NOTES, {})
        sides: list[Any] = []
        for side, wide in (("outputs", layers.out_width(module)), ("inputs", _columns(module))):
            of, kept = notes.get(side, (wide, range(wide)))
            sides += [tuple(kept), of]
        reads = kind.form in ("weighted", "reading")
        found[name] = KeptChannels(*sides) if reads else KeptChannels(*sides[:2])
    return found


def _columns(module: nn.Module) -> int:
    """Input channels that a layer reads."""
    if isinstance(module, nn.Linear) and not layers.is_own(module):
        return module.in_features
    return layers.in_width(module) if layers.is_weighted(module) or layers.is_reading(module) else 0


def kept_slices(model: nn.Module) -> dict[str, dict[int, tuple[int, tuple[int, ...]]]]:
    """Tensor -> dimension -> (size before the first cut, slices that stay), of every tensor that lost some."""
    found: dict[str, dict[int, tuple[int, tuple[int, ...]]]] = {}
    for prefix, module in model.named_modules():
        for what, noted in module.__dict__.get(_NOTES, {}).items():
            own, _, dim = what.rpartition(".")
            if own:
                found.setdefault(f"{prefix}.{own}" if prefix else own, {})[int(dim)] = noted
    return found


def put_back_(
    model: nn.Module,
    kept: Mapping[str, KeptChannels],
    slices: Mapping[str, Mapping[int, tuple[int, tuple[int, ...]]]],
) -> None:
    """Note on a model what `kept_of` and `kept_slices` said of it, in place of what is noted there."""
    forget_(model)
    for name, layer in kept.items():
        notes = model.get_submodule(name).__dict__.setdefault(_NOTES, {})
        notes["outputs"] = layer.of_outputs, layer.outputs
        if layer.inputs is not None:
            notes["inputs"] = layer.of_inputs, layer.inputs
    for name, dims in slices.items():
        owner, _, own = name.rpartition(".")
        notes = model.get_submodule(owner).__dict__.setdefault(_NOTES, {})
        notes |= {f"{own}.{dim}": noted for dim, noted in dims.items()}
