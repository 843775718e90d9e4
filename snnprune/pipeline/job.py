"""One run: search, prove, compact, recover, measure."""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .. import streams
from ..budget import CostModel, Metric, rounding_step
from ..data import info_of, loader_on
from ..errors import first_line
from ..inputs import Inputs, first_images, map_tensors
from ..learner import (
    Callback,
    Checkpoint,
    Event,
    LossFunction,
    PruneConfig,
    Speed,
    TaskLoss,
    reading,
    recover,
    search,
)
from ..learner.loop import first_batches, steps_per_epoch
from ..macs import price
from ..metrics import Evaluation, count_nonzero, count_params, evaluate
from ..proof.tracing import trace
from ..ranks import current
from ..registry import check_finite, recognise
from ..runs.pictures import feature_maps
from ..runs.report import ModelFigures, Report, device_name
from ..runs.result import Result
from ..runs.sparse import stored_bytes
from ..surgery import fold_, remove_
from ..switching import GatedModel
from ..switching.connections import ConnectionModel, switched_layers, weight_of
from ..switching.proving import prove_compaction, prove_connections
from .attaching import alike, gate_neurons, switch_connections
from .checks import check_classes, check_parts, check_runs, warn_of_zeros
from .delivered import check_delivered, check_predicted
from .identity import environment, run_identity

logger = logging.getLogger(__name__)
_SAMPLE = 16


