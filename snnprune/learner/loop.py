"""The loop that both stages share: batches, random state, progress, checkpoints, Ctrl-C and SIGTERM."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterable, Iterator
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import DistributedSampler

from ..batches import inputs_in, picked
from ..carried import seed_carried
from ..errors import DataError
from ..inputs import moved
from ..loaders import bounded, length_of, refuse_lost_worker
from ..ranks import Ranks, current
from ..streams import rng_state, seed_all, seed_of, set_rng_state
from .checkpoint import Checkpoint, Interrupted, reading
from .events import Callback, Event
from .pause import Pause
from .watch import Watch

_CHECKPOINT_SECONDS = 60.0
_REPORT_SECONDS = 0.1
_MARKS = 50


class Stage(Protocol):
    """One stage of learning, moved by the loop step by step."""

    name: str
    total: int
    step: int

    def train_step(self, batch: Any) -> Tensor:
        """Learn from one batch; returns its figures (`figures_of`), which a GPU may still be about to compute."""
        ...

    def check(self, batch: Any) -> None:
        """Raise where a batch, of which the loss is not finite, is of no use for learning."""
        ...

    def after_epoch(self, epoch: int) -> dict[str, Any]:
        """Validate; returns values to report. May lower `total` to stop early."""
        ...

    def state(self) -> dict[str, Any]:
        """All that is needed to go on, made of tensors and plain values."""
        ...

    def load(self, state: dict[str, Any]) -> None:
        """Put back what `state` returned."""
        ...

    def values(self) -> dict[str, Any]:
        """What to show of the present step."""
        ...


def steps_per_epoch(loader: Any) -> int:
    """Batches of one epoch.

    Raises:
        DataError: the loader is empty, or does not end.
    """
    count = length_of(loader)
    if count is None:
        count = sum(1 for _ in bounded(loader, "the training loader"))
    if not count:
        raise DataError("the training loader yields no batch.")
    return count


def epoch_batches(loader: Iterable[Any], epoch: int, start: int) -> Iterator[Any]:
    """Batches of an epoch from `start` on; loaders of other kinds are drawn and skipped.

    Of several processes each gets its part of every batch, unless the loader's sampler has shared them out.
    """
    ranks = current()
    if hasattr(loader, "batches"):
        yield from loader.batches(epoch, start, part=ranks.part)  # type: ignore[attr-defined]
        return
    sampler = getattr(loader, "sampler", None)
    if hasattr(sampler, "set_epoch"):
        sampler.set_epoch(epoch)  # type: ignore[union-attr]
    whole = ranks.world == 1 or _is_shared_out(loader)
    for batch in itertools.islice(iter(loader), start, None):
        yield batch if whole else part_of(batch, ranks)


def _is_shared_out(loader: Any) -> bool:
    """Whether every process gets samples of its own from its loader."""
    return isinstance(getattr(loader, "sampler", None), DistributedSampler)


def part_of(batch: Any, ranks: Ranks) -> Any:
    """A process's part of a batch: of a list of samples, or of every field that runs over the inputs.

    Raises:
        DataError: a field has another length.
    """
    count = inputs_in(batch)

    def wrong(length: int) -> DataError:
        return DataError(
            f"a batch of {count} inputs holds a field of length {length}, so it cannot be shared out among "
            f"{ranks.world} processes. Give a loader with a DistributedSampler."
        )

    return picked(batch, ranks.part(count), wrong)


def first_batches(loader: Any, seed: int, name: str, steps: int) -> Iterator[Any]:
    """The first `steps` batches of an epoch, for a stage that only looks at data."""
    own = current().rank if _is_shared_out(loader) else 0
    seed_all(seed_of(seed, name, "data", 0, own))
    seed_carried(loader, seed, name, 0, own)
    yield from itertools.islice(epoch_batches(loader, 0, 0), steps)


def run_stage(
    stage: Stage,
    loader: Any,
    *,
    seed: int,
    device: torch.device,
    callbacks: Iterable[Callback] = (),
    checkpoint: Checkpoint | None = None,
    resume: dict[str, Any] | None = None,
) -> None:
    """Drive a stage to its end.

    Data and model draw from two random streams, both set from (seed, stage, epoch) at every epoch; each is one of
    PyTorch, of Python and of NumPy. So what an epoch draws does not depend on how the run got there, and a run
    that is resumed inside an epoch replays the data's stream and puts the model's state back. The end of a stage
    is saved too. Of several processes all draw the same data, unless the sampler gives each its own.

    An epoch is done once it is validated. A checkpoint that is written after an epoch's last step and before its
    validation says that the validation is due; a run that goes on from there begins with it.

    Where a GPU computes, the loss of a step is read after the next step was begun, so callbacks are told the last
    loss that is known. It is that of the step itself in marks, at the end of an epoch and of the stage, and in
    checkpoints.

    Raises:
        Interrupted: Ctrl-C, or SIGTERM where it has a handler; a checkpoint was written first.
        DivergedError: a loss or gradient is not finite.
        RunError: a checkpoint cannot be written.
    """
    per_epoch = steps_per_epoch(loader)
    callbacks, ranks = list(callbacks), current()
    foreign = not hasattr(loader, "batches")  # loaders of ours draw from generators of their own
    own = ranks.rank if _is_shared_out(loader) else 0
    model_rng: dict[str, Any] | None = None
    due = False  # an epoch has ended and is still to be validated
    watch = Watch(stage.name, stage.check)
    if resume is not None:
        with reading():
            stage.load(resume["state"])
            model_rng, due, watch.loss = resume["rng"], resume.get("due", False), resume.get("loss", math.nan)
            set_rng_state(resume["rng"])
    saved = reported = time.monotonic()

    def tell(*, mark: bool = False, **values: Any) -> None:
        event = Event(stage.name, stage.step, stage.total, {"loss": watch.loss, **stage.values(), **values}, mark)
        for callback in callbacks:
            callback(event)

    marks = math.ceil(stage.total / _MARKS)
    pause = Pause(terminable=ranks.world == 1)
    try:
        while stage.step < stage.total or due:
            epoch, start = divmod(stage.step, per_epoch)
            if due:
                found = stage.after_epoch((stage.step - 1) // per_epoch)
                due, model_rng = False, None
                tell(**found)
                continue
            seed_all(seed_of(seed, stage.name, "data", epoch, own))
            seed_carried(loader, seed, stage.name, epoch, own)
            batches = epoch_batches(loader, epoch, start)
            data_rng = rng_state(others=foreign)
            seed_all(seed_of(seed, stage.name, "model", epoch))
            if model_rng is None or start == 0:
                model_rng = rng_state()
            while not due:
                set_rng_state(data_rng)
                batch = next(batches, None)
                data_rng = rng_state(others=foreign)
                if batch is None:
                    raise DataError(f"the training loader ended before its {per_epoch} batches.")
                set_rng_state(model_rng)
                if ranks.world > 1:  # every process draws its own numbers, whatever a checkpoint remembers
                    seed_all(seed_of(seed, stage.name, "rank", stage.step, ranks.rank))
                batch = moved(batch, device)
                with pause:
                    watch.add(stage.step, _step(stage, batch, watch), batch)
                    model_rng = rng_state()
                    stage.step += 1
                    due = stage.step >= stage.total or stage.step % per_epoch == 0
                now = time.monotonic()
                mark = stage.step % marks == 0 or stage.step == stage.total
                saving = checkpoint is not None and now - saved > _CHECKPOINT_SECONDS
                if due or mark or saving or math.isnan(watch.loss):
                    watch.read()
                if mark or now - reported > _REPORT_SECONDS:
                    tell(mark=mark)
                    reported = now
                (pause.wanted,) = ranks.any(pause.wanted)  # all stop after the same step
                if checkpoint and saving:
                    checkpoint.save(stage.name, stage.state(), model_rng, due=due, loss=watch.loss)
                    saved = now
                pause.act()
        if checkpoint:  # what comes after the stage may fail, and need not cost it
            checkpoint.save(stage.name, stage.state(), rng_state())
    except (RuntimeError, OSError, EOFError) as error:
        refuse_lost_worker(error, loader, "the training loader")
        raise
    except KeyboardInterrupt:
        # Out of the middle of a step there is no state to keep; the last checkpoint stays.
        if checkpoint and not pause.inside:
            watch.read()
            checkpoint.save(stage.name, stage.state(), model_rng or rng_state(), due=due, loss=watch.loss)
        raise Interrupted from None


def _step(stage: Stage, batch: Any, watch: Watch) -> Tensor:
    try:
        return stage.train_step(batch)
    except Exception as error:
        watch.read()  # if the step before has diverged, that is the cause
        small = isinstance(error, ValueError) and "more than 1 value per channel" in str(error)
        if not small or inputs_in(batch) != 1:
            raise
        raise DataError(
            f"the batch of step {stage.step} of the {stage.name} holds a single input, from which batch norm "
            "learns nothing. Let the loader leave out its last, smaller batch (drop_last=True)."
        ) from error
