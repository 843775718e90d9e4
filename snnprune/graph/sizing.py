"""Calls as a network's code makes them, where an integer still knows its origin.

Below autograd a size is a plain number. So what is called is also seen above, while the attributes and sizes that
the code computes with are numbers that remember (`traced`).
"""

from __future__ import annotations

import sys
from types import CodeType, FrameType
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils._pytree import tree_leaves

from ..layers.code import method_of
from .asked import HANDLERS, Asked, Place, Slice, followed_slices, split_sizes
from .traced import Attribute, Expression, Notes, Number, Width, expression_of, leaves

_VALUES = frozenset(
    {"mul", "div", "true_divide", "add", "sub", "rsub", "pow", "multiply", "divide", "floor_divide"}
)
_SHAPE = (Tensor.shape.__get__, Tensor.size)  # type: ignore[attr-defined]


class Follower(Protocol):
    """What this module needs of the walk."""

    model: nn.Module

    def labels_of(self, tensor: Any) -> Tensor | None:
        """Labels that a tensor has already."""
        ...

    def name_of(self, tensor: Any) -> str:
        """Name of a parameter, or an empty string."""
        ...

    @property
    def busy(self) -> bool:
        """Whether a layer runs that is handled as a whole."""
        ...

    @property
    def calls(self) -> list[tuple[str, int]]:
        """Modules that run, outermost first: name, and number of the call."""
        ...


class Sizes(TorchFunctionMode):
    """Gives out sizes that remember their tensors, and notes the sizes that are asked for."""

    def __init__(self, walk: Follower) -> None:
        super().__init__()
        self.walk, self.notes = walk, Notes()
        self.asked: list[Asked] = []
        self.plain: dict[Attribute, int] = {}
        self.splitting = False  # whether the sizes of a split that runs are noted
        self.slices: list[Slice] = []  # those of the call that runs whose bounds are noted
        self._names = {id(module): name for name, module in walk.model.named_modules()}

    def number(self, module: nn.Module, path: str, value: int) -> int:
        """An integer of a module as a number that knows its attribute."""
        origin = Attribute(self._names[id(module)], path)
        self.plain[origin] = value
        return Number(value, origin, self.notes)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run a function as the code calls it."""
        kwargs = kwargs or {}
        if self.walk.busy:
            return func(*args, **kwargs)
        if func in _SHAPE and isinstance(args[0], Tensor):
            return self._shape(args[0], func(*args, **kwargs), args, kwargs)
        name = getattr(func, "__name__", "").strip("_").removeprefix("i").removesuffix("_")
        if name in _VALUES:
            for part in tree_leaves((args, kwargs)):
                if isinstance(part, Number):
                    self.notes.valued(part.origin)
        handle = HANDLERS.get(getattr(func, "__name__", ""))
        if handle is None:
            return func(*args, **kwargs)
        self.splitting, self.slices = handle is split_sizes, followed_slices(self, func.__name__, args, kwargs)
        try:
            out = func(*args, **kwargs)
        finally:
            self.splitting, self.slices = False, []
        with _disable_current_modes():
            self.asked += list(handle(self, func.__name__, args, kwargs, out))
        return out

    def _shape(self, tensor: Tensor, out: Any, args: Any, kwargs: Any) -> Any:
        labels = self.walk.labels_of(tensor)
        if labels is None and self.walk.name_of(tensor):
            return out  # a parameter, which may get its labels later
        call = self.walk.calls[-1][1] if self.walk.calls else 0
        if isinstance(out, int):
            dim = kwargs.get("dim", args[1] if len(args) > 1 else 0) % max(1, tensor.dim())
            return Number(out, Width(labels, dim, out, call), self.notes)
        return torch.Size([Number(n, Width(labels, d, n, call), self.notes) for d, n in enumerate(out)])

    def credible(self, value: Any) -> Expression:
        """Where a size came from, if it was read in a call that is still going on; else it is a plain number.

        What libraries have cached (einops, for one) may remember another module's.
        """
        expression = expression_of(value)
        names = {name for name, _ in self.walk.calls}
        numbers = {number for _, number in self.walk.calls}
        for leaf in leaves(expression):
            if isinstance(leaf, Width):
                good = leaf.call in numbers
            else:
                good = leaf.module in names or leaf.module.rpartition(".")[0] in names
            if not good:
                return int(value)
        return expression

    def place(self) -> tuple[Place | None, str]:
        """Where the code is that made the call, and in words."""
        if not self.walk.calls:
            return None, ""
        module = self.walk.model.get_submodule(self.walk.calls[-1][0])
        frame: FrameType | None = sys._getframe(2)
        while frame is not None and _within(frame):
            frame = frame.f_back
        if frame is None:
            return None, ""
        text = f"{frame.f_code.co_filename.rpartition('/')[2]}:{frame.f_lineno}"
        method = method_of(type(module), frame.f_code)
        at = "" if method is None else _position(frame.f_code, frame.f_lasti, method[1])
        return (Place(method[0], at, text) if method and at else None), text


def _within(frame: FrameType) -> bool:
    name = str(frame.f_globals.get("__name__", ""))
    return name == "torch" or name.startswith(("torch.", "snnprune."))


def _position(code: CodeType, instruction: int, first: int) -> str:
    """Where a call stands, in lines from the first of its method on, and columns."""
    for number, where in enumerate(code.co_positions()):
        if number == instruction // 2 and None not in where:
            line, last, column, end = where
            return f"{line - first}.{column}-{last - first}.{end}"  # type: ignore[operator]
    return ""
