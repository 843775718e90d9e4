"""Sizes that a module's code computes: calls of `view` and its like that take other numbers instead.

Where no attribute holds a size (`C // num_heads`, `view(-1, 512)`), a module whose neurons go is given a class
that derives from its own, whose methods are compiled from the same source but for the calls in question: these ask
the module for the numbers. Parameters, buffers and names stay; the numbers lie in the attribute `_cut_sizes`.
"""

from __future__ import annotations

import ast
import functools
import inspect
import linecache
import re
from collections.abc import Iterable, Iterator, Mapping
from types import CodeType, FunctionType
from typing import Any

from torch import Tensor, nn

from ..errors import StructureError

_PLACE = re.compile(r"\w{1,200}/(\w{1,50})@(\d{1,6})\.(\d{1,6})-(\d{1,6})\.(\d{1,6})", re.ASCII)
_SIZED = ("view", "reshape", "unflatten", "split", "split_with_sizes")  # what takes sizes, as `graph.asked` sees
_SIZES = "_cut_sizes"  # attribute: method and call -> position -> number


class OpenSizes:
    """A module some of whose calls take their sizes from `_cut_sizes`."""

    def _cut_call(self, call: str, *given: Any) -> tuple[Any, ...]:
        """The positional arguments of a call with other sizes in them."""
        values: dict[int, int] = self.__dict__[_SIZES][call]
        operation = call.partition("/")[2].partition("@")[0]
        first = int(isinstance(given[0], Tensor)) + (operation == "unflatten")
        before, rest = given[:first], given[first:]
        if isinstance(rest[0], (tuple, list)):
            return (*before, [values.get(i, n) for i, n in enumerate(rest[0])], *rest[1:])
        if operation in ("split", "split_with_sizes"):
            return (*before, values.get(0, rest[0]), *rest[1:])
        return (*before, *(values.get(i, n) for i, n in enumerate(rest)))

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Pickled and copied by the class that it derives from."""
        _, (_, *args), *rest = super().__reduce_ex__(protocol)
        return _made, (type(self).__mro__[2], tuple(self.__dict__[_SIZES]), *args), *rest


def _made(cls: type, calls: tuple[str, ...], *args: Any) -> Any:
    opened = _open_class(cls, frozenset(calls))
    return opened.__new__(opened, *args)


@functools.cache
def _methods(cls: type) -> dict[CodeType, tuple[str, int]]:
    """Code of the plain methods that a class has, and of what is defined in them -> name, and first line."""
    found: dict[CodeType, tuple[str, int]] = {}
    for name in dir(cls):
        value = inspect.getattr_static(cls, name, None)
        if isinstance(value, FunctionType):
            for code in _all_code(value.__code__):
                found.setdefault(code, (name, value.__code__.co_firstlineno))
    return found


def _all_code(code: CodeType) -> Iterator[CodeType]:
    """A code object, and those of the functions and comprehensions within."""
    yield code
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield from _all_code(inner)


def method_of(cls: type, code: CodeType) -> tuple[str, int] | None:
    """The method of a user's class that code belongs to, and its first line; None for code of something else."""
    return None if _original(cls).__module__.startswith("torch.nn.") else _methods(cls).get(code)


def can_take(cls: type, calls: Iterable[str]) -> bool:
    """Whether the source of some calls is at hand, so that they can take other sizes."""
    try:
        _open_class(_original(cls), frozenset(calls))
    except StructureError:
        return False
    return True


def set_sizes_(module: nn.Module, sizes: Mapping[str, Mapping[int, int]]) -> None:
    """Let some calls in a module's code take other sizes, in place.

    Args:
        module: the module.
        sizes: `method/operation@place` -> position of a size -> the number.

    Raises:
        StructureError: the source of such a call is not at hand, or another one than before.
    """
    have: dict[str, dict[int, int]] = {k: dict(v) for k, v in module.__dict__.get(_SIZES, {}).items()}
    for call, values in sizes.items():
        have.setdefault(call, {}).update(values)
    module.__class__ = _open_class(_original(type(module)), frozenset(have))
    module.__dict__[_SIZES] = have


def sizes_of(module: nn.Module) -> dict[str, dict[int, int]]:
    """The sizes that calls in a module's code take instead of their own."""
    return module.__dict__.get(_SIZES, {})


def _original(cls: type) -> type:
    return cls.__mro__[2] if issubclass(cls, OpenSizes) else cls


