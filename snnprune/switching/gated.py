"""Gates: a model whose neurons are scaled through forward pre-hooks on the layers that read them."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..budget import Budget, CostModel
from ..budget.target import parse_target
from ..errors import AttachError
from ..graph import NeuronGroup
from ..inputs import is_compiled
from ..layers import attention
from ..options import Count, Finite, Share, checked
from ..plain import plain
from ..ranks import current
from ..surgery import check_scales, column_maps, fold_, remove_
from .attached import Attached
from .blocks import Blocks, Eager
from .encoding import Scorer
from .hooks import Hooks
from .learners import Gradient, HeldState, Learners, Phase
from .rule import GroupCounts, count_groups, exact_zeros, keep_masks, to_scales


class GatedModel(Attached):
    """A user's model with gates attached; made by `snnprune.attach`.

    Calling it runs the model. Scales come from a scorer (switcher, offsets) or are set by hand. In a
    `with` block the gates are detached at the end, also after an exception.

    Args:
        model: the network; only hooks are added to it.
        groups: its groups, as `trace` returns them.
        cost: its cost model, for budgets.
        scorer: gives values per neuron; None for scales set by hand.
        floor: least kept share of every group under a budget.
        round_to: keep multiples of this many channels under a budget.

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
        scorer: Scorer | None = None,
        floor: float = 0.1,
        round_to: int = 1,
    ) -> None:
        self.model, self.groups, self.cost, self.scorer = plain(model, "attach()"), list(groups), cost, scorer
        self.floor, self.round_to = checked("floor", floor, Share), checked("round_to", round_to, Count)
        self.budget: Budget | None = None
        self.learners = Learners(model)
        self._maps = column_maps(model, groups)
        self._factors: dict[str, Tensor] = {}
        self._scales: dict[str, Tensor] = {}
        self._masks: dict[str, Tensor] = {}
        self._stamp: object = None
        self._watched: list[nn.Parameter] | None = None  # whose change makes scales stale
        self._dirty = scorer is not None  # phase or budget changed since the scales were computed
        eager = Eager(is_compiled(model))
        self.blocks = Blocks(eager.begin, eager.end, calls=not eager.needed)
        self._computed: bool | None = None  # since `running` began: None before, then whether with gradients
        heads = {m.module: model.get_submodule(m.module) for g in groups for m in g.heads}
        self._opened = {name: module for name, module in heads.items() if attention.open_([module])}
        self._encoders = attention.unnest_(model)
        self._attached = True
        self._hooks = Hooks(self, model, self._maps)
        self._hooks.register()

    # -- hooks ---------------------------------------------------------------------------------

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
        """Take all gates off and put every `requires_grad` back; weights are not touched.

        Safe to call twice. Returns the model.
        """
        self._hooks.remove()
        self.blocks.close()
        attention.close_(self._opened.values())
        for encoder in self._encoders:
            encoder.use_nested_tensor = True
        self._attached = False
        self._factors = {}
        self.learners.put_back()
        return self.model

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
        self._computed = None
        try:
            yield self.model
        finally:  # also after Ctrl-C, which hooks do not hear of
            self._computed = None  # the graph of these scales may be spent
            self.blocks.leave(block)

    # -- phases and parameters -----------------------------------------------------------------

    def set_phase(self, phase: Phase, *, gradient: Gradient = "through") -> None:
        """Choose who learns; the other one is frozen.

        Args:
            phase: `switcher`, `network`, or `both`.
            gradient: in the network's phase, whether the gradient also flows through the switcher's
                input (`through`: arXiv 2110.05954, eqs. 5-6) or the scales are held as they are
                (`held`), which costs nothing.

        Raises:
            ConfigError: no such phase or gradient.
        """
        if self.learners.changes(phase, gradient):
            self.forget()
            self.learners.set(phase, gradient, self.scorer_parameters())

    def hold(self, state: HeldState | None = None) -> None:
        """Let the network learn alone under the scales of the last pass, until `set_phase` is called.

        The scorer does not run at all, not even once as after `set_phase("network", gradient="held")`.

        Args:
            state: what `held_state` returned, to go on from; without it the scales as they are.
        """
        if state is not None:
            self._scales, self._masks = dict(state["scales"]), dict(state["masks"])
        elif not self._scales:
            with torch.no_grad():
                self.refresh()
        self._scales = {name: scale.detach() for name, scale in self._scales.items()}
        self.learners.set("network", "held", self.scorer_parameters())
        self._set_factors()
        self._stamp, self._dirty = self._version(), False

    def held_state(self) -> HeldState | None:
        """Scales and masks that a checkpoint has to keep, because weights have moved on since; else None."""
        held = self.learners.held and self._stamp is not None
        return {"scales": self._scales, "masks": self._masks} if held else None

    # -- scales --------------------------------------------------------------------------------

    def set_budget(self, target: Mapping[str, float] | None, *, progress: float = 1.0) -> None:
        """Choose the kept share of the cost; the threshold follows at once and at every step.

        Args:
            target: `{"macs": share}` or `{"params": share}` with a share in (0, 1], or None for the
                papers' free mode (kept where the switcher's value is positive).
            progress: in [0, 1]: how far the way from the dense cost (0) to the target (1) is gone.

        Raises:
            TargetError: not a share, or below what the floors allow.
        """
        wanted = parse_target(target)
        budget = None
        if wanted is not None:
            share = 1.0 - (1.0 - wanted.share) * min(1.0, max(0.0, checked("progress", progress, Finite)))
            budget = Budget(wanted.metric, share)
        if budget != self.budget:
            self.budget = budget
            self.forget()

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
        self.scorer = self._watched = None
        like = next(iter(self.model.parameters()))
        self._scales = {n: s.detach().to(like.device) for n, s in scales.items()}
        self._masks = {n: s > 0 for n, s in self._scales.items()}
        self._stamp = None
        self.refresh()

    @property
    def scales(self) -> dict[str, Tensor]:
        """Scales of all groups as they are now, detached; a neuron that is off has exactly 0."""
        with torch.no_grad():
            self.refresh()
        return exact_zeros(self._scales, self._masks)

    def counts(self) -> list[GroupCounts]:
        """Kept, weakened and strengthened neurons per group."""
        return count_groups(self.groups, self.scales)

    def refresh(self) -> None:
        """Compute the scales for the next forward pass, unless nothing has changed since the last.

        A model's own forward calls this; a training loop need not.

        Raises:
            AttachError: another thread is inside the gated model.
        """
        self.blocks.admit()
        grad = torch.is_grad_enabled()  # leaving inference mode would switch gradients on
        self._computed = grad
        device = next(iter(self.model.parameters())).device.type
        with torch.inference_mode(False), torch.set_grad_enabled(grad), torch.autocast(device, enabled=False):
            self._refresh()  # outside inference mode: the scales may be reused in a training step

    def is_due(self) -> bool:
        """Whether a layer that is called now, perhaps not through the model's own forward, needs other scales."""
        if self._dirty:
            return True
        return bool(self.blocks) and (self._computed is None or (torch.is_grad_enabled() and not self._computed))

    def _refresh(self) -> None:
        self._dirty = False
        differentiable = torch.is_grad_enabled() and self.scorer is not None
        held = self.learners.held
        stamp = self._version()
        if held and self._scales and self._stamp is not None:
            return
        if stamp == self._stamp and not (differentiable and not held):
            return
        if self.scorer is not None:
            with torch.set_grad_enabled(differentiable and not held):
                values = self.scorer.segments.split(self.scorer(self.model))
                self._masks = keep_masks(
                    values,
                    self.cost,
                    self.budget,
                    levels=dict(zip(self.scorer.ids, self.scorer.shifts.tolist(), strict=True)),
                    floor=self.floor,
                    round_to=self.round_to,
                )
                current().same_(self._masks.values())  # values differ in their last bits between GPUs
                self._scales = to_scales(values, self._masks, normalize=self.scorer.start == "post-training")
        self._set_factors()
        # A graph belongs to one backward pass, so differentiable scales are never reused.
        self._stamp = None if differentiable and not held else stamp

    def _set_factors(self) -> None:
        factors = {name: columns(self._scales) for name, columns in self._maps.items()}
        self._factors = {name: factor for name, factor in factors.items() if factor is not None}

    def _version(self) -> object:
        if self._watched is None:
            own = [] if self.scorer is None else self.scorer.parameters()
            self._watched = [*self.learners.flags, *own]
        return sum(p._version for p in self._watched), self.budget

    def forget(self) -> None:
        """Let scales be computed anew, also where they are held."""
        self._stamp, self._dirty = None, True

    # -- results -------------------------------------------------------------------------------

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

        It is of the user's own classes, without hooks; where single inputs of an FC layer were
        removed, that layer is a `snnprune.IndexedLinear`. The gated model stays as it is.

        Returns:
            The model in the mode (training or evaluation) and on the device of the gated one.

        Raises:
            CollapsedLayerError: a layer would be left empty.
        """
        return remove_(self.fold(), self.groups, self.scales)
