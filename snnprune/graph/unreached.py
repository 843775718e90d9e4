"""Layers that the example does not reach: experts that are not chosen, branches that are not taken.

Of modules that stand beside each other in a list or dict (`nn.ModuleList`, `nn.ModuleDict`) one takes the place of
another for a pass, so that what they read and make is followed like anything else. Other layers that code of the
model names may read whatever it holds that is as wide as they are, which is therefore kept.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterator
from types import CodeType
from typing import Any

from torch import nn

from .. import layers
from ..errors import first_line
from ..inputs import Inputs
from .walk import Walk

logger = logging.getLogger(__name__)

_ROTATIONS = 64  # passes with other modules in the places of those that run


def follow_unreached(walk: Walk, inputs: Inputs) -> None:
    """Follow what the passes so far have not reached, and keep what it may read.

    Args:
        walk: has followed the model on these inputs.
        inputs: the example.
    """
    if not idle_layers(walk):
        return
    turned = [names for names in _lists(walk) if _waiting(walk, names)]
    for step in range(1, _ROTATIONS + 1):
        waiting = [names for names in turned if step < len(names) and _waiting(walk, names)]
        if not waiting:
            break
        _rotated(walk, waiting, step, inputs)
    doubts = _doubts(walk)
    if doubts:
        _follow(walk, inputs, doubts)
    idle = idle_layers(walk)
    if idle:
        logger.warning(
            "%d layers did not run on the example inputs and stay as they are, such as %s; inputs that take "
            "another way through the model may meet changed widths there",
            len(idle),
            idle[0],
        )


def idle_layers(walk: Walk) -> list[str]:
    """Names of layers with neurons that no pass has reached."""
    own = tuple(f"{name}." for name, module in walk.modules.items() if layers.is_own(module))  # not looked into
    return [
        name
        for name, module in walk.modules.items()
        if layers.is_weighted(module) and not walk.ledger.reached(name) and not name.startswith(own)
    ]


def _lists(walk: Walk) -> Iterator[list[str]]:
    """Names of the modules of every list and dict."""
    for name, module in walk.modules.items():
        if isinstance(module, (nn.ModuleList, nn.ModuleDict)) and len(module) > 1:
            yield [f"{name}.{own}" if name else own for own in module._modules]


def _waiting(walk: Walk, names: list[str]) -> bool:
    """Whether some modules of a list were not reached, and others were."""
    idle = idle_layers(walk)
    missed = [name for name in names if any(layer == name or layer.startswith(f"{name}.") for layer in idle)]
    return len(missed) > 0 and any(name in walk.entered for name in names)


def _rotated(walk: Walk, lists: list[list[str]], step: int, inputs: Inputs) -> None:
    """A pass in which every module of some lists takes the place of the one that lies so many before it."""
    places: list[tuple[Any, str, nn.Module]] = []
    for names in lists:
        owner = walk.modules[names[0].rpartition(".")[0]]
        places += [(owner, name.rpartition(".")[2], walk.modules[name]) for name in names]
        for number, name in enumerate(names):
            own, other = name.rpartition(".")[2], names[(number + step) % len(names)]
            owner._modules[own] = walk.modules[other]
    try:
        _follow(walk, inputs, {})
    finally:
        for owner, own, module in places:
            owner._modules[own] = module


def _follow(walk: Walk, inputs: Inputs, doubts: dict[str, tuple[set[int], str]]) -> None:
    walk.doubts, before = doubts, set(walk.entered)
    try:
        walk.run(inputs)
    except Exception as error:  # what stands beside each other need not fit into each other's place
        walk.entered = before
        logger.info("no pass with other modules (%s: %s)", type(error).__name__, first_line(error))
    finally:
        walk.doubts = {}


def _doubts(walk: Walk) -> dict[str, tuple[set[int], str]]:
    """Module that ran -> widths that layers read which its code names and that did not run, and one of those."""
    found: dict[str, tuple[set[int], str]] = {}
    for name in idle_layers(walk):
        owner, attribute = name, ""
        while owner and owner not in walk.entered:
            owner, _, attribute = owner.rpartition(".")
        if attribute and _named(type(walk.modules[owner]), attribute):
            found.setdefault(owner, (set(), name))[0].add(layers.in_width(walk.modules[name]))
    return found


def _named(cls: type, attribute: str) -> bool:
    """Whether code of a class, its constructor aside, speaks of an attribute, or computes names of such.

    Of a method that a subclass has overridden only what its own calls by `super()` counts.
    """
    over: dict[str, bool] = {}  # name of a method -> whether those of subclasses call the one below
    for base in cls.__mro__:
        if base is nn.Module or base.__module__.startswith("torch.nn."):
            break
        for name, function in vars(base).items():
            code = getattr(inspect.unwrap(function), "__code__", None) if callable(function) else None
            if code is None or not over.get(name, True):
                continue
            names = set(_names(code))
            if name != "__init__" and {attribute, "getattr"} & names:
                return True
            over[name] = "super" in names
    return False


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)
