"""Setting: what a run has once, however many trials it takes."""

from __future__ import annotations

import copy
import functools
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .. import streams
from ..budget import CostModel, Metric, parse_latency
from ..carried import seed_carried
from ..criteria import is_criterion, needs
from ..data import loader_on
from ..errors import ConfigError, DataError
from ..graph import NeuronGroup
from ..inputs import Inputs, first_images, map_tensors
from ..learner import Callback, Event, LossFunction, PruneConfig, Speed, TaskLoss, Teacher
from ..learner.loop import steps_per_epoch
from ..macs import MacCount, price
from ..measures import ACCURACY, Accuracy, Evaluation, MeanLoss, Measure, measure_of
from ..metrics import count_params, evaluate
from ..proof.finite import check_numbers
from ..proof.tracing import trace
from ..ranks import current
from ..registry import check_finite
from ..runs.timer import Timer
from ..switching import alike
from ..switching.connections import switched_layers, weight_of
from .checks import check_classes, check_parts, check_runs, warn_of_zeros
from .identity import data_identity, run_identity
from .prospects import RisingLoss, count_of, few_steps, large_batch, near_chance, size_of, too_few_to_judge

logger = logging.getLogger(__name__)
_SAMPLE = 16


@dataclass(frozen=True, slots=True)
class Steps:
    """Training steps of one trial, by stage."""

    probe: int
    search: int
    recover: int

    @property
    def total(self) -> int:
        """Of all stages."""
        return self.probe + self.search + self.recover


