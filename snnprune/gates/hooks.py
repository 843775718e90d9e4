"""The hooks that make a model a gated one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from .. import layers
from ..errors import AttachError
from ..plain import Mark
from ..surgery import scale_call


class Owner(Protocol):
    """Who computes the scales."""

    _calling: bool
    _factors: dict[str, Tensor]

    def refresh(self) -> None:
        """Compute the scales anew where something has changed."""
        ...

    def is_due(self) -> bool:
        """Whether a layer that is called on its own needs other scales."""
        ...


class Snapshot:
    """Who gives the scales in a deep copy of a gated model: they stay as they were when it was made.

    So a copy computes what the model computed then, whatever happens to the model and its gates afterwards.
    """

    _calling = False

    def __init__(self, factors: dict[str, Tensor]) -> None:
        self._factors = factors

    @classmethod
    def of(cls, owner: Owner, memo: dict[Any, Any]) -> Snapshot:
        """One for all hooks of a copy."""
        key = ("snapshot", id(owner))
        if key not in memo:
            with torch.no_grad():
                owner.refresh()
            memo[key] = cls({name: factor.detach().clone() for name, factor in owner._factors.items()})
        return memo[key]

    def refresh(self) -> None:
        """Nothing changes."""

    def is_due(self) -> bool:
        """Never."""
        return False


class _Hook(Mark):
    """What all hooks of a gated model have in common: whose they are, and what becomes of them in a copy."""

    def __init__(self, owner: Owner, *more: Any) -> None:
        self.owner, self._more = owner, more

    def __deepcopy__(self, memo: dict[Any, Any]) -> _Hook:
        return type(self)(Snapshot.of(self.owner, memo), *self._more)

    def __reduce__(self) -> str:
        raise AttachError(
            "a model with gates attached cannot be pickled. Give gated.compact(), or detach() first; "
            "gated.state_dict() is what is needed to go on."
        )


class Gate(_Hook):
    """Forward hooks of one consumer: its input times the scales of its columns.

    `(x * g) W = x (g W)`: where the input is larger than the weight, as in nearly every convolution, the
    weight is scaled instead, for the length of the layer's own forward. That saves a copy of every feature
    map and the time to write it. It is done only inside the gated model's call, which puts weights back
    whatever ends it, and again when checkpointing repeats such a call in the backward pass.
    """

    def __init__(self, owner: Owner, name: str) -> None:
        super().__init__(owner, name)
        self.name = name
        self._moved: tuple[nn.Module, Tensor] | None = None  # a layer and its own weight, while scaled
        self._on_weight = False  # what the last call inside the gated model did

    def before(self, module: nn.Module, args: Any, kwargs: Any) -> tuple[Any, Any] | None:
        """Scale the layer's input or its weight."""
        self.put_back()
        if self.owner.is_due():
            # A checkpoint counts what is saved inside it; the scales, made once, are none of its business.
            with torch.autograd.graph.saved_tensors_hooks(_as_it_is, _as_it_is):
                self.owner.refresh()
        factor = self.owner._factors.get(self.name)
        if factor is None:
            return None
        if self.owner._calling:
            self._on_weight = _cheaper_on_weight(module, args)
        elif torch._C._current_graph_task_id() == -1:  # no repeated forward of a checkpoint
            self._on_weight = False
        if not self._on_weight:
            return scale_call(module, args, kwargs, factor)
        weight = module.weight
        assert isinstance(weight, Tensor)
        shape = [1] * weight.dim()
        shape[layers.input_dim(module)] = -1
        self._moved = (module, weight)
        module._parameters["weight"] = weight * factor.to(weight).reshape(shape)  # type: ignore[assignment]
        return None

    def after(self, _module: nn.Module, _args: Any, _output: Any) -> None:
        """The layer's own weight again."""
        self.put_back()

    def put_back(self) -> None:
        """Put the layer's own weight back, if it is not there."""
        if self._moved is not None:
            module, weight = self._moved
            module._parameters["weight"] = weight  # type: ignore[assignment]
            self._moved = None


def _as_it_is(tensor: Tensor) -> Tensor:
    return tensor


def _cheaper_on_weight(module: nn.Module, args: tuple[Any, ...]) -> bool:
    plain = layers.is_linear(module) and not isinstance(module, layers.IndexedLinear)
    if layers.is_conv(module):
        plain = not layers.is_grouped(module) and not layers.is_customized(module)
    if not plain or not args or "weight" not in module._parameters:  # a parametrised weight is computed
        return False
    weight = module.weight
    assert isinstance(weight, Tensor)
    return args[0].numel() > weight.numel()


class Refresh(_Hook):
    """Forward pre-hook of the whole model: one set of scales per forward pass."""

    def __call__(self, _module: nn.Module, _args: tuple[Any, ...]) -> None:
        """Look for changes."""
        self.owner.refresh()


class Loading(_Hook):
    """Hook of the whole model that keeps weights of another time away from scales of this one."""

    def __call__(self, *_args: Any) -> None:
        """Refuse to load.

        Raises:
            AttachError: always.
        """
        raise AttachError(
            "load_state_dict() of a model with gates attached, or of a copy that was made while it had, would "
            "leave their scales behind. Use gated.load_state_dict(), or detach() first; of a copy, a new model."
        )


class Hooks:
    """All hooks of one gated model."""

    def __init__(self, owner: Owner, model: nn.Module, names: Iterable[str]) -> None:
        self.owner, self.model = owner, model
        self.gates = [Gate(owner, name) for name in names]
        self.handles: list[Any] = []

    def register(self) -> None:
        """Put them on."""
        self.handles.append(self.model.register_forward_pre_hook(Refresh(self.owner)))
        self.handles.append(self.model.register_load_state_dict_pre_hook(Loading(self.owner)))
        for gate in self.gates:
            module = self.model.get_submodule(gate.name)
            self.handles.append(module.register_forward_pre_hook(gate.before, with_kwargs=True))
            self.handles.append(module.register_forward_hook(gate.after, always_call=True))

    def remove(self) -> None:
        """Take them off; safe to call twice."""
        for handle in self.handles:
            handle.remove()
        self.handles.clear()
        self.put_back()

    def put_back(self) -> None:
        """Give every layer its own weight, whatever interrupted its forward."""
        for gate in self.gates:
            gate.put_back()
