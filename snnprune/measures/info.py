"""What the value of a metric means: its name, which way is better, and how it is written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from .intervals import share_interval

if TYPE_CHECKING:
    from .answers import Answers


@dataclass(frozen=True, slots=True)
class MetricInfo:
    """What is known of a metric besides its value.

    Attributes:
        name: for tables and pages.
        higher_is_better: whether a larger value is a better one.
        percent: whether the value is a fraction, shown in per cent and its changes in points.
    """

    name: str = "accuracy"
    higher_is_better: bool = True
    percent: bool = True

    def lost(self, before: float, after: float) -> float:
        """How much worse a value has become, in the metric's own units; negative where it is better."""
        return before - after if self.higher_is_better else after - before

    def worse(self, value: float, by: float) -> float:
        """The value that is worse by so much."""
        return value - by if self.higher_is_better else value + by

    def text(self, value: float) -> str:
        """A value in words."""
        return f"{value:.2%}" if self.percent else f"{value:.4g}"

    def change(self, before: float, after: float) -> str:
        """A difference in words, with its unit."""
        return f"{self.difference(after - before)}{' points' if self.percent else ''}"

    def difference(self, value: float) -> str:
        """A difference as a bare number with its sign."""
        return f"{100 * value:+.2f}" if self.percent else f"{value:+.4g}"

    @property
    def unit(self) -> str:
        """Of differences, as the head of a column."""
        return "points" if self.percent else "change"

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    @classmethod
    def read(cls, content: Any) -> MetricInfo:
        """What `to_dict` returned, after a check.

        Raises:
            TypeError: it is of another form.
        """
        kinds = {"name": str, "higher_is_better": bool, "percent": bool}
        if not isinstance(content, Mapping) or any(type(content.get(k)) is not kind for k, kind in kinds.items()):
            raise TypeError("what it says of the metric is of another form")
        return cls(**{key: content[key] for key in kinds})


ACCURACY = MetricInfo()
LOSS = MetricInfo("loss", higher_is_better=False, percent=False)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """How good a model is on some data.

    Attributes:
        value: of the metric.
        loss: mean cross-entropy beside the accuracy, or the mean of a `loss_fn`; None beside one's own metric.
        count: inputs that it was measured on.
        metric: what the value means: `name`, `higher_is_better` and `percent`.
        answers: which of this process's inputs were right, where the metric is the accuracy.
    """

    value: float
    loss: float | None
    count: int
    metric: MetricInfo = ACCURACY
    answers: Answers | None = field(default=None, compare=False, repr=False)

    @property
    def accuracy(self) -> float | None:
        """The value where the metric is the accuracy, a fraction in [0, 1]; else None."""
        return self.value if self.metric == ACCURACY and 0 <= self.value <= 1 else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """Where the accuracy on all such inputs lies, at 95 % (`share_interval`); None of other metrics."""
        return None if self.accuracy is None else share_interval(self.accuracy, self.count)

    def to_dict(self) -> dict[str, Any]:
        """Plain values; `accuracy` and its `interval` only where the metric is that."""
        accuracy = {} if self.interval is None else {"accuracy": self.accuracy, "interval": list(self.interval)}
        named = {"metric": self.metric.name, "value": self.value, "higher_is_better": self.metric.higher_is_better}
        return {**named, **accuracy, "loss": self.loss, "count": self.count}

    def validated(self) -> dict[str, Any]:
        """Entries of an epoch's or a trial's figures."""
        accuracy = {} if self.accuracy is None else {"val_accuracy": self.accuracy}
        return {"val_metric": self.metric.name, "val_value": self.value, **accuracy, "val_loss": self.loss}