class Setting:
    """The model, the data and what is known of them before anything is learned; trials share it.

    Making one checks model and data, and takes little time. What takes more (groups, costs, the dense model's
    figures) is done when it is first asked for, and kept. So a checkpoint of another run is refused before that.

    Args:
        dense: the model to prune, on the device `where`, in eval mode; it stays as it is.
        train: batches to learn from.
        val: validation batches, if there are any.
        test: test batches, if there are any.
        config: as the user asked; trials differ from it in their target alone.
        where: the device to learn on.
        loss_fn: a loss of the user's own.
        metric: what decides and is reported, of the user's own.
        callbacks: observers.
        example_inputs: what the model's forward takes, if that is not one tensor of a batch.

    Attributes:
        train, val, test: the loaders, which make their batches on the device where they can.
        example: two inputs on the device, by which the model is traced and priced.
        sample: a few real inputs, for the proof and the export.
        outputs: of a classifier; None of another model, or one with a loss of its own.
        metric: what decides and is reported: the user's own; else the mean of a loss of the user's own; else the
            accuracy; of data without labels the loss by which the original model teaches.
        per_epoch: training steps in an epoch.
        speed: what all recoveries compute in, where they are to be alike; else each finds its own.

    Raises:
        ConfigError: the model does not run in the memory format that was asked for, or `example_inputs` hold NaN.
        DataError: the data do not fit the model, or the first inputs hold NaN.
        ModelFileError: a weight is not finite.
        UnsupportedModelError: the model does not run.
    """

    def __init__(
        self,
        dense: nn.Module,
        train: Iterable[Any],
        val: Iterable[Any] | None,
        test: Iterable[Any] | None,
        config: PruneConfig,
        where: torch.device,
        *,
        loss_fn: LossFunction | None = None,
        metric: Any = None,
        callbacks: Sequence[Callback] = (),
        example_inputs: Inputs | None = None,
    ) -> None:
        self.dense, self.config, self.where = dense, config, where
        self.loss_fn, self.callbacks, self.ranks = loss_fn, list(callbacks), current()
        self.given = train, val, test
        self.begin()
        self.train, self.val, self.test = (loader_on(loader, where) for loader in self.given)
        check_finite(dense.state_dict(), "the model")
        given = example_inputs is not None
        small: Inputs = example_inputs if given else first_images(train, 2)
        self.example: Inputs = map_tensors(lambda x: x.to(where), small)
        # Inputs that the caller gave are taken as they are.
        self.sample: Inputs = small if given else first_images(train if val is None else val, _SAMPLE)
        looked = map_tensors(lambda x: x.to(where), self.sample)
        for inputs, part in ((self.example, "training"), (looked, "training" if val is None else "validation")):
            name = "example_inputs" if given else f"the first inputs of the {part} data"
            check_numbers(dense, inputs, name, ConfigError if given else DataError)
        self.outputs: int | None = None
        if isinstance(self.example, Tensor):
            check_runs(dense, self.example, config)
            if loss_fn is None:  # which alone would know what else outputs mean
                self.outputs = check_classes(dense, self.example, train)
        parts = {"training": train, "validation": val, "test": test}
        own = measure_of(metric, loss_fn)
        mine = {"own_metric": own is not None, "own_loss": loss_fn is not None}
        labelled = check_parts(dense, parts, self.outputs, where, **mine)
        alike = MeanLoss(lambda model, batch: self.likeness(model, batch))
        self.metric: Measure = own or (Accuracy() if labelled else alike)
        self.callbacks.append(RisingLoss(self.outputs))
        self.per_epoch = steps_per_epoch(train)
        self.speed: Speed | None = None

    def begin(self) -> None:
        """Set all streams of random numbers to their beginning, the program's and those that loaders carry."""
        streams.seed_all(self.config.seed)
        for at, loader in enumerate(loader for loader in self.given if loader is not None):
            seed_carried(loader, self.config.seed, "begin", at)

    def sibling(self, config: PruneConfig, train: Iterable[Any]) -> Setting:
        """The same model with other options or another order of the training data; what was found of it is shared.

        Args:
            config: differs in its seed, and in options that change neither groups nor costs.
            train: the same data as those of this setting.
        """
        other = copy.copy(self)
        other.config, other.given = config, (train, *self.given[1:])
        other.train = loader_on(train, self.where)
        other.callbacks = [*self.callbacks[:-1], RisingLoss(self.outputs)]
        for name in ("loss", "data"):  # what the teacher says is kept by the loader's samples
            other.__dict__.pop(name, None)
        other.begin()
        return other

    def tell(self, stage: str, *, step: int = 0, total: int = 0, **values: Any) -> None:
        """Tell the observers of a stage that is not the loop's."""
        for callback in self.callbacks:
            callback(Event(stage, step, total, values or None))

    def prepare(self, *, searches: bool = True) -> None:
        """Trace and prove the model and measure it, so that what is of no use is found before anything is learned.

        What will make the run worthless is said in warnings.

        Args:
            searches: whether anything is searched for, so that a short search is worth a warning.

        Raises:
            DataError: the data to measure on cannot be used.
            UnsupportedModelError: nothing in the model can be pruned exactly.
        """
        _ = self.groups, self.reference
        for doubt in self.doubts(self.config, searches=searches):
            logger.warning("%s.", doubt)

    def doubts(self, config: PruneConfig, *, measured: bool = True, searches: bool = True) -> list[str]:
        """What will make the run worthless, each as a sentence without its full stop.

        Args:
            config: as the user asked.
            measured: whether the dense model's figures may be asked for, which takes time.
            searches: whether anything is searched for.
        """
        judged = self.val is not None and self.metric.info == ACCURACY
        accuracy = self.reference.accuracy if measured and self.reference is not None else None
        found = [
            few_steps(config, self.steps(config).search, self.per_epoch, size_of(self.train))
            if searches
            else None,
            large_batch(self.train),
            too_few_to_judge(config, count_of(self.val)) if judged else None,
            None if accuracy is None or self.outputs is None else near_chance(accuracy, self.outputs),
        ]
        return [doubt for doubt in found if doubt is not None]

    @functools.cached_property
    def groups(self) -> list[NeuronGroup]:
        """The groups of the model, proved."""
        self.tell("trace")
        config = self.config
        found = trace(
            self.dense, self.example, keep=config.keep, outputs=config.outputs, input_neurons=config.input_neurons
        )
        if config.granularity == "neuron":
            warn_of_zeros(self.dense)
        return found

    @functools.cached_property
    def reference(self) -> Evaluation | None:
        """The dense model on the data that the report's figures are of; None where nothing can be compared."""
        data = self.val if self.test is None else self.test
        if data is None:
            return None
        self.tell("dense")
        return self._evaluate(self.dense, data)

    @functools.cached_property
    def validated(self) -> Evaluation:
        """The dense model on the validation data."""
        if self.test is None and self.reference is not None:
            return self.reference
        return self._evaluate(self.dense, self.val or ())

    @functools.cached_property
    def price(self) -> MacCount:
        """What the dense model costs."""
        return price(self.dense, self.example)

    @functools.cached_property
    def cost(self) -> CostModel:
        """What each of its neurons costs."""
        width, uniform = self.config.width, self.config.uniform
        return CostModel(self.dense, self.groups, self.example, width=width, uniform=uniform)

    @functools.cached_property
    def timer(self) -> Timer:
        """Times compact models beside the dense one, as they will be served."""
        patient = parse_latency(self.config.target) is not None
        return Timer(self.dense, self.sample, self.config.serving, self.price.total, patient=patient)

    @functools.cached_property
    def loss(self) -> TaskLoss:
        """The loss of all trials, with a copy of the dense model as the teacher."""
        return TaskLoss.of(self.config, copy.deepcopy(self.dense).requires_grad_(False), self.loss_fn)

    @functools.cached_property
    def likeness(self) -> TaskLoss:
        """How far a model is from the dense one, which is all that is known without labels."""
        teacher = Teacher(self.dense, limit=0)
        return TaskLoss(teacher, distill=1.0, temperature=self.config.recovery.temperature)

    @functools.cached_property
    def data(self) -> dict[str, Any]:
        """What sets the data apart from others."""
        return data_identity(*self.given, self.loss_fn, self.metric)

    def identity(self, config: PruneConfig) -> dict[str, Any]:
        """What a run with these options depends on, for checkpoints."""
        return run_identity(self.dense, config, self.data, self.example, self.per_epoch)

    def validate(self, model: nn.Module) -> Evaluation:
        """A compact model on the validation data."""
        return self._evaluate(model, self.val or ())

    def measure(self, model: nn.Module) -> Evaluation | None:
        """The compact model on the data that `reference` is of; None where nothing can be compared."""
        data = self.val if self.test is None else self.test
        if data is None:
            return None
        self.tell("test")
        return self._evaluate(model, data)

    def _evaluate(self, model: nn.Module, data: Iterable[Any]) -> Evaluation:
        with streams.kept():
            return evaluate(model, data, metric=self.metric, ranks=self.ranks)

    def least_share(self, metric: Metric = "macs") -> float:
        """The smallest share of the dense cost that can be asked for, for neurons that are all alike."""
        if self.config.granularity == "connection":
            names = switched_layers(self.dense, self.config.keep)
            total = count_params(self.dense)
            weights = sum(weight_of(self.dense, name).numel() for name in names)
            return (total - weights + len(names)) / total
        floor, round_to = self.config.floor, self.config.round_to
        return self.cost.floor_share(metric, alike(self.cost), floor=floor, round_to=round_to)

    def steps(self, config: PruneConfig) -> Steps:
        """Training steps of a trial with these options: the probe's are taken from the recovery."""
        total = max(2, round(config.epochs * self.per_epoch))
        asked = config.search.scores
        if is_criterion(asked):  # there is nothing to search: all steps but those that it looks at recover
            looks = 0 if needs(asked) == "weights" else min(config.search.probe, self.per_epoch, total // 4)
            return Steps(looks, 0, total - looks)
        least = min(config.search.least, total // 10)
        search = min(total, max(1, least, round(config.search.share * total)))
        looks = config.search.probe if config.target is not None and config.search.start == "post-training" else 0
        # At most a quarter of what is left for the recovery, and no batch twice.
        probe = min(looks, self.per_epoch, (total - search) // 4)
        return Steps(probe, search, total - search - probe)
