"""A metric of the user's own: a function of a model and a loader, or an object that is updated batch by batch."""

from __future__ import annotations

import contextlib
import functools
import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from numbers import Real
from typing import Annotated, Any

import numpy as np
import torch
from torch import Tensor

from .. import streams
from ..errors import ConfigError, DataError, MetricError, SnnPruneError, first_line
from ..fingerprint import digest_of
from ..inputs import call, logits_of, moved
from ..loaders import bounded, refuse_lost_worker
from ..options import Text, checked
from ..ranks import Ranks
from ..resting import evaluating
from ..shown import brief_repr
from .info import Evaluation, MetricInfo
from .passes import Told, count_inputs, module_of, place_of, running, whole

MetricFunction = Callable[[Any, Any], Any]
_Name = Annotated[str, Text("a text of at most 60 characters that can be shown", 60)]
_PARTS = ("update", "compute", "reset")
_WANTED = (
    "A function of (model, loader) that returns a number is needed, or an object with update(outputs, targets), "
    "compute() and reset()"
)
_ASKED = object()


class Measure(ABC):
    """What a model is judged by.

    Attributes:
        info: what its values mean.
    """

    info: MetricInfo

    @abstractmethod
    def measure(
        self,
        model: Callable[..., Any],
        loader: Iterable[Any],
        *,
        device: torch.device | str | None = None,
        on_batch: Told = None,
        ranks: Ranks | None = None,
    ) -> Evaluation:
        """See `evaluate`."""

    def identity(self) -> dict[str, Any] | None:
        """What sets it apart from others, for checkpoints; None where data and loss say that already."""
        return None


class Metric(Measure):
    """A metric of your own, for everything that a run decides by or reports.

    Args:
        function: `function(model, loader)` that returns one number. The model is in evaluation mode, without
            gradients, the loader the data as they were given; batches have to be moved to the model's device. Or
            an object of `torchmetrics` (or one like it) with `update(outputs, targets)`, `compute()` and
            `reset()`: then the model is run on every batch of (inputs, targets).
        name: for tables and pages; by default that of the function, or of the object's class.
        higher_is_better: which way is better; by default the attribute of that name of `function`, else True.
        percent: whether the value is a fraction, to be shown in per cent; by default the attribute of that name of
            `function`, else False.

    Attributes:
        info: `name`, `higher_is_better` and `percent`.

    Raises:
        ConfigError: `function` is neither, or says that it has no better way; or the name is no text.

    Example:
        >>> def mean_error(model, loader):
        ...     wrong = sum((model(x).argmax(1) != y).sum().item() for x, y in loader)
        ...     return wrong / sum(len(y) for _, y in loader)
        >>> error = snnprune.Metric(mean_error, name="error", higher_is_better=False)
        >>> found = snnprune.evaluate(model, test, metric=error)
        >>> found.metric.name, 0 <= found.value <= 1
        ('error', True)
    """

    def __init__(
        self,
        function: Any,
        name: str | None = None,
        *,
        higher_is_better: bool | None = None,
        percent: bool | None = None,
    ) -> None:
        check_metric(function)
        self.function = function
        named = _name_of(function) if name is None else name
        self.info = MetricInfo(
            checked("name", named, _Name),
            checked("higher_is_better", _said(function, higher_is_better, named), bool),
            checked("percent", getattr(function, "percent", False) if percent is None else percent, bool),
        )

    def __call__(self, model: Callable[..., Any], loader: Iterable[Any]) -> float:
        """The value alone; see `measure`."""
        return self.measure(model, loader).value

    def __repr__(self) -> str:
        return f"Metric({self.info.name!r}, higher_is_better={self.info.higher_is_better})"

    def measure(
        self,
        model: Callable[..., Any],
        loader: Iterable[Any],
        *,
        device: torch.device | str | None = None,
        on_batch: Told = None,
        ranks: Ranks | None = None,
    ) -> Evaluation:
        """The metric of a model on a loader; of several processes all compute it of all the data.

        So a function of any kind is right, also where a sampler shares the data out, and where it exchanges
        something among processes itself. All get the number of the first one, so that they decide alike.

        Args:
            model: to measure, a module or a gated model.
            loader: the data.
            device: where an object is updated; by default where the model is.
            on_batch: called after every batch that an object is updated by.
            ranks: the processes that call this together; by default this one is alone.

        Returns:
            The value, what it means, and the number of inputs.

        Raises:
            DataError: there are no data.
            MetricError: the function fails, or returns something else than a finite number.
        """
        module, ranks = module_of(model), ranks or Ranks()
        data = whole(loader, ranks)
        data = list(bounded(data, "the data to evaluate on")) if isinstance(data, Iterator) else data
        with streams.kept():
            count = count_inputs(data)
            if not count:
                raise DataError("the data loader yields no batch, so there is nothing to evaluate on.")
            where = place_of(module, device)
            with evaluating(module), running(model) as network, self._failures():
                if _is_updated(self.function):
                    found = self._updated(network, data, where, on_batch)
                else:
                    found = self.function(network, data)
        (value,) = ranks.same_values(number_of(found, self.info.name))
        return Evaluation(value, None, count, self.info)

    def identity(self) -> dict[str, Any]:
        """Its name, its direction, and its code with what it was made with."""
        better = "higher" if self.info.higher_is_better else "lower"
        if _is_updated(self.function):
            with self._failures():
                own: Any = self.function
                own.reset()  # as after every evaluation: what it has seen is not what it is
        return {"name": self.info.name, "better": better, "code": digest_of(self.function)}

    def _updated(self, model: Callable[..., Any], loader: Iterable[Any], where: Any, on_batch: Told) -> Any:
        """The value of an object that sees batch by batch; it is left as new."""
        own: Any = self.function
        if where is not None and callable(getattr(own, "to", None)):
            own.to(where)
        own.reset()
        with _alone(own):
            try:
                for batch in bounded(loader, "the data to evaluate on"):
                    if not isinstance(batch, (tuple, list)) or len(batch) != 2:
                        raise DataError(
                            f"metric {self.info.name} is updated by outputs and targets, but a batch is no pair "
                            "of (inputs, targets). Give a function of (model, loader) that takes batches apart."
                        )
                    inputs, targets = batch if where is None else moved(batch, where)
                    own.update(logits_of(call(model, inputs))[0], targets)
                    if on_batch:
                        on_batch()
                return own.compute()
            finally:
                own.reset()

    @contextlib.contextmanager
    def _failures(self) -> Iterator[None]:
        """Errors of the user's code, with the metric's name."""
        try:
            yield
        except (SnnPruneError, MemoryError, torch.OutOfMemoryError):
            raise
        except Exception as error:
            refuse_lost_worker(error, None, "the data to evaluate on")
            raise MetricError(
                f"metric {self.info.name} failed ({type(error).__name__}: {first_line(error)}). It is given the "
                "model and the loader, and returns a number."
            ) from error


