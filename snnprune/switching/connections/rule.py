"""From values to kept connections, and to the neurons that are left without any."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from ...errors import CollapsedLayerError, TargetError
from ...graph import Member, NeuronGroup
from ...layers import IndexedLinear

Masks = dict[str, Tensor]


def connections_for(share: float, *, dense: int, connections: int, layers: int) -> int:
    """How many connections may stay so that a share of all parameters does.

    Args:
        share: kept share of the model's parameters.
        dense: parameters of the dense model.
        connections: how many of them are connections.
        layers: switched layers; each keeps at least one connection.

    Raises:
        TargetError: not even those would fit.
    """
    rest = dense - connections
    count = min(connections, int(share * dense) - rest)
    if count < layers:
        least = math.ceil((rest + layers) / dense * 1000) / 1000
        raise TargetError(
            f"params={share:.3g} cannot be reached by switching connections: {rest} of {dense} parameters are "
            f"none. Ask for params={least:g} or more."
        )
    return count


def keep_connections(values: Mapping[str, Tensor], count: int, *, floor: float) -> Masks:
    """The best connections by one threshold over all layers.

    Args:
        values: layer -> (out, in) values u; -inf where there is no connection.
        count: how many stay.
        floor: least kept share of every layer, relative to what it would keep if all kept alike.
    """
    scores = {name: u.detach().flatten() for name, u in values.items()}
    present = [int(torch.isfinite(u).sum()) for u in scores.values()]
    total = max(1, sum(present))
    spared = count if floor * count + len(values) <= count else count - len(values)  # one each is a floor too
    lifted = []
    for own, have in zip(scores.values(), present, strict=True):
        least = min(have, max(1, math.floor(floor * spared / total * have)))
        lifted.append(own.index_fill(0, own.topk(least).indices, torch.inf) if least else own)
    every = torch.cat(lifted)
    chosen = torch.zeros_like(every, dtype=torch.bool)
    chosen[every.topk(min(count, len(every))).indices] = True
    chosen &= every > -torch.inf
    parts = chosen.split([len(own) for own in lifted])
    return {name: part.view(u.shape) for (name, u), part in zip(values.items(), parts, strict=True)}


class Neurons:
    """Which neurons are left without connections, and what goes with them.

    A neuron that nothing reads is dead. So is one that reads nothing, as far as all that read it are
    switched layers: it is a constant, and the connections that lead away from it are switched off too. What
    is dead can then be removed exactly.

    Args:
        model: the network.
        groups: its groups; those with parameters outside layers or with heads stay whole.
        names: the switched layers.
    """

    def __init__(self, model: nn.Module, groups: Sequence[NeuronGroup], names: Sequence[str]) -> None:
        known = set(names)
        self.groups = [
            g
            for g in groups
            if g.prunable
            and g.consumers
            and not any(m.role in ("parameter", "heads", "size", "call") for m in g.members)
            and all(m.module in known for m in g.consumers)
        ]
        self._places = {
            (group.id, member.module, member.role): _places(model, member)
            for group in self.groups
            for member in group.members
        }
        self._holders = {  # the group, and layers that hold a part of it: none may lose all its neurons
            group.id: [
                (group.id, torch.arange(group.size)),
                *((m.module, torch.tensor(sorted(set(m.neurons)))) for m in group.partial),
            ]
            for group in self.groups
        }
        self.known = known

    def close(self, masks: Masks) -> tuple[Masks, dict[str, Tensor]]:
        """(masks without the connections of dead neurons, group id -> (size,) alive).

        Raises:
            CollapsedLayerError: a group is left without a neuron.
        """
        masks = {name: mask.clone() for name, mask in masks.items()}
        alive = {g.id: torch.ones(g.size, dtype=torch.bool) for g in self.groups}
        changed = True
        while changed:
            changed = False
            for group in self.groups:
                now = alive[group.id] & self._connected(group, masks)
                for name, neurons in self._holders[group.id]:
                    if not bool(now[neurons].any()):
                        raise CollapsedLayerError(
                            f"{name}: none of its {len(neurons)} neurons has connections left, so the network is "
                            "cut. Ask for a larger target or a higher floor."
                        )
                if bool((now != alive[group.id]).any()):
                    alive[group.id], changed = now, True
                    self._cut(group, ~now, masks)
        return masks, alive

    def _connected(self, group: NeuronGroup, masks: Masks) -> Tensor:
        read = torch.zeros(group.size, dtype=torch.bool)
        fed = torch.zeros(group.size, dtype=torch.bool)
        feeders = [m for m in group.members if m.role == "producer"]
        for member in group.consumers:
            columns, neurons = self._places[group.id, member.module, member.role]
            read[neurons[masks[member.module].any(0).cpu()[columns]]] = True
        if not feeders or any(m.module not in self.known for m in feeders):
            return read
        for member in feeders:
            rows, neurons = self._places[group.id, member.module, member.role]
            fed[neurons[masks[member.module].any(1).cpu()[rows]]] = True
        return read & fed

    def _cut(self, group: NeuronGroup, dead: Tensor, masks: Masks) -> None:
        for member in group.members:
            if member.module not in masks or member.role not in ("producer", "consumer"):
                continue
            places, neurons = self._places[group.id, member.module, member.role]
            gone = places[dead[neurons]].to(masks[member.module].device)
            if member.role == "consumer":
                masks[member.module][:, gone] = False
            else:
                masks[member.module][gone] = False


def _places(model: nn.Module, member: Member) -> tuple[Tensor, Tensor]:
    """(rows or columns of the weight, the neurons they belong to)."""
    channels, neurons = torch.tensor(member.channels), torch.tensor(member.neurons)
    module = model.get_submodule(member.module)
    if member.role != "consumer" or not isinstance(module, IndexedLinear):
        return channels, neurons
    owner = torch.full((module.source_features,), -1)  # columns of the weight are a selection of the features
    owner[channels] = neurons
    read = owner[module.index.cpu()]
    columns = (read >= 0).nonzero().flatten()
    return columns, read[columns]
