"""A model whose single connections are scaled: the counterpart of `GatedModel`, weight by weight."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ...budget import Budget, parse_target
from ...errors import CollapsedLayerError, TargetError
from ...graph import NeuronGroup
from ...options import Finite, checked
from ...plain import Mark
from ...ranks import current
from ...surgery import remove_
from ..attached import Attached
from ..blocks import Blocks
from ..learners import Gradient, HeldState, Learners, Phase
from ..rule import GroupCounts
from .rule import Masks, Neurons, connections_for, keep_connections
from .scorer import ConnectionScorer, weight_of

_LEAST_SCALE = 0.01
_ROUNDS, _ENOUGH = 8, 0.98


class _Switched(nn.Module, Mark):
    """Runs a model with the weights of the switched layers replaced by scaled ones."""

    def __init__(self, owner: ConnectionModel, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self._owner = (owner,)  # no submodule of this one

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        with self._owner[0].running() as network:
            return network(*args, **kwargs)


class ConnectionModel(Attached):
    """A user's model with scales on single connections of its fully connected layers.

    It offers what the alternating learning needs, as `GatedModel` does: phases, a budget, counts and a
    compact copy. The model itself carries no hooks; its scaled weights exist for the length of a call.

    Args:
        network: the model.
        groups: its groups, so that neurons left without connections can be removed.
        names: the switched layers.
        scorer: gives values per connection.
        floor: least kept share of every layer, relative to what it would keep if all kept alike.
    """

    def __init__(
        self,
        network: nn.Module,
        groups: Sequence[NeuronGroup],
        names: Sequence[str],
        *,
        scorer: ConnectionScorer,
        floor: float = 0.1,
    ) -> None:
        self.groups, self.names, self.scorer, self.floor = list(groups), list(names), scorer, floor
        self.model = _Switched(self, network)
        self.network = network
        self.neurons = Neurons(network, groups, names)
        self.there = {name: weight_of(network, name).detach() != 0 for name in names}
        self.connections = sum(int(there.sum()) for there in self.there.values())
        absent = sum(there.numel() for there in self.there.values()) - self.connections
        self.dense = sum(p.numel() for p in network.parameters()) - absent
        self.budget: Budget | None = None
        self.learners = Learners(network)
        self._known: tuple[object, dict[str, Tensor]] | None = None  # (what they were computed from, scales)
        self.blocks = Blocks(self._put_in, self._put_back)
        self._during: dict[str, Tensor] | None = None  # scales of the weights that are in place,
        self._scaled: dict[str, Tensor] = {}  # these weights,
        self._own: dict[str, Tensor] = {}  # and those that belong there
        self._last: dict[str, Tensor] = {}
        self._masks: Masks = {}
        self._alive: dict[str, Tensor] = {}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the model with its scaled weights."""
        return self.model(*args, **kwargs)

    @contextlib.contextmanager
    def running(self) -> Iterator[nn.Module]:
        """The network itself, for code that calls parts or methods of it, with its scaled weights in place.

        These are no parameters. Where parts are checkpointed, call `backward` inside, because they run once more
        in it.

        Raises:
            AttachError: another thread is inside such a block.
        """
        block = self.blocks.enter()
        try:
            yield self.network
        finally:
            self.blocks.leave(block)

    def _put_in(self) -> None:
        """Scaled weights in place of the layers' own."""
        scales = self.connection_scales()
        self._scaled = self._products(scales)
        self._own = {name: weight_of(self.network, name) for name in self.names}
        self._during = scales
        self._place(self._scaled)

    def _put_back(self) -> None:
        """The layers' own weights again."""
        self._place(self._own)
        self._during, self._own, self._scaled = None, {}, {}

    def _place(self, weights: Mapping[str, Tensor]) -> None:
        for name, weight in weights.items():
            self.network.get_submodule(name)._parameters["weight"] = weight  # type: ignore[assignment]

    @contextlib.contextmanager
    def unhooked(self) -> Iterator[nn.Module]:
        """The network with its own weights for the length of a `with` block, also inside of `running`.

        Raises:
            AttachError: another thread is inside such a block.
        """
        with self.blocks.alone():  # nobody may put scaled weights in meanwhile
            self._place(self._own)
            try:
                yield self.network
            finally:
                self._place(self._scaled)

    def detach(self) -> nn.Module:
        """Put every `requires_grad` back. Returns the model; its weights are those that were learned."""
        self.blocks.close()
        self.learners.put_back()
        return self.network

    # -- phases and parameters -----------------------------------------------------------------

    def set_phase(self, phase: Phase, *, gradient: Gradient = "through") -> None:
        """Choose who learns, as in `GatedModel.set_phase`.

        Raises:
            ConfigError: no such phase or gradient.
        """
        if self.learners.changes(phase, gradient):
            self._known = None
            self.learners.set(phase, gradient, self.scorer_parameters())

    def hold(self, state: HeldState | None = None) -> None:
        """Let the network learn alone under the scales of the last pass, as `GatedModel.hold`."""
        if state is not None:
            self._last, self._masks, self._alive = state["scales"], state["masks"], state["alive"]
        elif not self._last:
            with torch.no_grad():
                self.connection_scales()
        self.learners.set("network", "held", self.scorer_parameters())
        self._known = (None, {name: scale.detach() for name, scale in self._last.items()})

    def held_state(self) -> HeldState | None:
        """What a checkpoint has to keep, because weights have moved on since; else None."""
        if self._known is None or self._known[0] is not None:
            return None
        return {"scales": self._known[1], "masks": self._masks, "alive": self._alive}

    # -- scales --------------------------------------------------------------------------------

    def set_budget(self, target: Mapping[str, float] | None, *, progress: float = 1.0) -> None:
        """Choose the kept share of the model's parameters; connections that are off count as gone.

        Args:
            target: `{"params": share}`, or None for the free mode.
            progress: in [0, 1]: how far the way from dense (0) to the target (1) is gone.

        Raises:
            TargetError: another metric, or no share.
        """
        wanted = parse_target(target)
        if wanted is not None and wanted.metric != "params":
            raise TargetError(
                f"target {wanted.metric} cannot be met by switching connections, which saves no multiply-adds on "
                "common hardware; use params=... or free."
            )
        share = (
            None
            if wanted is None
            else 1.0 - (1.0 - wanted.share) * min(1.0, max(0.0, checked("progress", progress, Finite)))
        )
        budget = None if share is None else Budget("params", share)
        if budget != self.budget:
            self.budget, self._known = budget, None

    def connection_scales(self) -> dict[str, Tensor]:
        """Layer -> (out, in) scales for the next call; exactly 0 where a connection is off.

        Forward the kept value, backward as if every connection were on, so that one at 0 still learns.

        Raises:
            AttachError: another thread is inside the gated model.
        """
        self.blocks.admit()
        if self._during is not None:  # the scorer must not read scaled weights
            return self._during
        held = self.learners.held
        differentiable = torch.is_grad_enabled() and not held
        stamp = None if held else self._version()
        if self._known is not None and not differentiable and self._known[0] == stamp:
            return self._known[1]
        device = next(iter(self.network.parameters())).device.type
        with torch.set_grad_enabled(differentiable), torch.autocast(device, enabled=False):
            values = self.scorer(self.network)
            self._masks, self._alive = self._choose(values)
            current().same_([*self._masks.values(), *self._alive.values()])
            scales = {n: self._scale(u, self._masks[n]) for n, u in values.items()}
        self._known = None if differentiable else (stamp, scales)  # a graph belongs to one backward pass
        self._last = {name: scale.detach() for name, scale in scales.items()}
        return scales

    def _version(self) -> object:
        return sum(p._version for p in [*self.learners.flags, *self.scorer.parameters()]), self.budget

    def _choose(self, values: Mapping[str, Tensor]) -> tuple[Masks, dict[str, Tensor]]:
        values = {n: u.detach().masked_fill(~self.there[n], -torch.inf) for n, u in values.items()}
        if self.budget is None:
            return self.neurons.close(keep_connections(values, None, floor=self.floor))
        wanted = connections_for(
            self.budget.share, dense=self.dense, connections=self.connections, layers=len(self.names)
        )
        return self._meet(values, wanted)

    def _meet(self, values: Mapping[str, Tensor], wanted: int) -> tuple[Masks, dict[str, Tensor]]:
        """Masks with at most so many connections; what dead neurons take along goes to others, by bisection."""
        best: tuple[Masks, dict[str, Tensor]] | None = None
        most, low, high = -1, wanted, self.connections
        count, failure = wanted, None
        for _ in range(_ROUNDS):
            try:
                masks, alive = self.neurons.close(keep_connections(values, count, floor=self.floor))
            except CollapsedLayerError as error:
                failure, kept = error, 0
            else:
                kept = sum(int(mask.sum()) for mask in masks.values())
                if most < kept <= wanted:
                    best, most = (masks, alive), kept
            if most >= _ENOUGH * wanted or low >= high:
                break
            low, high = (count, high) if kept <= wanted else (low, count)
            count = (low + high + 1) // 2 if count != wanted else min(high, 2 * wanted - kept)
        if best is None:
            assert failure is not None
            raise failure
        return best

    def _scale(self, u: Tensor, mask: Tensor) -> Tensor:
        normalized = self.scorer.start == "post-training"
        mean = u.detach()[mask].clamp_min(_LEAST_SCALE).mean() if normalized and bool(mask.any()) else 1.0
        soft = u / mean
        hard = torch.where(mask, soft.detach().clamp_min(_LEAST_SCALE if normalized else 0.0), 0.0)
        return soft + (hard - soft.detach()) if u.requires_grad else hard

    def _products(self, scales: Mapping[str, Tensor]) -> dict[str, Tensor]:
        weights = {name: weight_of(self.network, name) for name in scales}
        return {name: weights[name] * scale.to(weights[name]) for name, scale in scales.items()}

    @property
    def scales(self) -> dict[str, Tensor]:
        """Neuron groups' scales for the surgery: 1, or 0 for neurons that are left without connections."""
        with torch.no_grad():
            self.connection_scales()
        return {name: alive.float() for name, alive in self._alive.items()}

    def counts(self) -> list[GroupCounts]:
        """Kept, weakened and strengthened connections per layer."""
        with torch.no_grad():
            scales = self.connection_scales()
        found = []
        for name, scale in scales.items():
            kept = self._masks[name]
            strong = int((scale[kept] >= 1).sum())
            found.append(
                GroupCounts(f"{name}.weight", scale.numel(), int(kept.sum()), int(kept.sum()) - strong, strong)
            )
        return found

    def forget(self) -> None:
        """Let scales be computed anew, also where they are held."""
        self._known = None

    # -- results -------------------------------------------------------------------------------

    @torch.no_grad()
    def fold(self) -> nn.Module:
        """A copy of the full size whose weights are scaled, with exact zeros where connections are off."""
        with self.unhooked() as network:
            clone = copy.deepcopy(network)
        return self.learners.put_on(fold_connections_(clone, self.connection_scales()))

    def switched_off(self) -> list[str]:
        """Names of the parameters that hold exact zeros."""
        return [f"{name}.weight" for name in self.names]

    def compact(self) -> nn.Module:
        """A copy that computes what this one computes: weights scaled, dead neurons cut out, zeros left."""
        return remove_(self.fold(), self.groups, self.scales)


@torch.no_grad()
def fold_connections_(model: nn.Module, scales: Mapping[str, Tensor]) -> nn.Module:
    """Multiply weights by the scales of their connections, in place; scale 0 leaves an exact zero."""
    for name, scale in scales.items():
        weight = weight_of(model, name)
        weight.copy_(torch.where(scale != 0, weight * scale.to(weight), 0.0))
    return model
