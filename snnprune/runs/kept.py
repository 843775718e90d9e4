"""The file of a model's kept channels: which channels of the first, dense network are left of every layer."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

from torch import nn

from ..errors import StructureError
from ..files import file_errors, read_json, write_json
from ..inputs import unwrap
from ..options import path_of
from ..plain import plain
from ..surgery import KeptChannels, kept_of, kept_slices, put_back_

KEPT = "kept.json"
FORMAT = 1


@file_errors()
def kept_channels(model: nn.Module | str | Path) -> dict[str, KeptChannels]:
    """Which channels of the original layers are left, counted from the network before it was first cut.

    Args:
        model: what `optimize`, `compact()` or `load` gave, or the folder of a run or of `save`. A model that was
            never cut has all its channels. What is cut again is counted from the first network, also where it was
            saved and loaded meanwhile.

    Returns:
        Dotted name of the layer -> its kept output and input channels, of every layer that can be cut.

    Raises:
        AttachError: the model has gates attached.
        ConfigError: it is no model and no path.
        RunError: the folder has no such file, as those of before 0.2.
        StructureError: the file is malformed.

    Example:
        >>> found = snnprune.kept_channels(small)["features.0"]
        >>> len(found.outputs) == small.features[0].out_channels, found.of_outputs
        (True, 24)
    """
    if isinstance(model, nn.Module):
        return kept_of(unwrap(plain(model, "kept_channels()")))
    return read_kept(path_of("model", model))[0]


def write_kept(model: nn.Module, folder: Path) -> None:
    """Write the file beside a model's weights."""
    tensors = {
        name: {str(dim): {"kept": list(kept), "of": of} for dim, (of, kept) in sorted(dims.items())}
        for name, dims in kept_slices(model).items()
    }
    layers = {name: _entry(one) for name, one in kept_of(model).items()}
    write_json(folder / KEPT, {"format": FORMAT, "layers": layers, "tensors": tensors})


def _entry(one: KeptChannels) -> dict[str, Any]:
    inputs = {} if one.inputs is None else {"in": list(one.inputs), "of_in": one.of_inputs}
    return {"out": list(one.outputs), "of_out": one.of_outputs, **inputs}


Slices = dict[str, dict[int, tuple[int, tuple[int, ...]]]]


def read_kept(folder: Path) -> tuple[dict[str, KeptChannels], Slices]:
    """What the file says, with its form checked.

    Raises:
        RunError: it is missing or no JSON.
        StructureError: it is malformed.
    """
    path = folder / KEPT
    content = read_json(path)
    try:
        if content["format"] != FORMAT:
            raise ValueError(f"its format is {content['format']!r}")
        layers = {
            name: KeptChannels(
                *(_side(one["out"], one["of_out"]) if one["of_out"] != 0 or one["out"] != [] else ((), 0)),
                *(_side(one["in"], one["of_in"]) if "in" in one else (None, None)),
            )
            for name, one in content["layers"].items()
        }
        tensors: Slices = {}
        for name, dims in content["tensors"].items():
            for dim, one in dims.items():
                kept, of = _side(one["kept"], one["of"])
                tensors.setdefault(name, {})[int(dim)] = of, kept
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise StructureError(
            f"{path} is malformed ({str(error)[:100]!r}). Remove it: the model can be read without it."
        ) from error
    return layers, tensors


def _side(kept: Any, of: Any) -> tuple[tuple[int, ...], int]:
    """Indices in ascending order, below their number."""
    good = type(kept) is list and type(of) is int and 0 < of < 2**31 and all(type(i) is int for i in kept)
    if not good or not kept or kept[0] < 0 or kept[-1] >= of or any(a >= b for a, b in pairwise(kept)):
        raise ValueError("indices are none of a layer's channels")
    return tuple(kept), of


def note_kept_(model: nn.Module, folder: Path) -> None:
    """Note on a model that was read from a folder what the folder says of its channels, where it does.

    Raises:
        StructureError: the file is malformed, or of another model.
    """
    if not (folder / KEPT).is_file():
        put_back_(model, {}, {})
        return
    layers, tensors = read_kept(folder)
    put_back_(model, {}, {})
    own = {name: _widths(one) for name, one in kept_of(model).items()}
    known = dict(model.named_parameters(remove_duplicate=False)) | dict(
        model.named_buffers(remove_duplicate=False)
    )
    fits = own == {name: _widths(one) for name, one in layers.items()} and all(
        name in known and 0 <= dim < known[name].dim() and known[name].shape[dim] == len(kept)
        for name, dims in tensors.items()
        for dim, (_, kept) in dims.items()
    )
    if not fits:
        raise StructureError(
            f"{folder / KEPT} is not of the model beside it. Remove it: the model can be read without it."
        )
    put_back_(model, layers, tensors)


def _widths(one: KeptChannels) -> tuple[int, int | None]:
    return len(one.outputs), None if one.inputs is None else len(one.inputs)