def measure_of(metric: Any, loss_fn: Any = None) -> Measure | None:
    """What was asked for: a metric, else the mean of a loss of one's own; None where there is neither.

    Raises:
        ConfigError: the metric is none.
    """
    from .losses import MeanLoss  # which is a kind of measure itself

    if metric is not None:
        return metric if isinstance(metric, Measure) else Metric(metric)
    return None if loss_fn is None else MeanLoss(loss_fn)


def check_metric(metric: object) -> None:
    """Refuse what is no metric, before anything is measured.

    Raises:
        ConfigError: it can neither be called with a model and a loader nor be updated.
    """
    shown = getattr(metric, "__name__", type(metric).__name__)
    if isinstance(metric, type):
        raise ConfigError(f"metric is the class {shown}. Make an instance of it: {shown}(...).")
    if isinstance(metric, Measure):
        raise ConfigError(f"metric {metric.info.name} is a snnprune.Metric already; hand it over as it is.")
    if _is_updated(metric):
        return
    if not callable(metric):
        raise ConfigError(f"metric is {brief_repr(metric, 60)}. {_WANTED}.")
    try:
        inspect.signature(metric).bind(None, None)
    except ValueError:  # code in C tells nothing about itself
        return
    except TypeError as error:
        raise ConfigError(
            f"metric {shown} cannot be called with two arguments ({first_line(error)}). {_WANTED}."
        ) from error


def number_of(value: Any, name: str) -> float:
    """A finite number, of whatever kind it was.

    Raises:
        MetricError: it is something else; the message names the metric.
    """
    found = value
    if isinstance(found, (Tensor, np.ndarray, np.generic)):
        if math.prod(found.shape) != 1:
            raise MetricError(
                f"metric {name} returned values of shape {tuple(found.shape)}; one number is needed, such as "
                "their mean."
            )
        found = found.item()
    if isinstance(found, bool) or not isinstance(found, Real):
        raise MetricError(
            f"metric {name} returned {type(value).__name__}; a number is needed. Of several figures pick the one "
            "that is to decide."
        )
    if not math.isfinite(found):
        raise MetricError(
            f"metric {name} is {float(found)}, which nothing can be decided by. Look at the data, and at what it "
            "divides by; a finite number is needed for every model, also for one that is right nowhere."
        )
    return float(found)


def _is_updated(metric: object) -> bool:
    return not isinstance(metric, type) and all(callable(getattr(metric, part, None)) for part in _PARTS)


def _said(function: Any, given: bool | None, name: str) -> Any:
    """Which way is better: as given, else as the function says."""
    if given is not None:
        return given
    said = getattr(function, "higher_is_better", _ASKED)
    if said is None:
        raise ConfigError(
            f"metric {name} does not say which way is better (its higher_is_better is None). Give "
            "snnprune.Metric(..., higher_is_better=True), or False."
        )
    return True if said is _ASKED else said


def _name_of(function: Any) -> Any:
    inner = function.func if isinstance(function, functools.partial) else function
    name = getattr(inner, "__name__", None)
    name = name if isinstance(name, str) else type(inner).__name__
    return "metric" if name == "<lambda>" else name[:60]


@contextlib.contextmanager
def _alone(metric: Any) -> Iterator[None]:
    """`torchmetrics` would add up what all processes have seen, and each has seen all."""
    before = getattr(metric, "sync_on_compute", None)
    if before is True:
        metric.sync_on_compute = False
    try:
        yield
    finally:
        if before is True:
            metric.sync_on_compute = True
