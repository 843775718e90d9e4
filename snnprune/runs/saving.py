"""Save a compact model without pickle: safetensors for the weights, JSON for the structure."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ..errors import ConfigError, RunError, StructureError, first_line
from ..files import STRUCTURE, check_name, file_errors, json_of, read_json, write_atomically, write_json
from ..inputs import unwrap
from ..options import Names, checked, path_of
from ..plain import fill_, plain
from ..registry import load_state_
from ..shown import brief_repr
from ..ties import check_alike, further_names, get_tensor, set_tensor_
from .kept import note_kept_, write_kept
from .numbers import numbers_of, set_numbers_
from .shrinking import check_sizes, layer_sizes, shrink_
from .sparse import pack, shapes, unpack

FORMAT = 1
WEIGHTS = "model.safetensors"


def save(
    model: nn.Module,
    folder: str | Path,
    *,
    extra: Mapping[str, Any] | None = None,
    sparse: Sequence[str] = (),
) -> None:
    """Write `model.safetensors`, `structure.json` and `kept.json` into a folder.

    Args:
        model: a plain network (a compact one, or any other). DataParallel, AveragedModel and `torch.compile`
            wrappers are looked through, so that what is written loads into the network within.
        folder: made if it is not there; where these files are there already they are replaced.
        extra: further entries of the structure file (factory, input shape, normalisation, ...).
        sparse: names of weights with many zeros, which are stored without them.

    Raises:
        AttachError: the model has gates attached, which no file holds.
        ConfigError: `model` is no module, or another argument is not what it must be.
        RunError: the folder or a file cannot be written, or the folder holds weights of another kind.

    Example:
        >>> snnprune.save(small, "runs/small")
        >>> again = snnprune.load("runs/small", model=digits_cnn())  # a fresh model of the original size
    """
    folder, model = path_of("folder", folder), unwrap(plain(model, "save()"))
    check_name(folder / STRUCTURE)
    if (folder / WEIGHTS).exists() and not (folder / STRUCTURE).exists():
        raise RunError(
            f"{folder} holds a {WEIGHTS} without the {STRUCTURE} that ours come with, so it is not replaced. "
            "Choose another folder, or remove it."
        )
    extra = {} if extra is None else extra
    if not isinstance(extra, Mapping):
        raise ConfigError(f"extra={brief_repr(extra)} must be a dict of further entries, or None.")
    json_of("extra", dict(extra), ConfigError)
    known, sparse = model.state_dict(), checked("sparse", sparse, Names)
    unknown = [name for name in sparse if not isinstance(known.get(name), Tensor)]
    if unknown:
        raise ConfigError(f"sparse: {unknown[0][:100]!r} is the name of no weight of the model.")
    write_model(model, folder, extra=extra, sparse=sparse)


def write_model(
    model: nn.Module, folder: Path, *, extra: Mapping[str, Any] | None = None, sparse: Sequence[str] = ()
) -> None:
    """What `save` does, also where an interrupted `save` has left only one of the two files."""
    model = unwrap(plain(model, "save()"))
    tied = further_names(model, sparse)
    state = {k: v.detach().cpu().contiguous().clone() for k, v in model.state_dict().items() if k not in tied}
    stored = pack(state, sparse)
    write_tensors(folder / WEIGHTS, stored)
    write_kept(model, folder)
    structure = {
        "format": FORMAT,
        "class": f"{type(model).__module__}.{type(model).__qualname__}",
        "layers": layer_sizes(model),
        "weights_sha256": digest(folder / WEIGHTS),
        **({"numbers": numbers} if (numbers := numbers_of(model)) else {}),
        **({"sparse": shapes(state, sparse)} if sparse else {}),
        **({"tied": tied} if tied else {}),
        **(extra or {}),
    }
    write_json(folder / STRUCTURE, structure)


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write a safetensors file atomically.

    Raises:
        RunError: it cannot be written.
    """
    try:
        write_atomically(path, lambda p: save_file(dict(tensors), p))
    except SafetensorError as error:  # its way of saying that the disk is full
        raise RunError(f"{path} cannot be written ({first_line(error)}).") from error


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    value = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(2**20):
            value.update(chunk)
    return value.hexdigest()