class Job:
    """One run's parts, in the order in which they come to be."""

    def __init__(
        self,
        dense: nn.Module,
        train: Iterable[Any],
        val: Iterable[Any] | None,
        test: Iterable[Any] | None,
        config: PruneConfig,
        loss_fn: LossFunction | None,
        where: torch.device,
        callbacks: list[Callback],
        example_inputs: Inputs | None,
        data: Callable[[], dict[str, Any]],
    ) -> None:
        self.dense, self.config, self.data = dense, config, data
        self.train, self.val, self.test = (loader_on(loader, where) for loader in (train, val, test))
        self.where, self.ranks = where, current()
        self.history: list[dict[str, Any]] = []
        self.curve: list[dict[str, Any]] = []
        self.callbacks: list[Callback] = [self._remember, *callbacks]  # one of theirs may press Ctrl-C
        check_finite(dense.state_dict(), "the model")
        given = example_inputs is not None
        small: Inputs = example_inputs if given else first_images(train, 2)
        self.example: Inputs = map_tensors(lambda x: x.to(where), small)
        # Real inputs for the proof and the export; inputs given by the caller are taken as they are.
        self.sample: Inputs = small if given else first_images(val if val is not None else train, _SAMPLE)
        outputs: int | None = None
        if isinstance(self.example, Tensor):
            check_runs(dense, self.example, config)
            if loss_fn is None:  # which alone would know what else outputs mean
                outputs = check_classes(dense, self.example, train)
        parts = {"training": train, "validation": val, "test": test}
        self.has_labels = loss_fn is None and check_parts(dense, parts, outputs, where)
        self.tell("trace")
        self.groups = trace(dense, self.example, keep=config.keep, input_neurons=config.input_neurons)
        if config.granularity == "neuron":
            warn_of_zeros(dense)
        self.per_epoch = steps_per_epoch(train)
        self.total = max(2, round(config.epochs * self.per_epoch))
        self.search_steps = min(self.total, max(1, round(config.search * self.total)))
        looks = config.probe if config.target is not None and config.start == "post-training" else 0
        # At most a quarter of what is left for the recovery, and no batch twice.
        self.probe_steps = min(looks, self.per_epoch, (self.total - self.search_steps) // 4)
        self.loss = TaskLoss.of(config, copy.deepcopy(dense).requires_grad_(False), loss_fn)
        self.speed: Speed | None = None
        if config.compile is True:  # what other runs compiled counts against the limit of a model's class
            torch.compiler.reset()
        self.sparse: list[str] = []
        self.scales: dict[str, Tensor] = {}
        self.reference: Evaluation | None = None  # the dense model on the data of the report

    def tell(self, stage: str, *, step: int = 0, total: int = 0, **values: Any) -> None:
        """Tell the observers of a stage that is not the loop's."""
        for callback in self.callbacks:
            callback(Event(stage, step, total, values or None))

    def least_share(self, metric: Metric = "macs") -> float:
        """The smallest share of the dense cost that can be asked for, for neurons that are all alike."""
        if self.config.granularity == "connection":
            names = switched_layers(self.dense, self.config.keep)
            total = count_params(self.dense)
            weights = sum(weight_of(self.dense, name).numel() for name in names)
            return (total - weights + len(names)) / total
        cost = CostModel(self.dense, self.groups, self.example)
        return cost.floor_share(metric, alike(cost), floor=self.config.floor, round_to=self.config.round_to)

    def _remember(self, event: Event) -> None:
        if event.values and {"val_accuracy", "counts"} & set(event.values):
            self.history.append({"stage": event.stage, "step": event.step, **event.values})
        elif event.mark and event.values:
            known = {k: event.values[k] for k in ("loss", "budget", "metric") if k in event.values}
            self.curve.append({"stage": event.stage, "step": event.step, **known})

    def identity(self) -> dict[str, Any]:
        """What the run depends on, for checkpoints."""
        return run_identity(self.dense, self.config, self.data(), self.example, self.per_epoch)

    def checkpoint(self, place: Path | None) -> Checkpoint | None:
        """Where this run's state is kept; None without a folder."""
        if place is None:
            return None
        return Checkpoint(place, self.identity(), writes=self.ranks.first, environment=environment(self.where))

    def attach(self, model: nn.Module) -> GatedModel | ConnectionModel:
        """Gates and a fresh scorer on a model; the target is checked before anything is computed."""
        look = self._look if self.probe_steps else None
        if self.config.granularity == "connection":
            return switch_connections(model, self.groups, self.config, self.loss, look)
        return gate_neurons(model, self.groups, self.example, self.config, self.loss, look)

    def _look(self) -> Iterable[Any]:
        """The first batches, which tell how much the loss depends on what is switched."""
        self.tell("probe")
        return first_batches(self.train, self.config.seed, "probe", self.probe_steps)

    def run(self, store: Checkpoint | None, saved: dict[str, Any] | None) -> nn.Module:
        """Search, prove, compact, recover."""
        if saved is not None and saved["stage"] == "recover":
            with reading():
                state = saved["state"]
                scales = {n: s.to(self.where) for n, s in state["scales"].items()}
                self.scales = state["scales"]
                compact = remove_(fold_(copy.deepcopy(self.dense), self.groups, scales), self.groups, scales)
                self.counts, self.exactness = state["counts"], state["exactness"]
                self.kept, self.history, self.curve = state["kept"], state["history"], state["curve"]
                self.searched, self.sparse = state["searched"], state["sparse"]
        else:
            compact, scales = self._search(store, saved)
            check_delivered(self.config.target, self.dense, compact, self.example, sparse=self.sparse)
            self.scales = {n: s.cpu() for n, s in scales.items()}
            saved = None
        self.ranks.same_([*compact.state_dict().values(), *self.scales.values()])
        steps = self.total - self.probe_steps - self.search_steps
        if steps > 0:
            extra = {
                "scales": self.scales,
                "counts": self.counts,
                "exactness": self.exactness,
                "kept": self.kept,
                "history": self.history,
                "curve": self.curve,
                "searched": self.searched,
                "sparse": self.sparse,
            }
            self.speed = recover(
                compact,
                self.train,
                self.loss,
                self.config,
                total=steps,
                val=self.val if self.has_labels else None,
                callbacks=self.callbacks,
                checkpoint=store,
                resume=saved,
                extra=extra,
                sparse=self.sparse,
            )
        self.ranks.check_equal(compact.state_dict(), "weights")
        return compact

    def _search(
        self, store: Checkpoint | None, saved: dict[str, Any] | None
    ) -> tuple[nn.Module, dict[str, Tensor]]:
        if saved is not None:
            with reading():
                self.history[:] = saved["state"]["history"]
                self.curve[:] = saved["state"]["curve"]
        with self.attach(copy.deepcopy(self.dense)) as gated:
            self.searched = search(
                gated,
                self.train,
                self.loss,
                self.config,
                total=self.search_steps,
                per_epoch=self.per_epoch,
                val=self.val if self.has_labels else None,
                callbacks=self.callbacks,
                checkpoint=store,
                resume=saved,
                extra={"history": self.history, "curve": self.curve},
            )
            self.ranks.check_equal(gated.model.state_dict(), "weights after the search")
            self.tell("check")
            inputs = map_tensors(lambda x: x.to(self.where), self.sample)
            if isinstance(gated, ConnectionModel):
                self.exactness = prove_connections(gated, inputs)
                self.sparse = gated.switched_off()
            else:
                self.exactness = prove_compaction(gated, inputs)
            self.counts = [asdict(count) for count in gated.counts()]
            scales = gated.scales
            self.kept = {n: (s > 0).nonzero().flatten().tolist() for n, s in scales.items()}
            compact = gated.compact()
            if isinstance(gated, GatedModel):
                check_predicted(gated, self.dense, compact, self.example)
            return compact, scales

    def evaluate(self, model: nn.Module, stage: str = "test") -> Evaluation | None:
        """A model on the test part, or without one on the validation part; None where there is nothing to compare.

        The dense model is measured before anything is learned, so that data of no use are found in time.

        Raises:
            DataError: the data cannot be used.
        """
        data = self.val if self.test is None else self.test
        if data is None or not self.has_labels:
            return None
        self.tell(stage)
        with streams.kept():
            return evaluate(model, data, ranks=self.ranks)

    def finish(self, compact: nn.Module, began: float, data_name: str | None) -> Result:
        """Measure the compact model once, on what the dense one was measured on, and put the result together."""
        check_finite(compact.state_dict(), "the compact model")
        compact.eval()
        check_delivered(self.config.target, self.dense, compact, self.example, sparse=self.sparse)
        found: list[ModelFigures] = []
        unpriced: tuple[str, ...] = ()
        for model, result in ((self.dense, self.reference), (compact, self.evaluate(compact))):
            counted = price(model, self.example)
            unpriced = unpriced or counted.unpriced
            found.append(
                ModelFigures(
                    result.accuracy if result else None,
                    result.loss if result else None,
                    counted.total,
                    count_params(model),
                    count_nonzero(model) if self.sparse else None,
                )
            )
        info = info_of(self.train)
        report = Report(
            found[0],
            found[1],
            groups=self.counts,
            exactness={**self.exactness, "onnx": None},
            target=self.config.target,
            seed=self.config.seed,
            data=data_name or (info.name if info else "given loaders"),
            split="val" if self.test is None else "test",
            seconds=round(time.monotonic() - began, 1),
            device=device_name(self.where),
            speed=None if self.speed is None else self.speed.to_dict(),
            config=self.config.to_dict(),
            kept_whole=[{"id": g.id, "reason": str(g.reason)} for g in self.groups if not g.prunable],
            history=self.history,
            curve=self.curve,
            odd_widths=self._odd_widths(),
            unpriced=list(unpriced),
            stored={"dense": stored_bytes(self.dense), "compact": stored_bytes(compact, self.sparse)},
            steps={
                "probe": self.probe_steps,
                "search": self.searched,
                "recover": self.total - self.probe_steps - self.search_steps,
            },
        )
        details: dict[str, Any] = {
            "input_shape": list(self.sample.shape[1:]) if isinstance(self.sample, Tensor) else None,
            "kept": self.kept,
            "normalization": {"mean": list(info.mean), "std": list(info.std)} if info else None,
            "classes": list(info.classes) if info else None,
            "sparse": self.sparse,
        }
        known = recognise(self.dense)
        if known is not None:  # so that the run opens again without being told
            details["factory"] = {"arch": known[0], "kwargs": known[1]}
        return Result(compact, report, self.sample, details, self.scales, self._pictures())

    def _odd_widths(self) -> dict[str, int]:
        """Groups in which rounding gave way to the target."""
        config = self.config
        if config.target is None or config.granularity == "connection":
            return {}
        kept = {c["id"]: c["kept"] for c in self.counts}
        cut = [g for g in self.groups if kept.get(g.id, g.size) < g.size]
        return {g.id: kept[g.id] for g in cut if kept[g.id] % rounding_step(g, config.round_to)}

    def _pictures(self) -> dict[str, Tensor]:
        try:
            return feature_maps(self.dense, self.groups, self.scales, self.sample)
        except Exception as error:  # what is only looked at must not cost what was learned
            logger.warning("there are no feature maps to look at (%s)", first_line(error))
            return {}
