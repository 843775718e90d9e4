"""The door for operations, and the one place where a rule is looked up.

Operations that only move elements are run on the labels themselves. Elementwise operations unite the
labels that meet. What reads several elements at once (a sum, a norm, a product of activations) unites
the labels that it reads: they form one coarser neuron, such as a head of attention. An operation without
a rule keeps everything that it touches.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch

from .. import macs as counting
from ..errors import ConfigError
from ..registrations import Registration
from ..shown import brief_repr
from . import elementwise as _elementwise
from . import kernels as _kernels
from . import moves as _moves
from . import reads as _reads
from . import writes as _writes
from .ops import OPERATIONS, OperationCall, OperationRule, Rule

_BUILT_IN = (_elementwise, _kernels, _moves, _reads, _writes)  # importing them fills the table
_CURE = (
    "Give an operation (torch.ops.mylib.shift, what torch.library.custom_op returned, its name 'mylib::shift') or "
    "a subclass of torch.autograd.Function. What a plain function calls is followed by itself"
)


def register_operation(
    operation: Any,
    rule: Rule | str | None = None,
    *,
    macs: Callable[..., float] | None = None,
) -> Registration:
    """Say what an operation of your own does to channels, so that models which call it can be pruned.

    Without a rule an operation keeps all neurons whose values it sees. Functions made of PyTorch's operations need
    none. The rule is proved by numbers, like everything else: a group that a wrong one leads to is kept whole, and
    its reason names the rule. It holds in the whole process, until it is removed. The same line of a file that is
    loaded twice replaces its own rule.

    Args:
        operation: one of the dispatcher, such as `torch.ops.mylib.shift`, what `torch.library.custom_op` returned,
            or its name `mylib::shift`; or a subclass of `torch.autograd.Function`, whose forward is then not
            looked into.
        rule: `elementwise` where each element of the result depends on the elements at its own place alone; or a
            function of an `OperationCall` that returns the labels of the result. None gives a price alone.
        macs: what a call costs, in multiply-adds of the whole batch: a function of its result, and then of what it
            was called with. Without one nothing is counted. Not for autograd functions, whose inner operations
            count.

    Returns:
        The registration, by which the rule can be removed; it is a context manager.

    Raises:
        ConfigError: it is no operation, has a rule already, or neither a rule nor a price is given.

    Example:
        >>> def shifted(x: torch.Tensor) -> torch.Tensor:
        ...     return (x + 3).clamp(0, 6)
        >>> shift = torch.library.custom_op("docs::shift", shifted, mutates_args=())
        >>> rule = snnprune.register_operation(shift, "elementwise")
        >>> rule.remove()
    """
    key, name = _key_of(operation)
    if rule is None and macs is None:
        raise ConfigError(f"{name}: give a rule, a price (macs), or both.")
    if rule is not None and rule != "elementwise" and not callable(rule):
        raise ConfigError(
            f"{name}: rule={brief_repr(rule)} must be 'elementwise' or a function of an OperationCall."
        )
    if macs is not None and (isinstance(key, type) or not callable(macs)):
        why = "an autograd function is counted by what it calls" if isinstance(key, type) else "it is no function"
        raise ConfigError(f"{name}: macs={brief_repr(macs)} cannot be: {why}.")
    frame = sys._getframe(1)
    place = f"{frame.f_code.co_filename}:{frame.f_lineno}"
    known = OPERATIONS.get(key)
    if rule is not None and known is not None and known.place != place:
        raise ConfigError(
            f"{name} has a rule already. Take that one out first (remove() of what registering it returned)."
        )
    free = None if macs is None else counting.add_formula(name, macs, place)
    mine = None
    if rule is not None:
        given = OperationCall.elementwise if isinstance(rule, str) else rule
        mine = OPERATIONS[key] = OperationRule(given, name, place)

    def undo() -> None:
        if free is not None:
            free()
        if mine is not None and OPERATIONS.get(key) is mine:
            del OPERATIONS[key]

    return Registration(name, undo)


def _key_of(given: Any) -> tuple[Any, str]:
    """The key of an operation in the table, and its name.

    Raises:
        ConfigError: it is none.
    """
    if (
        isinstance(given, type)
        and issubclass(given, torch.autograd.Function)
        and given is not torch.autograd.Function
    ):
        return given, given.__name__
    name = given
    if type(given).__name__ == "CustomOpDef":  # what torch.library.custom_op returns
        name = getattr(given, "_qualname", None)
    elif isinstance(given, torch._ops.OpOverload):
        name = given._schema.name
    elif isinstance(given, torch._ops.OpOverloadPacket):
        name = given._qualified_op_name
    if not isinstance(name, str) or name.count("::") != 1:
        raise ConfigError(f"{brief_repr(given)} is no operation that calls can be told by. {_CURE}.")
    space, _, own = name.partition("::")
    if getattr(getattr(torch.ops, space), own, None) is None:
        raise ConfigError(f"there is no operation {name!r} here. Import what defines it first.")
    return name, name


def rule_for(func: Any) -> OperationRule | None:
    """The rule of an operation, by its name and tags; None when there is none."""
    if isinstance(func, type):
        return OPERATIONS.get(func)
    name = func._schema.name
    found = OPERATIONS.get(name) or OPERATIONS.get(name.rstrip("_"))
    if found is None and torch.Tag.pointwise in {*func.tags, *_functional(func).tags}:
        found = OperationRule(OperationCall.elementwise, name)
    return found


@contextlib.contextmanager
def functions_through(handle: Callable[..., Any]) -> Iterator[None]:
    """Hand the calls of autograd functions with a rule to somebody, for the length of a `with` block.

    Args:
        handle: is given the class, its forward, the arguments of forward, and those of the call among them; it
            returns what forward would.
    """
    with contextlib.ExitStack() as stack:
        for cls in [key for key in OPERATIONS if isinstance(key, type)]:
            stack.enter_context(_replaced_forward(cls, handle))
        yield


@contextlib.contextmanager
def _replaced_forward(cls: Any, handle: Callable[..., Any]) -> Iterator[None]:
    forward, own = cls.forward, cls.__dict__.get("forward")
    plain = cls.setup_context is not torch.autograd.Function.setup_context  # its forward is not given a context

    def instead(*given: Any) -> Any:
        return handle(cls, forward, given, given if plain else given[1:])

    cls.forward = staticmethod(instead)
    try:
        yield
    finally:
        if own is None:
            del cls.forward
        else:
            cls.forward = own


def _functional(func: Any) -> Any:
    """The operation of which this one is the in-place form; not all of those carry its tags."""
    space, _, own = func._schema.name.partition("::")
    base = getattr(torch.ops.aten, own.rstrip("_"), None) if space == "aten" else None
    return getattr(base, func._overloadname, func)
