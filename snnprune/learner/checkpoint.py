"""Checkpoints: everything that a run needs to go on as if it had never stopped."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import logging
import math
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch

from ..errors import RunError, SnnPruneError, first_line
from ..files import write_atomically
from ..registry import first_bytes, read_scanned
from .identity import check_same_run, differences

logger = logging.getLogger(__name__)
FORMAT = 4
# 3: what a search found stood in eight places; 2: with a fingerprint that told nothing; 1: without the states of
# all generators, and other seeds.
_MARK, _DIGEST = b"snnprune", 32  # what follows a checkpoint's content: a mark, then its SHA-256


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, after a checkpoint was written."""


class Checkpoint:
    """One file in a folder, replaced atomically; the one before it is kept beside it.

    Args:
        folder: of the checkpoint; made at the first save.
        identity: what the run depends on, by name, made of JSON's values; a checkpoint of another run is refused.
        writes: whether this process is the one that saves.
        environment: what its last bits depend on; a checkpoint of another one is gone on with, and that is said.
    """

    def __init__(
        self,
        folder: Path,
        identity: Mapping[str, Any],
        *,
        writes: bool = True,
        environment: Mapping[str, Any] | None = None,
    ) -> None:
        self.writes, self.identity, self.environment = writes, identity, environment or {}
        self.path = folder / "state.pt"
        self.previous = folder / "state.previous.pt"
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
            "identity": json.dumps(self.identity),
            "environment": json.dumps(self.environment),
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
            check_same_run(path, _decoded(content["identity"]), self.identity)
            self._warn_of_other_bits(_decoded(content.get("environment")))
            if trouble:
                logger.warning("%s; going on from the checkpoint before it, %s", trouble[0], path)
            self._readable = path == self.path
            seconds = content.get("seconds")
            self.seconds = seconds if isinstance(seconds, float) and 0 <= seconds < math.inf else 0.0
            return content
        if trouble:
            raise RunError(f"{'; '.join(trouble)}. Remove its folder to start anew.")
        return None

    def _warn_of_other_bits(self, before: dict[str, Any]) -> None:
        changed = differences(before, self.environment)
        if before and changed:
            logger.warning(
                "going on under other conditions than the run began with (%s), so its end may differ in last bits",
                "; ".join(changed),
            )


def _decoded(text: Any) -> dict[str, Any]:
    """An identity out of a file; an empty one where it is none."""
    try:
        found = json.loads(text)
    except (TypeError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


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
        and isinstance(content.get("identity"), str)
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
