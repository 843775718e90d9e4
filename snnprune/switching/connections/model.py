"""A model whose single connections are scaled: the counterpart of `GatedModel`, weight by weight."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ...budget import Budget
from ...errors import CollapsedLayerError, TargetError
from ...graph import NeuronGroup
from ...inputs import Inputs, device_of
from ...plain import Mark
from ...surgery import remove_
from ..base import Switched
from ..blocks import Blocks
from ..rule import GroupCounts, collapsed, counted
from ..segments import Segments
from .proving import prove_connections
from .rule import Masks, Neurons, connections_for, keep_connections
from .scorer import ConnectionScorer
from .weights import fold_connections_, weight_of

_ROUNDS, _ENOUGH = 8, 0.98


class _Running(nn.Module, Mark):
    """Runs a model with the weights of the switched layers replaced by scaled ones."""

    def __init__(self, owner: ConnectionModel, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self._owner = (owner,)  # no submodule of this one

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        with self._owner[0].running() as network:
            return network(*args, **kwargs)


class ConnectionModel(Switched):
    """A user's model with scales on single connections of its fully connected layers.

    The model itself carries no hooks; its scaled weights exist for the length of a call.

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
        self.names = list(names)
        where = device_of(network)
        segments = Segments({name: weight_of(network, name).numel() for name in names}, where)
        super().__init__(network, groups, scorer=scorer, segments=segments, floor=floor)
        self.model = _Running(self, network)
        self.neurons = Neurons(network, groups, names)
        self.there = segments.join({name: weight_of(network, name).detach() != 0 for name in names})
        self.connections = int(self.there.sum())
        absent = segments.total - self.connections
        self.dense = sum(p.numel() for p in network.parameters()) - absent
        self.blocks = Blocks(self._put_in, self._put_back)
        self._scaled: dict[str, Tensor] = {}  # the weights that are in place,
        self._own: dict[str, Tensor] = {}  # and those that belong there

    # -- the model with its scaled weights ---------------------------------------------------------

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
        scales = self._by_layer(self._at_work(grad=torch.is_grad_enabled()))
        self._own = {name: weight_of(self.network, name) for name in self.names}
        self._scaled = {name: weight * scales[name].to(weight) for name, weight in self._own.items()}
        self._place(self._scaled)

    def _put_back(self) -> None:
        """The layers' own weights again."""
        self._place(self._own)
        self._own, self._scaled = {}, {}

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
        self._changes.close()
        self.learners.put_back()
        return self.network

    # -- scales ------------------------------------------------------------------------------------

    def connection_scales(self) -> dict[str, Tensor]:
        """Layer -> (out, in) scales as they are now, detached; exactly 0 where a connection is off.

        Raises:
            AttachError: another thread is inside the gated model.
        """
        return self._by_layer(self._known().values)

    def _by_layer(self, flat: Tensor) -> dict[str, Tensor]:
        shapes = {name: weight_of(self.network, name).shape for name in self.names}
        return {name: part.view(shapes[name]) for name, part in self.segments.split(flat).items()}

    def _values(self) -> Tensor:
        with self.unhooked() as network:  # the scorer must not read scaled weights
            return self.scorer(network)

    def _renew(self) -> None:
        """Nothing outlives a block."""

    def _check_budget(self, wanted: Budget) -> None:
        if wanted.metric != "params":
            raise TargetError(
                f"target {wanted.metric} cannot be met by switching connections, which saves no multiply-adds on "
                "common hardware; use params=... or free."
            )

    def _select(self, values: Tensor) -> Tensor:
        assert self.budget is not None
        wanted = connections_for(
            self.budget.share, dense=self.dense, connections=self.connections, layers=len(self.names)
        )
        return self._meet(self._present(values), wanted)

    def _kept_alone(self, values: Tensor) -> Tensor:
        masks = self._by_layer(self._present(values) > 0)
        for name, mask in masks.items():
            self.doubts.add(mask.any(), partial(collapsed, name, mask.numel(), "connections"))
        return self.segments.join(self.neurons.close(masks)[0])

    def _present(self, values: Tensor) -> Tensor:
        return values.detach().masked_fill(~self.there, -torch.inf)

    def _meet(self, values: Tensor, wanted: int) -> Tensor:
        """A mask with at most so many connections; what dead neurons take along goes to others, by bisection."""
        best: Masks | None = None
        by_layer = self._by_layer(values)
        most, low, high = -1, wanted, self.connections
        count, failure = wanted, None
        for _ in range(_ROUNDS):
            try:
                masks = self.neurons.close(keep_connections(by_layer, count, floor=self.floor))[0]
            except CollapsedLayerError as error:
                failure, kept = error, 0
            else:
                kept = sum(int(mask.sum()) for mask in masks.values())
                if most < kept <= wanted:
                    best, most = masks, kept
            if most >= _ENOUGH * wanted or low >= high:
                break
            low, high = (count, high) if kept <= wanted else (low, count)
            count = (low + high + 1) // 2 if count != wanted else min(high, 2 * wanted - kept)
        if best is None:
            assert failure is not None
            raise failure
        return self.segments.join(best)

    @property
    def scales(self) -> dict[str, Tensor]:
        """Neuron groups' scales for the surgery: 1, or 0 for neurons that are left without connections."""
        alive = self.neurons.close(self._by_layer(self._known().mask))[1]
        return {name: own.float() for name, own in alive.items()}

    def counts(self) -> list[GroupCounts]:
        """Kept, weakened and strengthened connections per layer."""
        return [counted(f"{n}.weight", s.detach().cpu().numpy()) for n, s in self.connection_scales().items()]

    # -- results -----------------------------------------------------------------------------------

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

    def prove(self, sample: Inputs) -> dict[str, float]:
        """Scaled = folded = removed, in float64 on real inputs: see `proving.prove_connections`."""
        return prove_connections(self, sample)
