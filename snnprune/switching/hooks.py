"""The hooks that make a model a gated one."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from .. import layers
from ..errors import AttachError
from ..plain import Mark
from ..surgery import scale_call
from .blocks import Blocks


class Owner(Protocol):
    """Who computes the scales."""

    @property
    def factors(self) -> Mapping[str, Tensor]:
        """Layer -> the scales of its columns."""
        ...

    def weight(self, name: str, layer: nn.Module) -> Tensor:
        """A layer's weight with its columns scaled."""
        ...

    @property
    def blocks(self) -> Blocks | None:
        """Who is inside; None where any number of threads may call."""
        ...

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

    blocks: Blocks | None = None

    def __init__(self, factors: Mapping[str, Tensor]) -> None:
        self.factors = factors

    def weight(self, name: str, layer: nn.Module) -> Tensor:
        """The copy's own weight, scaled."""
        return scaled_weight(layer, self.factors[name])

    @classmethod
    def of(cls, owner: Owner, memo: dict[Any, Any]) -> Snapshot:
        """One for all hooks of a copy."""
        key = ("snapshot", id(owner))
        if key not in memo:
            with torch.no_grad():
                owner.refresh()
            memo[key] = cls({name: factor.detach().clone() for name, factor in owner.factors.items()})
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
    """Forward pre-hook of one consumer: its input times the scales of its columns.

    Where the layer's forward is a `ScaledForward`, that does the scaling, and what is left to the hook is to look
    after the scales. It is there all the same: modules that compute their layers' work themselves, as PyTorch's
    encoder does, refrain from it where a layer has hooks.
    """

    def __init__(self, owner: Owner, name: str, scales: bool) -> None:
        super().__init__(owner, name, scales)
        self.name, self.scales = name, scales  # or the forward does, also where somebody has wrapped it since

    def __call__(self, module: nn.Module, args: Any, kwargs: Any) -> tuple[Any, Any] | None:
        """Scale the layer's input."""
        if self.owner.is_due():
            with unseen_by_checkpoints():
                self.owner.refresh()
        factor = self.owner.factors.get(self.name)
        return None if factor is None or not self.scales else scale_call(module, args, kwargs, factor)


class ScaledForward(_Hook):
    """In place of a plain layer's forward: the same, of an input or of a weight that is scaled.

    `(x * g) W = x (g W)`: where the input is larger than the weight, as in nearly every convolution, the
    weight is scaled instead. That saves a copy of every feature map and the time to write it. The layer's class
    computes it with the scaled weight on a stand-in, an object that shares everything else with the layer. The
    layer itself keeps its own weight throughout, whatever ends a call and whoever calls meanwhile.
    """

    def __init__(self, owner: Owner, name: str, module: nn.Module) -> None:
        super().__init__(owner, name, module)
        self.name, self.module = name, module

    def __deepcopy__(self, memo: dict[Any, Any]) -> ScaledForward:
        return ScaledForward(Snapshot.of(self.owner, memo), self.name, copy.deepcopy(self.module, memo))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """What the layer computes, with the scales of its columns."""
        layer = self.module
        factor = self.owner.factors.get(self.name)
        if factor is None:
            return type(layer).forward(layer, *args, **kwargs)
        if not _cheaper_on_weight(layer, args):
            args, kwargs = scale_call(layer, args, kwargs, factor)
            return type(layer).forward(layer, *args, **kwargs)
        with unseen_by_checkpoints():
            scaled = self.owner.weight(self.name, layer)
        stand_in = object.__new__(type(layer))
        stand_in.__dict__.update(layer.__dict__, _parameters={**layer._parameters, "weight": scaled})
        return type(layer).forward(stand_in, *args, **kwargs)


def scaled_weight(layer: nn.Module, factor: Tensor) -> Tensor:
    """A layer's weight times the scales of its columns."""
    weight = layer.weight
    assert isinstance(weight, Tensor)
    shape = [1] * weight.dim()
    shape[layers.input_dim(layer)] = -1
    return weight * factor.to(weight).reshape(shape)


def unseen_by_checkpoints() -> contextlib.AbstractContextManager[None]:
    """For scales and scaled weights, which are made once and used by many layers.

    A part that is checkpointed counts what is saved inside it, and runs once more; what was made on its first way
    and is there already on the second is none of its business.
    """
    return torch.autograd.graph.saved_tensors_hooks(_as_it_is, _as_it_is)


def _as_it_is(tensor: Tensor) -> Tensor:
    return tensor


def scales_weights(module: nn.Module) -> bool:
    """Whether the layer computes what its class says, with a weight of one column per input channel."""
    if "forward" in module.__dict__:  # wrapped by somebody else
        return False
    if layers.is_conv(module):
        return not layers.is_grouped(module) and not layers.is_customized(module)
    return layers.is_linear(module) and not isinstance(module, layers.IndexedLinear)


def gated_weights(model: nn.Module, consumers: Iterable[str]) -> dict[str, str]:
    """Layer -> its weight, of the consumers whose weight may be scaled instead of their input."""
    return {name: f"{name}.weight" for name in consumers if scales_weights(model.get_submodule(name))}


def _cheaper_on_weight(module: nn.Module, args: tuple[Any, ...]) -> bool:
    weight = module._parameters.get("weight")  # none where it is parametrised, that is, computed
    return bool(args) and weight is not None and args[0].numel() > weight.numel()


class Refresh(_Hook):
    """Forward pre-hook of the whole model: one set of scales per forward pass."""

    def __call__(self, _module: nn.Module, _args: tuple[Any, ...]) -> None:
        """Look for changes.

        Raises:
            AttachError: another thread is inside the gated model.
        """
        if self.owner.blocks is not None:
            self.owner.blocks.begin_call()
        self.owner.refresh()


class Done(_Hook):
    """Forward hook of the whole model: the end of what `Refresh` began."""

    def __call__(self, *_args: Any) -> None:
        """Let others in."""
        if self.owner.blocks is not None:
            self.owner.blocks.end_call()


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
        self.owner, self.model, self.names = owner, model, list(names)
        self.handles: list[Any] = []

    def register(self) -> None:
        """Put them on."""
        self.handles.append(self.model.register_forward_pre_hook(Refresh(self.owner)))
        self.handles.append(self.model.register_forward_hook(Done(self.owner), always_call=True))
        self.handles.append(self.model.register_load_state_dict_pre_hook(Loading(self.owner)))
        for name in self.names:
            module = self.model.get_submodule(name)
            whole = scales_weights(module)
            gate = Gate(self.owner, name, scales=not whole)
            self.handles.append(module.register_forward_pre_hook(gate, with_kwargs=True))
            if whole:
                module.__dict__["forward"] = ScaledForward(self.owner, name, module)

    def remove(self) -> None:
        """Take them off; safe to call twice."""
        for handle in self.handles:
            handle.remove()
        self.handles.clear()
        for name in self.names:
            module = self.model.get_submodule(name)
            if isinstance(module.__dict__.get("forward"), ScaledForward):
                del module.__dict__["forward"]
