"""Checkpoints: everything that a run needs to go on as if it had never stopped."""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import torch

from ..errors import RunError, SnnPruneError, first_line
from ..files import write_atomically
from ..registry import first_bytes, read_scanned

logger = logging.getLogger(__name__)
FORMAT = 2  # 1: without the states of Python's and NumPy's generators, and with other seeds
_MARK, _DIGEST = b"snnprune", 32  # what follows a checkpoint's content: a mark, then its SHA-256


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, after a checkpoint was written."""


class Checkpoint:
    """One file in a folder, replaced atomically; the one before it is kept beside it.

    Args:
        folder: of the checkpoint; made at the first save.
        fingerprint: identifies model, data and options; a checkpoint of another run is refused.
        writes: whether this process is the one that saves.
        options: of the run, to name those that differ from another's.
    """

    def __init__(
        self, folder: Path, fingerprint: str, *, writes: bool = True, options: dict[str, Any] | None = None
    ) -> None:
        self.writes, self.options = writes, options or {}
        self.path = folder / "state.pt"
        self.previous = folder / "state.previous.pt"
        self.fingerprint = fingerprint
        self._readable = False  # whether state.pt is known to be good
        self._began, self.seconds = time.monotonic(), 0.0  # seconds: of the run before it was gone on with

    def save(
        self, stage: str, state: dict[str, Any], rng: dict[str, Any], *, due: bool = False, loss: float = math.nan
    ) -> None:
        """Write the state of a stage, with the random state of the model's stream.

        Args:
            stage: its name.
            state: made of tensors and plain values.
            rng: from `streams.rng_state`.
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
            "options": self.options,
            "seconds": self.seconds + time.monotonic() - self._began,
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
            except SnnPruneError as error:
                trouble.append(f"{path} cannot be read: {str(error).removeprefix(f'{path} ').rstrip('.')}")
                continue
            except Exception as error:
                trouble.append(f"{path} cannot be read ({type(error).__name__}: {first_line(error)})")
                continue
            if not _is_state(content):
                trouble.append(f"{path} is no checkpoint of this version")
                continue
            if content["fingerprint"] != self.fingerprint:
                raise RunError(
                    f"{path} belongs to another model, data set or options{self._differences(content)}. "
                    "Repeat the command of the interrupted run, or remove its folder to start anew."
                )
            if trouble:
                logger.warning("%s; going on from the checkpoint before it, %s", trouble[0], path)
            self._readable = path == self.path
            seconds = content.get("seconds")
            self.seconds = seconds if isinstance(seconds, float) and 0 <= seconds < math.inf else 0.0
            return content
        if trouble:
            raise RunError(f"{'; '.join(trouble)}. Remove its folder to start anew.")
        return None

    def _differences(self, content: dict[str, Any]) -> str:
        before = content.get("options")
        if not isinstance(before, dict):
            return ""
        names = [name for name, value in self.options.items() if name in before and before[name] != value]
        return "".join(f" ({name} was {before[name]}, now {self.options[name]})" for name in names[:3])


def _write(content: dict[str, Any], path: Path) -> None:
    """Write a file that ends with its own checksum, so that no kill can part the two."""
    try:
        with path.open("w+b") as file:
            torch.save(content, file)
            length = file.tell()
            file.seek(0)
            digest = _digest(file, length)
            file.seek(length)
            file.write(_MARK + digest)
    except RuntimeError as error:  # the writer's own complaint covers up what the system said
        if isinstance(error.__context__, OSError):
            raise error.__context__ from None
        raise


def _read(path: Path) -> Any:
    """The content of a file whose checksum is right; what is loaded ends where the checksum begins."""
    with path.open("rb") as file:
        length = file.seek(0, io.SEEK_END) - len(_MARK) - _DIGEST
        file.seek(0)
        found = _digest(file, length)
        if file.read(len(_MARK)) != _MARK:
            raise ValueError("it is cut off")
        if file.read() != found:
            raise ValueError("its checksum is wrong")
        return read_scanned(first_bytes(file, length), path)


def _digest(file: BinaryIO, length: int) -> bytes:
    value = hashlib.sha256()
    while length > 0 and (chunk := file.read(min(length, 2**20))):
        value.update(chunk)
        length -= len(chunk)
    return value.digest()


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
