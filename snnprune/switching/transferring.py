"""What was learned of the full network over the cut: an optimiser's state, and an average of the weights."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ConfigError
from ..graph import NeuronGroup
from ..inputs import unwrap
from ..shown import brief_repr
from ..surgery import fold_, remove_

# The weight that replaces w is w' = s w, so a gradient by it is g' = g / s: states of optimisers by the power of s
# that they take. A step size that signs alone steer, and what Adadelta keeps of its own steps, stay.
POWERS: Mapping[str, int] = {
    "momentum_buffer": -1, "exp_avg": -1, "grad_avg": -1, "prev": -1, "exp_inf": -1,
    "exp_avg_sq": -2, "max_exp_avg_sq": -2, "square_avg": -2, "sum": -2,
    "ax": 1, "step_size": 0, "acc_delta": 0,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Transfer:
    """One cut, for what was learned before it.

    Attributes:
        dense: the full network.
        copied: makes a copy of it without gates.
        groups: its groups.
        scales: of the cut.
    """

    dense: nn.Module
    copied: Callable[[], nn.Module]
    groups: Sequence[NeuronGroup]
    scales: Mapping[str, Tensor]

    def __call__(
        self, what: Any, small: nn.Module, *, dropped: Iterable[nn.Parameter], powers: Mapping[str, int]
    ) -> Any:
        """An optimiser, in place, or a compact copy of an average; see `GatedModel.transfer`.

        Args:
            what: one of them.
            small: the compact network.
            dropped: parameters that are of no use after the cut.
            powers: of the scale, by names of states that are not known.

        Raises:
            ConfigError: it is neither, or does not fit the network.
        """
        if isinstance(what, nn.Module):
            return self._average(what)
        if not isinstance(what, torch.optim.Optimizer):
            raise ConfigError(f"transfer() takes an optimiser or an averaged model, not {brief_repr(what)}.")
        self._optimizer(what, small, {id(p) for p in dropped}, {**POWERS, **powers})
        return what

    def _average(self, average: nn.Module) -> nn.Module:
        """A copy of an average, wrapped or not, folded and cut as the network was."""
        small, inner = self.copied(), unwrap(average)
        found = next((m for m in inner.modules() if type(m) is type(small)), None)
        try:
            if found is None:
                raise RuntimeError
            small.load_state_dict(found.state_dict())
        except RuntimeError as error:
            raise ConfigError(
                "transfer(): the average is none of this network: its weights have other names or shapes. Give a "
                "copy of the full network whose weights were averaged."
            ) from error
        for own, given in zip(small.parameters(), found.parameters(), strict=True):
            own.requires_grad_(given.requires_grad)
        small.train(found.training)
        remove_(fold_(small, self.groups, self.scales), self.groups, self.scales)
        return copy.deepcopy(average, {id(found): small})

    def _optimizer(
        self, optimizer: torch.optim.Optimizer, small: nn.Module, gone: set[int], powers: Mapping[str, int]
    ) -> None:
        """Let an optimiser go on with the compact network's parameters; its options stay."""
        names = {id(p): name for name, p in self.dense.named_parameters()}
        held = [p for group in optimizer.param_groups for p in group["params"] if id(p) in names]
        tensors: dict[str, dict[str, Tensor]] = {}  # state -> parameter -> value
        states: dict[str, dict[str, Any]] = {}
        for parameter in held:
            name = names[id(parameter)]
            states[name] = dict(optimizer.state.get(parameter, {}))
            for key, value in states[name].items():
                if isinstance(value, Tensor) and key in powers and value.shape == parameter.shape:
                    tensors.setdefault(key, {})[name] = value
                elif isinstance(value, Tensor) and value.numel() > 1:
                    raise ConfigError(
                        f"transfer(): the state {key!r} of {name}, of shape {tuple(value.shape)}, is not known. "
                        f'Where it has the shape of the parameter give powers={{"{key}": -1}} if it grows like a '
                        "gradient (-2: its square, 1: a weight, 0: neither), else begin with a fresh optimiser."
                    )
        for key, found in tensors.items():
            for name, value in self._cut(found, powers[key]).items():
                if name in found:
                    states[name][key] = value
        new = dict(small.named_parameters())
        for parameter in held:
            optimizer.state.pop(parameter, None)
            if states[names[id(parameter)]]:
                optimizer.state[new[names[id(parameter)]]] = states[names[id(parameter)]]
        for group in optimizer.param_groups:
            left = [p for p in group["params"] if id(p) not in gone]
            group["params"] = [new[names[id(p)]] if id(p) in names else p for p in left]
        for parameter in [p for p in optimizer.state if id(p) in gone]:
            del optimizer.state[parameter]

    @torch.no_grad()
    def _cut(self, values: Mapping[str, Tensor], power: int) -> dict[str, Tensor]:
        """Values of the parameters' shapes, cut as the parameters are, times a power of the scales."""
        model = self.copied()
        for name, parameter in model.named_parameters():
            value = values.get(name)
            parameter.requires_grad_(False)
            parameter.data = torch.zeros_like(parameter) if value is None else value.detach().clone()
        on = {n: s > 0 for n, s in self.scales.items()}
        factors = {n: torch.where(on[n], s.double(), 1.0) ** power * on[n] for n, s in self.scales.items()}
        remove_(fold_(model, self.groups, factors), self.groups, self.scales)
        return {name: parameter.detach() for name, parameter in model.named_parameters()}
