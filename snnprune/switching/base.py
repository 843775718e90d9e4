"""What all switching has in common: whose scales, who learns, which budget, and what comes out of it.

A kind of switching says what its scales belong to (neurons, single connections), which of them a budget keeps, how
they are put to work on the model, and how they are folded into it. To add a kind, derive from `Switched` and from
`ValueScorer`, and let `assembly` make it.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from ..budget import Budget, Target, parse_target
from ..graph import NeuronGroup
from ..inputs import device_of
from ..options import Finite, Share, checked
from ..ranks import current
from .attached import Attached
from .blocks import Blocks
from .changes import Changes
from .current import Current, Scales, State
from .doubts import Doubts
from .learners import Gradient, Learners, Phase
from .rule import diverged, soft_and_hard
from .segments import Segments
from .states import read_state


class Switched(Attached, ABC):
    """A user's model with scales, until `detach()`; a `with` block does that by itself, also after an exception.

    Args:
        network: the user's model.
        groups: its groups, as `trace` returns them.
        scorer: gives values; None for scales set by hand.
        segments: what is switched: groups of neurons, or layers of connections.
        floor: least kept share of every group (or layer) under a budget.

    Attributes:
        model: what runs with the scales.
        network: the user's model.
        scorer: gives the scales; None where they are set by hand.
        learners: who learns, and the caller's `requires_grad` flags.
        budget: what is to be kept now; None for the papers' free mode.
        blocks: who is inside.
    """

    model: nn.Module
    blocks: Blocks

    def __init__(
        self, network: nn.Module, groups: Sequence[NeuronGroup], *, scorer: Any, segments: Segments, floor: float
    ) -> None:
        self.network, self.groups, self.scorer = network, list(groups), scorer
        self.segments, self.floor = segments, checked("floor", floor, Share)
        self.budget: Budget | None = None
        self.learners = Learners(network)
        self.doubts = Doubts()
        self._current = Current(self._computed, self._version)
        self._changes = Changes([*self.learners.flags, *([] if scorer is None else scorer.parameters())])

    # -- what a kind of switching has to say -----------------------------------------------------

    @abstractmethod
    def _check_budget(self, wanted: Budget) -> None:
        """Refuse a budget that this kind cannot meet.

        Raises:
            TargetError: its metric is not what this kind saves.
        """

    @abstractmethod
    def _select(self, values: Tensor) -> Tensor:
        """(switched,) mask of what the budget keeps, out of (switched,) finite values; none waits for the GPU."""

    @abstractmethod
    def _kept_alone(self, values: Tensor) -> Tensor:
        """(switched,) mask in the free mode, after a look at layers that would be cut."""

    @abstractmethod
    def _values(self) -> Tensor:
        """(switched,) values u of the scorer, differentiable."""

    @abstractmethod
    def _renew(self) -> None:
        """Drop what was made of scales that hold no longer."""

    # -- phases and parameters ---------------------------------------------------------------------

    def network_parameters(self) -> list[nn.Parameter]:
        """The model's parameters that the caller had left trainable."""
        return self.learners.network()

    def scorer_parameters(self) -> list[nn.Parameter]:
        """Everything the scorer learns: the switcher and, with it, the offsets."""
        return (
            [] if self.scorer is None else [*self.scorer.switcher_parameters(), *self.scorer.offset_parameters()]
        )

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

    def hold(self, state: State | None = None) -> None:
        """Let the network learn alone under the scales of the last pass, until `set_phase` is called.

        The scorer does not run at all, not even once as after `set_phase("network", gradient="held")`.

        Args:
            state: what `held_state` returned, to go on from; without it the scales as they are.
        """
        if state is not None:
            scales = Scales.read(state, self.segments.total, device_of(self.network))
        else:
            scales = self._current.last or self._current.scales()
        self.learners.set("network", "held", self.scorer_parameters())
        self._renew()
        self._current.fix(scales)

    def held_state(self) -> State | None:
        """The scales that a checkpoint has to keep, because weights have moved on since; else None."""
        last = self._current.last
        return last.state() if self._current.fixed and self.scorer is not None and last is not None else None

    # -- budget and scales -------------------------------------------------------------------------

    def set_budget(self, target: Target | None, *, progress: float = 1.0) -> None:
        """Choose the kept share of the cost; the threshold follows at once and at every step.

        Args:
            target: `{"macs": share}`, `{"params": share}` or, where times were added to the cost model,
                `{"latency": share}`, with a share in (0, 1]; or None for the papers' free mode (kept where the
                switcher's value is positive). Connections save `params` alone.
            progress: in [0, 1]: how far the way from the dense cost (0) to the target (1) is gone.

        Raises:
            TargetError: not a share, below what the floors allow, or of a metric that is not saved or not known.
        """
        wanted = parse_target(target)
        budget = None
        if wanted is not None:
            self._check_budget(wanted)
            share = 1.0 - (1.0 - wanted.share) * min(1.0, max(0.0, checked("progress", progress, Finite)))
            budget = Budget(wanted.metric, share)
        if budget != self.budget:
            self.budget = budget
            self.forget()

    def forget(self) -> None:
        """Let scales be computed anew, also where they are held.

        Needed after weights were changed in place through `p.data`, of which PyTorch keeps no count.
        """
        if self.scorer is not None:
            self._current.forget()
        self._renew()

    def settle(self) -> None:
        """Read what a GPU was asked about the last scales, before something is built on them.

        Raises:
            CollapsedLayerError: without a budget, everything of a layer is off.
            DivergedError: a value was not finite.
            TargetError: the budget is below what the floors allow.
        """
        self.doubts.settle()

    def _known(self) -> Scales:
        """The scales of now."""
        self.blocks.admit()
        with self._exact(grad=False):
            scales = self._current.scales()
            self._hold_where_held(scales)
        self.settle()
        return scales

    def _at_work(self, *, grad: bool) -> Tensor:
        """(switched,) scales for a pass that begins, with a graph where gradients are recorded and they learn."""
        self.blocks.admit()
        with self._exact(grad=grad):
            if self.learners.held:
                self._hold_where_held(self._current.scales())
            return self._current.differentiable()

    def _hold_where_held(self, scales: Scales) -> None:
        """In a phase in which the network learns under held scales, the first ones of the phase stay."""
        if self.learners.held and not self._current.fixed:
            self._current.fix(scales)

    @contextlib.contextmanager
    def _exact(self, *, grad: bool) -> Iterator[None]:
        """Scales are computed in full precision, and outside inference mode: training steps may use them too."""
        kind = device_of(self.network).type
        with torch.inference_mode(False), torch.set_grad_enabled(grad), torch.autocast(kind, enabled=False):
            yield

    def _computed(self, known: Scales | None) -> tuple[Tensor, Scales]:
        """Values of the scorer and scales; see `Current`."""
        self.doubts.begin()
        values = self._values()
        if known is None:
            mask = self._kept_alone(values.detach()) if self.budget is None else self._finite(values)
            current().same_([mask])  # values differ in their last bits between GPUs
        else:
            mask = known.mask
        normalize = self.scorer.start == "post-training"
        soft, hard = soft_and_hard(values, mask, self.segments, normalize=normalize)
        return soft, known or Scales(hard, mask)

    def _finite(self, values: Tensor) -> Tensor:
        values = values.detach()
        self.doubts.add(torch.isfinite(values).all(), diverged)
        return self._select(values)

    def _version(self) -> object:
        return self._changes.state(), self.budget

    # -- to go on later ----------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """What is needed to go on: of the network, `model`, of the `scorer`, the `budget` and the `scales` of now.

        `scorer` is None for scales set by hand, `scales` where they are still to be computed.
        """
        scorer = None if self.scorer is None else self.scorer.state_dict()
        known = self._current.known
        with self.unhooked() as network:
            return {
                "budget": None if self.budget is None else asdict(self.budget),
                "model": network.state_dict(),
                "scorer": scorer,
                "scales": None if known is None else known.state(),
            }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put back what `state_dict` returned, after gates were attached with the same arguments.

        Args:
            state: with entries `model` and `scorer`; `budget` and `scales` are used where they are there.

        Raises:
            ConfigError: it is no such state; nothing is loaded then.
            RuntimeError: names or shapes are not those of this model, as of any `load_state_dict`.
            TargetError: so is its budget.
        """
        budget, scales = read_state(state, self.segments.total, device_of(self.network))
        with self.unhooked() as network:
            network.load_state_dict(state["model"])
        if self.scorer is not None:
            self.scorer.load_state_dict(state["scorer"])
        if "budget" in state:
            self.budget = budget
        self.forget()
        if scales is not None:
            (self._current.fix if self.scorer is None else self._current.put_back)(scales)
