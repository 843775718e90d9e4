"""Checkpoints: everything that a run needs to go on as if it had never stopped."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from ..errors import RunError, SnnPruneError, first_line
from ..files import write_atomically
from ..registry import scan

FORMAT = 1


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, after a checkpoint was written."""


class Checkpoint:
    """One file in a folder, replaced atomically; the one before it is kept beside it.

    Args:
        folder: of the checkpoint; made at the first save.
        fingerprint: identifies model, data and options; a checkpoint of another run is refused.
        writes: whether this process is the one that saves.
    """

    def __init__(self, folder: Path, fingerprint: str, *, writes: bool = True) -> None:
        self.writes = writes
        self.path = folder / "state.pt"
        self.previous = folder / "state.previous.pt"
        self.fingerprint = fingerprint
        self._readable = False  # whether state.pt is known to be good

    def save(self, stage: str, state: dict[str, Any], rng: dict[str, Any]) -> None:
        """Write the state of a stage, with the random state of the model's stream."""
        if not self.writes:
            return
        content = {
            "format": FORMAT,
            "fingerprint": self.fingerprint,
            "stage": stage,
            "state": state,
            "rng": rng,
        }
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self._readable and self.path.exists():
            os.replace(self.path, self.previous)  # a damaged file must not push out a good one
        write_atomically(self.path, lambda p: torch.save(content, p))
        self._readable = True

    def load(self) -> dict[str, Any] | None:
        """The newest readable state, or None when there is none.

        Raises:
            RunError: it belongs to another run, or none of the files can be read.
        """
        trouble = None
        for path in (self.path, self.previous):
            if not path.exists():
                continue
            try:
                scan(path)
                content = torch.load(path, map_location="cpu", weights_only=True)
            except SnnPruneError as error:
                trouble = f"{path} cannot be read: {str(error).removeprefix(f'{path} ').rstrip('.')}"
                continue
            except Exception as error:
                trouble = f"{path} cannot be read ({type(error).__name__}: {first_line(error)})"
                continue
            if not _is_state(content):
                trouble = f"{path} is no checkpoint of this version"
                continue
            if content["fingerprint"] != self.fingerprint:
                raise RunError(
                    f"{path} belongs to another model, data set or options. Repeat the command of the "
                    "interrupted run, or remove its folder to start anew."
                )
            self._readable = path == self.path
            return content
        if trouble:
            raise RunError(f"{trouble}. Remove its folder to start anew.")
        return None


def _is_state(content: Any) -> bool:
    """Whether the outer form is that of a checkpoint; what is inside, each stage reads within `reading`."""
    return (
        isinstance(content, dict)
        and content.get("format") == FORMAT
        and isinstance(content.get("fingerprint"), str)
        and content.get("stage") in ("search", "recover")
        and isinstance(content.get("state"), dict)
        and type(content["state"].get("step")) is int
        and content["state"]["step"] >= 0
        and isinstance(content.get("rng"), dict)
    )


@contextlib.contextmanager
def reading() -> Iterator[None]:
    """Turns whatever a malformed state raises into one error.

    Raises:
        RunError: the state does not fit.
    """
    try:
        yield
    except SnnPruneError:
        raise
    except Exception as error:
        raise RunError(
            f"the checkpoint is malformed ({type(error).__name__}: {first_line(error)}). Remove its folder to "
            "start anew."
        ) from error


def rng_state() -> dict[str, Any]:
    """Random state of PyTorch on the CPU and on every GPU in use."""
    state: dict[str, Any] = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def set_rng_state(state: dict[str, Any]) -> None:
    """Put back what `rng_state` returned."""
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])
