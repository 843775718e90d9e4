"""Switching of neurons: a model whose groups are scaled through hooks on the layers that read them."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from ..budget import Budget, CostModel, Metric
from ..errors import AttachError, ConfigError
from ..graph import NeuronGroup
from ..inputs import Inputs, device_of, is_compiled
from ..layers import attention
from ..options import Count, checked
from ..plain import plain
from ..surgery import check_scales, column_maps, fold_, remove_
from .base import Switched
from .blocks import Blocks, Eager
from .choice import Choice
from .columns import Columns, Work
from .current import Scales
from .encoding import Scorer
from .fixed import FixedScorer
from .hooks import Hooks, gated_weights, scaled_weight
from .proving import prove_neurons
from .rule import GroupCounts, count_groups
from .segments import Segments
from .stacks import Stacks
from .transferring import Transfer


class GatedModel(Switched):
    """A user's model with gates attached; made by `snnprune.attach`.

    Calling it runs the model. Scales come from a scorer (switcher, offsets) or are set by hand. In a `with` block
    the gates are detached at the end, also after an exception.

    Args:
        model: the network; only hooks are added to it.
        groups: its groups, as `trace` returns them.
        cost: its cost model, for budgets.
        scorer: gives values per neuron; None for scales set by hand.
        floor: least kept share of every group under a budget.
        round_to: keep multiples of this many channels under a budget.
        outputs: paths of the outputs that matter; none for all.

    Raises:
        AttachError: the model carries gates already.
        ConfigError: `floor` or `round_to` makes no sense.
    """

    def __init__(
        self,
        model: nn.Module,
        groups: Sequence[NeuronGroup],
        *,
        cost: CostModel,
        scorer: Scorer | FixedScorer | None = None,
        floor: float = 0.1,
        round_to: int = 1,
        outputs: Sequence[str] = (),
    ) -> None:
        self.outputs = tuple(outputs)
        self.model, self.cost, where = plain(model, "attach()"), cost, device_of(model)
        sizes = {group.id: group.size for group in groups if group.prunable}
        segments = Segments(sizes, where) if scorer is None else scorer.segments
        super().__init__(model, groups, scorer=scorer, segments=segments, floor=floor)
        self.round_to = checked("round_to", round_to, Count)
        maps = column_maps(model, groups)
        self._stacks = Stacks(model, gated_weights(model, maps).values()) if scorer is None else scorer.stacks
        self._columns = Columns(model, maps, segments, self._stacks, where)
        lifts = None if scorer is None else scorer.lifts
        self.choice = Choice(cost, segments, lifts, self.doubts, floor=self.floor, round_to=self.round_to)
        self._named = list(sizes)  # groups that have scales
        self._work: Work | None = None  # what layers multiply with; None where that is to be made
        self._read: tuple[bool, list[Tensor]] | None = None  # whether with a graph, and the weights
        self._made_of: Scales | None = None  # the scales that it was made of
        self._work_at = 0  # steps of optimisers when it was made
        self._fresh = False  # whether it was made in the block that is open
        if scorer is None:
            count = segments.total
            ones = torch.ones(count, device=where)
            self._current.fix(Scales(ones, ones > 0))
        eager = Eager(is_compiled(model))
        self.blocks = Blocks(eager.begin, eager.end, calls=not eager.needed)
        heads = {m.module: model.get_submodule(m.module) for g in groups for m in g.heads}
        self._opened = {name: module for name, module in heads.items() if attention.open_([module])}
        self._encoders = attention.unnest_(model)
        self._attached = True
        self._cuts: WeakKeyDictionary[nn.Module, dict[str, Tensor]] = WeakKeyDictionary()  # scales of each
        self._hooks = Hooks(self, model, maps)
        self._hooks.register()

    # -- the model with its gates ----------------------------------------------------------------

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the model with its gates."""
        with self.running() as model:
            return model(*args, **kwargs)

    @contextlib.contextmanager
    def running(self) -> Iterator[nn.Module]:
        """The model itself, for code that calls parts or methods of it, with its gates at work.

        Scales are computed whenever the model's own forward begins, and otherwise once, before the first layer
        that needs them; so use a `with` block per step, and call `backward` once for what was computed from parts
        of the model. Parts under reentrant checkpointing have to run through the model's own forward.

        Raises:
            AttachError: the gates are detached, or another thread is inside such a block.
        """
        if not self._attached:
            raise AttachError("the gates are detached; call the model itself, or attach() again.")
        block = self.blocks.enter()
        self._fresh = False
        try:
            yield self.model
        finally:  # also after Ctrl-C, which hooks do not hear of
            self._fresh = False  # the graph of these scales may be spent
            self.blocks.leave(block)

    @contextlib.contextmanager
    def unhooked(self) -> Iterator[nn.Module]:
        """The plain model for the length of a `with` block.

        Raises:
            AttachError: another thread is inside the gated model.
        """
        block = self.blocks.enter()
        self._hooks.remove()
        try:
            yield self.model
        finally:
            if self._attached:
                self._hooks.register()
            self.blocks.leave(block)

    def detach(self) -> nn.Module:
        """Take all gates off, put every `requires_grad` back, and return the model; safe to call twice."""
        self._hooks.remove()
        self.blocks.close()
        attention.close_(self._opened.values())
        for encoder in self._encoders:
            encoder.use_nested_tensor = True
        self._attached, self._work = False, None
        self._changes.close()
        self.learners.put_back()
        return self.model

    # -- what the hooks ask for ------------------------------------------------------------------

    def refresh(self) -> None:
        """Make ready what layers multiply with in the pass that begins.

        A model's own forward calls this; a training loop need not.

        Raises:
            AttachError: another thread is inside the gated model.
        """
        grad = torch.is_grad_enabled()
        self.blocks.admit()
        known = self._current.known
        if grad or self._work is None or self._work.graph or known is None or known is not self._made_of:
            self._work = None  # its memory first
            scales = self._at_work(grad=grad)
            read = self._read[1] if self._read is not None and self._read[0] == grad else None
            with self._exact(grad=grad):
                self._work = Work(self._columns, scales, self.model, self._stacks, read)
            self._made_of = self._current.last
        else:  # weights may have changed under the same scales, also in ways of which PyTorch keeps no count
            self._work.forget_weights()
        self._read, self._fresh, self._work_at = None, True, self._changes.steps

    def is_due(self) -> bool:
        """Whether a layer that is called now, perhaps not through the model's own forward, needs other scales."""
        if self._work is None:
            return True
        return bool(self.blocks) and (not self._fresh or (torch.is_grad_enabled() and not self._work.graph))

    @property
    def factors(self) -> Mapping[str, Tensor]:
        """Layer -> the scales of its columns, as the last pass has used them."""
        return {} if self._work is None else self._work.factors

    def weight(self, name: str, layer: nn.Module) -> Tensor:
        """A layer's weight with its columns scaled.

        Args:
            name: of the layer.
            layer: the layer itself.
        """
        if self._work is None or not self.blocks or self._work_at != self._changes.steps:  # it may have changed
            return scaled_weight(layer, self.factors[name])
        return self._work.weight(name, layer)

    # -- scales ----------------------------------------------------------------------------------

    def set_scales(self, scales: Mapping[str, Tensor]) -> None:
        """Set fixed scales by hand: tests, rivals, own criteria. The scorer is ignored from now on.

        Args:
            scales: group id -> (size,) finite numbers >= 0, not all 0; neurons of scale 0 are off. Groups that
                are not named are not scaled.

        Raises:
            ConfigError: a scale of the wrong group, shape or sign.
            CollapsedLayerError: all scales of a group are 0.
        """
        check_scales(self.groups, scales)
        where = device_of(self.model)
        ones = {n: torch.ones(s) for n, s in zip(self.segments.names, self.segments.sizes, strict=True)}
        given = {n: s.detach().to(where) for n, s in scales.items()}
        flat = self.segments.join({**{n: one.to(where) for n, one in ones.items()}, **given})
        self.scorer = None
        self._named = [name for name in self.segments.names if name in given]
        self._current.fix(Scales(flat, flat > 0))
        self._renew()

    @property
    def scales(self) -> dict[str, Tensor]:
        """Scales of all groups as they are now, detached; a neuron that is off has exactly 0."""
        found = self.segments.split(self._known().values)
        return {name: found[name] for name in self._named}

    def counts(self) -> list[GroupCounts]:
        """Kept, weakened and strengthened neurons per group."""
        return count_groups(self.groups, self.scales)

    def _values(self) -> Tensor:
        assert self.scorer is not None
        self._read = torch.is_grad_enabled(), self._stacks(self.model)
        return self.scorer(self.model, self._read[1])

    def _renew(self) -> None:
        self._work = self._read = None

    def _check_budget(self, wanted: Budget) -> None:
        """Every metric can be met that something is known of."""
        self.cost.check_known(wanted.metric)

    def _select(self, values: Tensor) -> Tensor:
        assert self.budget is not None
        return self.choice.under(self.budget, values)

    def _kept_alone(self, values: Tensor) -> Tensor:
        return self.choice.alone(values)

    def predicted(self) -> dict[Metric, tuple[float, float]]:
        """Metric -> cost of the compact model and of the dense one, by the cost model; time if it is known."""
        kept = {name: (scale > 0).cpu().numpy() for name, scale in self.scales.items()}
        return {metric: (self.cost.cost(metric, kept), dense) for metric, dense in self.cost.dense.items()}

    # -- results ---------------------------------------------------------------------------------

    @torch.inference_mode(False)  # what is copied inside could never learn
    def plain_copy(self) -> nn.Module:
        """A copy of the user's own classes without gates, with the caller's `requires_grad` flags."""
        with self.unhooked():
            clone = copy.deepcopy(self.model)
        attention.close_(clone.get_submodule(name) for name in self._opened)
        return self.learners.put_on(clone)

    @torch.inference_mode(False)
    def fold(self) -> nn.Module:
        """A copy of the full size with the scales folded into the weights."""
        return fold_(self.plain_copy(), self.groups, self.scales)

    @torch.inference_mode(False)
    def compact(self) -> nn.Module:
        """A smaller model that computes what this one computes: scales folded, zeros cut out.

        It is of the user's own classes, without hooks; an FC layer that lost single inputs is a
        `snnprune.IndexedLinear`. The gated model stays as it is.

        Returns:
            The model in the mode (training or evaluation) and on the device of the gated one.

        Raises:
            CollapsedLayerError: a layer would be left empty.
        """
        small = remove_(self.fold(), self.groups, scales := self.scales)
        self._cuts[small] = scales
        return small

    @torch.inference_mode(False)
    def transfer(self, what: Any, small: nn.Module, *, powers: Mapping[str, int] | None = None) -> Any:
        """Carry an optimiser or an average of the weights over the cut, so that learning goes on with `small`.

        A folded weight is s times the one before, with the scale s of its input, and its gradient 1 / s times. So
        averages of weights are multiplied by s, of gradients (momentum) by 1 / s, of their squares by 1 / s²,
        as the compact model would have gathered them had scales stood still (weight decay inside a momentum is
        scaled along). A step after the cut is the gated model's step where s is 1.

        Args:
            what: an optimiser of the network's parameters, changed in place; or a module, which stays as it is:
                an `AveragedModel`, or a copy of the network with averaged weights.
            small: what `compact()` of this gated model returned.
            powers: of s, by names of states of other optimisers than PyTorch's.

        Returns:
            The optimiser, or a compact copy of the average.

        Raises:
            ConfigError: `small` was not made here, or `what` is of another network or has an unknown state.
        """
        if not isinstance(small, nn.Module) or (scales := self._cuts.get(small)) is None:
            raise ConfigError("transfer(): small is no model that compact() of this gated model returned.")
        cut = Transfer(self.model, self.plain_copy, self.groups, scales)
        return cut(what, small, dropped=self.scorer_parameters(), powers=powers or {})

    def prove(self, sample: Inputs) -> dict[str, float]:
        """Gated = folded = removed, in float64.

        Args:
            sample: real inputs, as the model's forward takes them.

        Returns:
            Relative differences: `fold` (gated against folded) and `remove` (gated against removed).

        Raises:
            ExactnessError: they disagree by more than 1e-10 and more than 10 x the model's noise floor.
        """
        return prove_neurons(self, sample)
