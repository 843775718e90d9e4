"""What will make a run worthless, said before it has taken any time."""

from __future__ import annotations

import logging
import math
from typing import Any

from ..budget import parse_drop
from ..criteria import is_criterion
from ..learner import Event, PruneConfig

logger = logging.getLogger(__name__)
_NEAR = 0.1  # of the way from chance to everything right
_SOME = 4  # a search with so much less than the least steps is told
_TENTH = 10  # of all steps the search may take for its least, see `Setting.steps`
_FEW = 8  # inputs for one over the drop: then two standard errors are the drop itself, see `too_few_to_judge`
_FIRST = 50  # steps of a stage in which a rate that is too high shows
_RISE = 3.0


def count_of(loader: Any) -> int | None:
    """How many inputs a loader reads in one pass, where it tells."""
    data = getattr(loader, "samples", getattr(loader, "dataset", None))
    try:
        return len(data)  # type: ignore[arg-type]
    except (TypeError, NotImplementedError):
        return None


def size_of(loader: Any) -> int | None:
    """How many inputs a batch is to hold, where the loader tells."""
    size = getattr(loader, "batch_size", None)
    return size if type(size) is int else None


def few_steps(config: PruneConfig, search: int, per_epoch: int, inputs: int | None) -> str | None:
    """A sentence where a search has too few steps to learn in.

    Args:
        config: of the run.
        search: its steps.
        per_epoch: training steps of an epoch.
        inputs: of a batch; None where it is not known.
    """
    least = config.search.least
    if config.target is None or is_criterion(config.search.scores) or search >= least / _SOME:
        return None
    size = "" if inputs is None else f", or a smaller batch size ({inputs} inputs now)"
    return (
        f"the search has {search} step{'s' * (search != 1)}, in which next to nothing is learned about what to "
        f"cut: the start decides. Give {math.ceil(_TENTH * least / per_epoch)} epochs or more "
        f"({config.epochs:g} now){size}"
    )


def large_batch(loader: Any) -> str | None:
    """A sentence where a batch is to be larger than all the data."""
    size, count = size_of(loader), count_of(loader)
    if size is None or not count or size <= count:
        return None
    return (
        f"a batch is to hold {size} inputs, and there are {count} to learn from: every epoch is a single step. "
        f"Give a batch size of {max(1, count // 8)} or so"
    )


def too_few_to_judge(config: PruneConfig, count: int | None) -> str | None:
    """A sentence where the inputs that a `drop` is judged by cannot tell it from none.

    Two models that differ in a share q of the inputs have accuracies whose difference has the variance q / count.
    One that loses d gains something elsewhere: with q = 2 d two standard errors are d at 8 / d inputs.

    Args:
        config: of the run.
        count: of validation inputs; None where it is not known.
    """
    drop = parse_drop(config.target)
    if not drop or not count or count >= _FEW / drop:
        return None
    off = 200 * math.sqrt(2 * drop / count)
    return (
        f"{count} validation inputs cannot judge a drop of {100 * drop:g} points: by chance alone they are off by "
        f"about {off:.1f}. Give at least {math.ceil(_FEW / drop)}, or allow a larger drop"
    )


def near_chance(accuracy: float, classes: int) -> str | None:
    """A sentence where the model that came in knows next to nothing of its data.

    Args:
        accuracy: the dense model's, in [0, 1].
        classes: of the data.
    """
    if classes < 2:
        return None
    chance = 1 / classes
    if accuracy >= min(2 * chance, chance + _NEAR * (1 - chance)):
        return None
    return (
        f"the model that came in is near chance: {accuracy:.1%} right, of {classes} classes. Check the "
        "normalisation (--mean, --std), --image-size and the order of the classes"
    )


class RisingLoss:
    """An observer that says so, once, where the loss has risen far above its beginning in the first steps.

    Args:
        classes: of a classifier, below whose loss by guessing alone nothing counts as high; None of another model.
    """

    def __init__(self, classes: int | None) -> None:
        self.level = math.log(classes) if classes else 0.0
        self.stage, self.first, self.said = "", math.nan, False

    def __call__(self, event: Event) -> None:
        """Look at the loss that a step tells."""
        loss = (event.values or {}).get("loss")
        if self.said or not isinstance(loss, float) or not math.isfinite(loss):
            return
        if event.stage != self.stage:
            self.stage, self.first = event.stage, max(loss, self.level)
        elif event.step <= _FIRST and loss > _RISE * self.first:
            self.said = True
            said = (
                f"the loss is {loss:.3g} after {event.step} steps of the {event.stage}, and was {self.first:.3g}: "
                "the learning rate is probably too high (--lr)"
            )
            logger.warning("%s.", said)
