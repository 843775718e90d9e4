"""Where runs work, and what of a folder is theirs: nothing else is ever removed."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from ..errors import RunError
from ..files import STRUCTURE, check_name, refuse_links
from .kept import KEPT
from .saving import WEIGHTS
from .visual import PAGE, PLOTS
from .visual.material import PICTURES, REPORT, SCALES

ONNX, CHECKPOINT, TENSORBOARD = "model.onnx", "checkpoint", "tensorboard"
PROBE = "probe.safetensors"  # a few real inputs with the model's outputs, to check exports by
STATES = ("state.pt", "state.previous.pt")
OPTIONS = "run.yaml"  # what the command line was asked for
BOOK, LATENCY = "trials.json", "latency.json"
_FILES = (
    STRUCTURE, WEIGHTS, KEPT, REPORT, ONNX, PROBE, PICTURES, SCALES, PAGE, OPTIONS, f"{CHECKPOINT}.lock",
)  # fmt: skip


def partial_of(folder: Path) -> Path:
    """Where a run works until it is finished.

    Raises:
        RunError: the path ends in no name, so that nothing can be put beside it.
    """
    if folder.name in ("", ".."):
        raise RunError(f"{str(folder)!r} is no name for a run folder. Choose another --output, such as runs/mine.")
    return folder.with_name(folder.name + ".partial")


def has_checkpoint(folder: Path) -> bool:
    """Whether an unfinished run can be gone on with, from a checkpoint or from figures of its trials."""
    return any(p.suffix in (".pt", ".json") for p in (partial_of(folder) / CHECKPOINT).rglob("*"))


def check_place(folder: Path) -> None:
    """Refuse a run folder that could not be written, before any work is done.

    Raises:
        RunError: a parent of it is a file, or may not be written to, its name is none or too long, or what lies
            where it will work is not a run's.
    """
    check_name(partial_of(folder).with_name(partial_of(folder).name + ".lock"))  # the longest name beside it
    parent = next(p for p in folder.absolute().parents if p.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise RunError(
            f"{folder} cannot be written: {parent} is no folder or not writable. Choose another --output."
        )
    if folder.is_symlink():
        raise RunError(f"{folder} is a link that leads nowhere. Choose another --output, or remove it.")
    check_work(partial_of(folder))


def check_work(work: Path) -> None:
    """Refuse to work in a folder that holds anything that is not a run's, for it would become part of one.

    Raises:
        RunError: it does, it is no folder, or there are links in it, which would lead elsewhere.
    """
    refuse_links(work)
    if work.exists() and not work.is_dir():
        raise RunError(f"{work} is in the way: a run works in a folder of that name. Choose another --output.")
    for path in sorted(work.iterdir()) if work.is_dir() else ():
        if not _is_ours(path):
            raise RunError(
                f"{work} holds {path.name!r}, which is no part of a run. Move it elsewhere, or choose another "
                "--output."
            )


def _is_ours(path: Path) -> bool:
    if path.is_dir() and not path.is_symlink():
        return path.name in (CHECKPOINT, TENSORBOARD, PLOTS)
    return path.name in _FILES or _is_leftover(path)


def _is_leftover(path: Path) -> bool:
    return path.name.startswith(".") and path.suffix == ".tmp"


def remove_partial(folder: Path) -> None:
    """Remove an unfinished run's working folder; what else was put there meanwhile stays, and the folder too."""
    work = partial_of(folder)
    remove_checkpoint(work / CHECKPOINT)
    for path in (*_listed(work / PLOTS), *_listed(work)):
        ending = path.suffix == ".png" if path.parent.name == PLOTS else _is_ours(path)
        if ending and not path.is_dir():
            _unlink(path)
    for path in _listed(work / TENSORBOARD):
        if path.name.startswith("events.out.tfevents."):
            _unlink(path)
    _rmdir(work / PLOTS, work / TENSORBOARD, work)


def remove_checkpoint(place: Path) -> None:
    """Remove a run's checkpoints, those of its trials too, and their folder where it is empty then."""
    for path in _listed(place):
        if path.is_dir() and not path.is_symlink():
            if path.name.startswith(("macs-", "params-")):
                remove_checkpoint(path)
        elif path.name in (*STATES, BOOK, LATENCY) or _is_leftover(path):
            _unlink(path)
    _rmdir(place)


def _listed(folder: Path) -> list[Path]:
    """What is in a folder, nothing where it is a link, which leads to what is not ours."""
    with contextlib.suppress(OSError):
        return [] if folder.is_symlink() else list(folder.iterdir())
    return []


def _unlink(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()


def _rmdir(*folders: Path) -> None:
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.rmdir()
