"""A run's folder from the first look to the last word: whose it is, what is kept when it stops, how to go on."""

from __future__ import annotations

import datetime
import glob
import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .paste import Call, going_on
from .show import say

if TYPE_CHECKING:
    from ..ranks import Ranks

_LONGEST = 150  # bytes of a model's name in that of its run


@dataclass(slots=True)
class Session:
    """A run under way.

    Attributes:
        folder: where it ends.
        learned: whether only the writing is left.
    """

    folder: Path
    learned: bool = False

    @property
    def work(self) -> Path:
        """Where it works until then."""
        from ..runs.places import partial_of

        return partial_of(self.folder)

    @property
    def checkpoint(self) -> Path:
        """Its folder of checkpoints."""
        from ..runs.places import CHECKPOINT

        return self.work / CHECKPOINT


def find_folder(model: Path, output: Path | None, resume: bool, ranks: Ranks) -> Path:
    """The run folder that the user named, the newest unfinished one, or a new one.

    Raises:
        RunError: it is taken, cannot be written, or there is none to go on with.
    """
    from ..runs.places import check_place

    folder = _named(model, output, resume, ranks)
    check_place(folder)
    _check_free(Session(folder), resume)
    ranks.wait()  # until all have looked, before the first one writes
    return folder


@contextmanager
def session(folder: Path, ranks: Ranks, call: Call, *, resume: bool) -> Iterator[Session]:
    """Hold a run's folder; whatever ends the block, what was learned stays, and the user hears how to go on.

    Args:
        folder: of the run.
        ranks: the processes that share it.
        call: what began it.
        resume: whether it goes on with an earlier one.

    Raises:
        RunError: another process holds it.
    """
    from ..errors import ConfigError, LostRankError, RunError
    from ..files import remove_leftovers
    from ..runs.lock import locked
    from ..runs.places import has_checkpoint, remove_partial

    run = Session(folder)
    with locked(run.work):
        if ranks.first:
            if folder.exists():
                raise RunError(f"{folder} has been written meanwhile by another run.")
            remove_leftovers(run.work)
        begun = has_checkpoint(folder)
        if resume and not begun:
            say(f"there is no checkpoint in {run.work} yet; starting from the beginning")
        try:
            yield run
        except (KeyboardInterrupt, LostRankError) as stop:
            if has_checkpoint(folder):
                raise type(stop)(f"{stop} Go on with: {going_on(call, folder)}".strip()) from None
            remove_partial(folder)
            raise
        except BaseException as error:
            kept = has_checkpoint(folder) and not isinstance(error, ConfigError)
            if has_checkpoint(folder) and (run.learned or (kept and not begun)):
                say(f"what was learned is kept. Go on with: {going_on(call, folder)}")
            elif not kept and not begun and ranks.first:
                remove_partial(folder)
            raise


def _check_free(run: Session, resume: bool) -> None:
    from ..errors import RunError
    from ..runs.folder import is_run
    from ..runs.lock import locked
    from ..runs.places import CHECKPOINT, has_checkpoint, remove_checkpoint

    folder = run.folder
    if resume and is_run(folder):
        with locked(run.work):  # what a kill just after the end has left goes
            remove_checkpoint(folder / CHECKPOINT)
        raise RunError(f"{folder} is finished already, so there is nothing to go on with.")
    if folder.exists():
        raise RunError(f"{folder} exists already. Choose another --output, or remove it.")
    if not resume and has_checkpoint(folder):
        raise RunError(
            f"{run.work} holds an unfinished run. Go on with it by --resume, or remove it to start anew."
        )
    lock = run.work.with_name(run.work.name + ".lock")  # of a run that was killed early there is only this
    if resume and not run.work.exists() and not lock.exists():
        raise RunError(f"there is nothing to go on with: {run.work} does not exist. Leave out --resume to begin.")


def _named(model: Path, output: Path | None, resume: bool, ranks: Ranks) -> Path:
    from ..errors import RunError
    from ..runs.places import partial_of

    if output is not None:
        return output
    name = _short(model.stem if model.suffix else model.name)
    if resume:
        places = Path("runs").glob(f"{glob.escape(name)}-*.partial*")
        found = [p for p in places if p.name.endswith((".partial", ".partial.lock"))]
        if not found:
            raise RunError(f"there is no unfinished run of {name} in runs/. Name it with --output.")
        last = max(found, key=lambda p: p.stat().st_mtime).name
        return Path("runs") / last.removesuffix(".lock").removesuffix(".partial")
    (now,) = ranks.same_values(datetime.datetime.now().timestamp())  # one folder for all processes
    stamp = datetime.datetime.fromtimestamp(now).strftime("%Y%m%d-%H%M%S")
    names = itertools.chain([stamp], (f"{stamp}-{n}" for n in itertools.count(2)))
    folders = (Path("runs") / f"{name}-{n}" for n in names)  # the clock may have been put back
    return next(f for f in folders if not f.exists() and not partial_of(f).exists())


def _short(name: str) -> str:
    """The front of a file's name that leaves room for what is put behind it."""
    while len(os.fsencode(name)) > _LONGEST:
        name = name[:-1]
    return name