def read_structure(folder: str | Path) -> dict[str, Any]:
    """The structure file of a run folder, with its form checked. It never makes code run.

    Raises:
        StructureError: it is of another format, or malformed.
        RunError: it is missing or no JSON.
    """
    path = Path(folder) / STRUCTURE
    content = read_json(path)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        found = content.get("format") if isinstance(content, dict) else type(content).__name__
        raise StructureError(f"{path} has format {found!r}; this version reads format {FORMAT}.")
    sizes = content.get("layers")
    if not isinstance(sizes, dict):
        raise StructureError(f"{path} has no table of layers.")
    for name, entry in sizes.items():
        good = isinstance(entry, dict) and all(
            k in ("in", "out", "groups", "source", "heads") and type(v) is int and 0 < v < 2**31
            for k, v in entry.items()
        )
        if not good or not {"out", "heads"} & set(entry):
            raise StructureError(f"{path}: the sizes of layer {name[:100]!r} are malformed: {repr(entry)[:200]}.")
    return content


@file_errors()
@torch.inference_mode(False)
def load(folder: str | Path, *, model: nn.Module) -> nn.Module:
    """Load a saved compact model into a fresh model of the original size.

    Args:
        folder: what `save` or a run wrote.
        model: the original architecture, wrapped or not, with any weights or none (on the device meta); it is
            changed in place.

    Returns:
        The same model, shrunk, with the saved weights, in eval mode.

    Raises:
        AttachError: the model has gates attached.
        ConfigError: `model` is no module.
        StructureError: the structure does not fit the model, or the weights are not those that
            belong to the structure.
        RunError: a file is missing or damaged.

    Example:
        >>> snnprune.save(small, "runs/loaded")
        >>> again = snnprune.load("runs/loaded", model=digits_cnn())
        >>> torch.equal(again(images), small(images))
        True
    """
    folder, model = path_of("folder", folder), plain(model, "load()", empty=True)
    check_name(folder)
    structure = read_structure(folder)
    weights = folder / WEIGHTS
    if not weights.is_file():
        raise StructureError(f"{folder} holds no {WEIGHTS}.")
    if structure.get("weights_sha256") != digest(weights):
        raise StructureError(
            f"{weights} is not the file that {STRUCTURE} was written for; one of them was changed."
        )
    whole, model = model, _bearer(model, structure["layers"])
    check_sizes(model, structure["layers"])  # before anything is unpacked to these sizes
    try:
        state = load_file(weights)
    except Exception as error:  # its own, and those of element types that PyTorch lacks
        raise StructureError(f"{weights} is no readable safetensors file ({first_line(error)}).") from error
    state = unpack(state, structure.get("sparse", {}), structure["layers"])
    tied = _tied_names(structure, state)
    state |= {name: state[stored] for name, stored in tied.items()}
    check_alike(model, state)
    unknown = [name for name in fill_(model) if name not in state]
    if unknown:
        raise StructureError(
            f"{unknown[0]} of {type(model).__name__} is on the device meta, and {folder} does not hold it. Build "
            "the model on the CPU."
        )
    shrink_(model, structure["layers"], state)
    set_numbers_(model, structure.get("numbers", {}))
    try:
        load_state_(model, state)
    except (RuntimeError, TypeError) as error:
        raise StructureError(f"{folder} does not fit {type(model).__name__} ({first_line(error)}).") from error
    for name, stored in tied.items():
        one = get_tensor(model, stored)
        if isinstance(one, nn.Parameter) != isinstance(get_tensor(model, name), nn.Parameter):
            raise StructureError(f"{folder}: {name[:100]!r} and {stored[:100]!r} cannot be one parameter.")
        set_tensor_(model, name, one)
    note_kept_(model, folder)
    return whole.eval()


def _bearer(model: nn.Module, sizes: Mapping[str, Any]) -> nn.Module:
    """What bears the layers of a file: the network within a wrapper, or, of an old file, the wrapper."""
    return model if set(layer_sizes(model)) == set(sizes) else unwrap(model)


def _tied_names(structure: Mapping[str, Any], state: Mapping[str, Tensor]) -> dict[str, str]:
    """Further names of stored parameters and buffers, from a structure file.

    Raises:
        StructureError: the table is malformed, or names what the weights file lacks or has as well.
    """
    tied = structure.get("tied", {})
    good = isinstance(tied, dict) and all(
        isinstance(stored, str) and stored in state and name not in state for name, stored in tied.items()
    )
    if not good:
        raise StructureError(f"{STRUCTURE}: the table of tied parameters is malformed: {repr(tied)[:200]}.")
    return tied


def weights_digest(model: nn.Module) -> str:
    """SHA-256 of all weights and buffers with their names."""
    value = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        if isinstance(tensor, Tensor):
            value.update(name.encode())
            value.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return value.hexdigest()
