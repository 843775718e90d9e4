"""Read model files without running anything that they contain."""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ModelFileError, first_line
from ..files import STRUCTURE, check_name, missing
from ..inputs import unwrap
from .inside import State, weights_in
from .kinds import refuse_other_kinds
from .scan import REMEDY, read_scanned
from .whole import check_whole, complete_


def read_model_file(path: Path, *, trust_pickle: bool = False, entry: str | None = None) -> State | nn.Module:
    """A state dict, or a whole model if every class in the file may be loaded; without what it was wrapped in.

    Args:
        path: `.safetensors`, or what `torch.save` wrote: a state dict or a whole model of allowed classes, alone
            or anywhere in a checkpoint.
        entry: of a checkpoint with several, the one to take; see `inside.weights_in`.
        trust_pickle: load any pickle. This can run code that is in the file.

    Raises:
        ModelFileError: missing, empty, damaged, not a model, or not allowed.
    """
    check_name(path, ModelFileError)
    if not path.exists():
        raise ModelFileError(missing(path))
    if path.is_dir():
        raise ModelFileError(
            f"{path} is a folder, but neither a run nor a model file. Name a run folder (one that holds a "
            f"{STRUCTURE}) or a file."
        )
    if path.stat().st_size == 0:
        raise ModelFileError(f"{path} is empty. {REMEDY}")
    refuse_other_kinds(path)
    content = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path, trust_pickle)
    found = weights_in(content, path, REMEDY, entry)
    if not isinstance(found, nn.Module):
        return found
    if not trust_pickle:
        check_whole(found, path)
    return complete_(unwrap(found))


def _read_safetensors(path: Path) -> Any:
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except Exception as error:  # its own, and those of element types that PyTorch lacks
        raise ModelFileError(f"{path} is no readable safetensors file ({first_line(error)}).") from error


def _read_torch(path: Path, trust_pickle: bool) -> Any:
    try:
        if trust_pickle:
            return _read_pickle(path)
        with path.open("rb") as file:
            return read_scanned(file, path, modules=True)
    except ModelFileError:
        raise
    except (ModuleNotFoundError, AttributeError) as error:
        if not trust_pickle:
            raise ModelFileError(f"{path} is not what torch.save writes ({first_line(error)}).") from error
        raise ModelFileError(
            f"{path} needs code that is not found here ({first_line(error)}). Put its folder on PYTHONPATH, or "
            "save the state_dict() and name the architecture with --arch."
        ) from error
    except Exception as error:
        cause = re.search(r"WeightsUnpickler error:\s*(\S.*)", str(error))
        what = cause[1] if cause else f"{type(error).__name__}: {first_line(error)}"
        raise ModelFileError(
            f"{path} is not what torch.save writes, or it is damaged ({what}). {REMEDY}"
        ) from error


def _read_pickle(path: Path) -> Any:
    """What torch.save wrote, or pickle itself. This runs what the file says."""
    try:
        return torch.load(path, map_location="cpu", weights_only=False)
    except RuntimeError as error:
        if "Invalid magic number" not in str(error):
            raise
    with path.open("rb") as file:
        return pickle.load(file)


def check_finite(state: Mapping[str, Tensor], source: object) -> None:
    """Refuse weights that are not finite.

    Raises:
        ModelFileError: a tensor holds NaN or infinity.
    """
    for name, tensor in state.items():
        if not tensor.is_floating_point():
            continue
        values = tensor.float() if tensor.element_size() == 1 else tensor  # of eight bits isfinite knows nothing
        if not bool(torch.isfinite(values).all()):
            raise ModelFileError(
                f"{source}: {name} holds NaN or infinite values. The training has diverged or the file is "
                "damaged; use another checkpoint."
            )