@functools.cache
def _open_class(cls: type, calls: frozenset[str]) -> type:
    """The class of modules whose calls take other sizes."""
    by_method: dict[str, list[str]] = {}
    for call in sorted(calls):
        by_method.setdefault(call.partition("/")[0], []).append(call)
    methods = {name: _edited(cls, name, own) for name, own in by_method.items()}
    space = {**methods, "__module__": cls.__module__, "__qualname__": cls.__qualname__, "__doc__": cls.__doc__}
    return type(cls.__name__, (OpenSizes, cls), space)


def _edited(cls: type, name: str, calls: list[str]) -> FunctionType:
    """A method whose calls at some places ask the module for their sizes."""
    function = inspect.getattr_static(cls, name, None)
    where = f"{cls.__module__}.{cls.__qualname__}.{name}"
    if not isinstance(function, FunctionType) or not function.__code__.co_argcount:
        raise StructureError(
            f"{where} is no method, but sizes in it were recorded. Give the class that was pruned."
        )
    old = function.__code__
    text = _text(old.co_filename)
    new = None if text is None else _twin(_compiled(text, old.co_filename), old)
    if text is None or new is None or (new.co_code, new.co_names) != (old.co_code, old.co_names):
        raise StructureError(f"the source of {where} is not at hand, or was changed since it was loaded.")
    wanted = {_absolute(call, old.co_firstlineno): call for call in calls}
    change = _Change(wanted, old.co_varnames[0])
    tree = ast.fix_missing_locations(change.visit(ast.parse(text)))
    if len(change.found) < len(wanted):
        raise StructureError(
            f"{where} is not the code that was pruned: a call whose sizes were recorded is not there. Use the "
            "same version of it."
        )
    code = _twin(compile(tree, old.co_filename, "exec", dont_inherit=True), old)
    assert code is not None, where
    return _with_code(function, code)


class _Change(ast.NodeTransformer):
    """Lets calls at some places ask for their positional arguments.

    Args:
        wanted: (first line, column, last line, column) -> name of the call.
        module: the name that the method has for its module.
    """

    def __init__(self, wanted: Mapping[tuple[int, int, int, int], str], module: str) -> None:
        self.wanted, self.module = wanted, module
        self.found: set[str] = set()

    def visit_Call(self, node: ast.Call) -> ast.Call:
        """One call."""
        self.generic_visit(node)
        end = node.end_lineno or 0, node.end_col_offset or 0
        call, function = self.wanted.get((node.lineno, node.col_offset, *end)), node.func
        if call is None and isinstance(
            function, ast.Attribute
        ):  # of a method on another line the name is the begin
            start = function.end_lineno or 0, (function.end_col_offset or 0) - len(function.attr)
            call = self.wanted.get((*start, *end))
        if isinstance(function, ast.Attribute) and f"/{function.attr}@" not in (call or ""):
            return node  # another operation than the one that was seen there
        if call is not None and call not in self.found:
            self.found.add(call)
            ask = ast.Attribute(ast.Name(self.module, ast.Load()), "_cut_call", ast.Load())
            sizes = ast.Call(ask, [ast.Constant(call), *node.args], [])
            node.args = [ast.Starred(sizes, ast.Load())]
        return node


def _absolute(call: str, first: int) -> tuple[int, int, int, int]:
    """Line and column of a call's begin and end."""
    found = _PLACE.fullmatch(call)
    if found is None or found[1] not in _SIZED:
        raise StructureError(f"{call[:100]!r} names no call in a module's code.")
    line, column, last, stop = map(int, found.groups()[1:])
    return line + first, column, last + first, stop


def _text(file: str) -> str | None:
    """The source of a file as it is now."""
    linecache.checkcache(file)
    return "".join(linecache.getlines(file)) or None


@functools.lru_cache(16)
def _compiled(text: str, file: str) -> CodeType | None:
    try:
        return compile(text, file, "exec", dont_inherit=True)
    except SyntaxError:
        return None


def _twin(whole: CodeType | None, old: CodeType) -> CodeType | None:
    """The code in a file's that stands where a method's stood when it was loaded."""
    if whole is None:
        return None
    key = (old.co_firstlineno, old.co_qualname)
    return next((code for code in _all_code(whole) if (code.co_firstlineno, code.co_qualname) == key), None)


def _with_code(function: FunctionType, code: CodeType) -> FunctionType:
    """A method with other code, in the same module and closure."""
    cells = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))
    closure = tuple(cells[name] for name in code.co_freevars)
    new = FunctionType(code, function.__globals__, function.__name__, function.__defaults__, closure or None)
    for name in (*functools.WRAPPER_ASSIGNMENTS, "__kwdefaults__"):
        setattr(new, name, getattr(function, name))
    return new
