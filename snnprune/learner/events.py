"""What a run tells its observers. The library itself prints nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Event:
    """One piece of news.

    Attributes:
        stage: `trace`, `dense`, `probe`, `search`, `check`, `recover` or `test`; under a target of time `latency`
            while layers are timed before the search, and `settle` while cuts are at its end; `trial` at the
            beginning and at the end of each trial of a `drop` target; `entrant` at the beginning and at the end of
            each run of a contest.
        step: steps done in this stage.
        total: steps of this stage; 0 when unknown.
        values: `loss`, and `budget` with `cost` in the search; at the end of an epoch that is validated
            `val_metric` (its name), `val_value` and `val_loss`, and where the metric is the accuracy
            `val_accuracy`; of a contest's run its `method` and `seed`, and at its end its row as `ended`; None for
            a stage that only begins.
        mark: about fifty steps of each stage have this; always the same ones, so they make a record.

    Example:
        >>> def tell(event: snnprune.Event) -> None:
        ...     if event.values and "val_value" in event.values:
        ...         print(event.stage, event.step, event.values["val_metric"], event.values["val_value"])
    """

    stage: str
    step: int = 0
    total: int = 0
    values: dict[str, Any] | None = None
    mark: bool = False


Callback = Callable[[Event], None]
