"""Checkpoints: everything that a run needs to go on as if it had never stopped."""

from __future__ import annotations

import logging
import math
import zipfile
from pathlib import Path
from typing import Any

import torch

from ..errors import RunError, first_line
from ..files import write_atomically

logger = logging.getLogger(__name__)
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

    def save(
        self, stage: str, state: dict[str, Any], rng: dict[str, Any], *, due: bool = False, loss: float = math.nan
    ) -> None:
        """Write the state of a stage, with the random state of the model's stream.

        Args:
            stage: its name.
            state: made of tensors and plain values.
            rng: from `rng_state`.
            due: an epoch has ended and is still to be validated.
            loss: of the last step.

        Raises:
            RunError: the file cannot be written; the checkpoint before it is as it was.
        """
        if not self.writes:
            return
        content = {
            "format": FORMAT,
            "fingerprint": self.fingerprint,
            "stage": stage,
            "state": state,
            "rng": rng,
            "due": due,
            "loss": loss,
        }
        try:
            # a damaged file must not push out a good one
            keep = self.previous if self._readable else None
            write_atomically(self.path, lambda p: _write(content, p), keep)
        except RunError as error:
            raise RunError(
                f"{error} The checkpoint before it is kept: mend the cause, then go on with --resume."
                if self.path.exists() or self.previous.exists()
                else f"{error} It would have been the first checkpoint; mend the cause, then start again."
            ) from error
        self._readable = True

    def load(self) -> dict[str, Any] | None:
        """The newest readable state, or None when there is none. A damaged file is passed over with a warning.

        Raises:
            RunError: it belongs to another run, or none of the files can be read.
        """
        trouble = []
        for path in (self.path, self.previous):
            if not path.exists():
                continue
            try:
                content = _read(path)
            except Exception as error:
                trouble.append(f"{path} cannot be read ({type(error).__name__}: {first_line(error)})")
                continue
            if not isinstance(content, dict) or content.get("format") != FORMAT:
                trouble.append(f"{path} is no checkpoint of this version")
                continue
            if content["fingerprint"] != self.fingerprint:
                raise RunError(
                    f"{path} belongs to another model, data set or options. Repeat the command of the "
                    "interrupted run, or remove its folder to start anew."
                )
            if trouble:
                logger.warning("%s; going on from the checkpoint before it, %s", trouble[0], path)
            self._readable = path == self.path
            return content
        if trouble:
            raise RunError(f"{'; '.join(trouble)}. Remove its folder to start anew.")
        return None


def _write(content: dict[str, Any], path: Path) -> None:
    sums = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(True)  # by which `_read` finds damage
    try:
        with path.open("wb") as file:
            torch.save(content, file)
    except RuntimeError as error:  # the writer's own complaint covers up what the system said
        if isinstance(error.__context__, OSError):
            raise error.__context__ from None
        raise
    finally:
        torch.serialization.set_crc32_options(sums)


def _read(path: Path) -> Any:
    """The content of a file whose checksums are right; `torch.load` does not look at them."""
    with zipfile.ZipFile(path) as archive:
        bad = archive.testzip()
    if bad is not None:
        raise zipfile.BadZipFile(f"the checksum of {Path(bad).name} is wrong")
    return torch.load(path, map_location="cpu", weights_only=True)


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
