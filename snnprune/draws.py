"""Random numbers of a network's forward, the same in every form of it that is compared.

Dropout that is always on, noise, samples of a distribution or masks make the outputs random, so a gated and a
removed model agree only where both draw the same. One seed for both is not enough: noise of the size of
pruned channels has fewer numbers in the removed model, and whatever is drawn next is shifted. So

- every call of a random operation has a seed of its own, made of its place in the order of calls;
- where the two forms draw a different number of values along a dimension, both draw one value for all of
  that dimension: which channel of the one is which of the other cannot be seen from here, and the outputs have
  to agree for any numbers, these included.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from . import streams

_T = TypeVar("_T")
_Made = list[tuple[str, tuple[int, ...]]]

_GOLDEN = 0.6180339887498949  # its multiples leave no wide gap in [0, 1), however few they are
_MANY = 4096  # more numbers than that are spread well enough by themselves

# Operations that compare numbers of [0, 1) with a chance, or give them.
_CHANCES = {"bernoulli", "native_dropout", "rand", "rand_like", "uniform"}
# Other operations whose result is nothing but drawn numbers of a shape: from the shape, or from a tensor of it.
_FILLS = {
    "cauchy",
    "exponential",
    "geometric",
    "log_normal",
    "normal",
    "randint",
    "randint_like",
    "randn",
    "randn_like",
    "random",
}
_OTHERS = {
    "_fused_dropout",
    "_sample_dirichlet",
    "_standard_gamma",
    "binomial",
    "multinomial",
    "poisson",
    "randperm",
    "rrelu_with_noise",
}


def _name(func: Any) -> str:
    return func._schema.name.split("::")[-1].rstrip("_")


def is_random(func: Any) -> bool:
    """Whether an operation draws random numbers."""
    name = _name(func)
    return name in _CHANCES or name in _FILLS or name in _OTHERS


class Draws:
    """The draws of one comparison.

    Args:
        seed: of all of them.

    Attributes:
        made: what the last run drew: the operations and the shapes of what they gave.
    """

    def __init__(self, seed: int = 0) -> None:
        self.made: _Made = []
        self._seed = seed
        self._agreed: list[tuple[int, ...]] = []

    def run(self, function: Callable[[], _T]) -> _T:
        """What a function returns under these draws; the caller's own streams do not move."""
        mode = _Mode(self._seed, self._agreed)
        with streams.kept():
            streams.seed_all(self._seed)  # for what is drawn by other means than operations
            with mode:
                found = function()
        self.made = mode.made
        return found

    def both(self, first: Callable[[], _T], second: Callable[[], _T]) -> tuple[_T, _T]:
        """What two forms of one network return when they draw the same."""
        left, made = self.run(first), self.made
        right = self.run(second)
        agreed = _agreed(made, self.made)
        if not agreed:
            return left, right
        self._agreed = agreed
        return self.run(first), self.run(second)


def _agreed(left: _Made, right: _Made) -> list[tuple[int, ...]]:
    """The shapes that are drawn where two forms differ: 1 along what differs. Empty where all is the same already.

    Forms that do not draw in the same places cannot be brought together: they draw as they do, and differ.
    """
    same_places = [(name, len(shape)) for name, shape in left] == [(name, len(shape)) for name, shape in right]
    if left == right or not same_places:
        return []
    pairs = [(a, b) for (_, a), (_, b) in zip(left, right, strict=True)]
    return [tuple(n if n == m else 1 for n, m in zip(a, b, strict=True)) for a, b in pairs]


class _Mode(TorchDispatchMode):
    def __init__(self, seed: int, agreed: list[tuple[int, ...]]) -> None:
        super().__init__()
        self.made: _Made = []
        self._seed, self._agreed = seed, agreed

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if not is_random(func):
            return func(*args, **kwargs)
        # A generator of the model's own would go on from one run to the next; all draw from the seeded stream.
        args = tuple(None if isinstance(value, torch.Generator) else value for value in args)
        kwargs = {key: None if key == "generator" else value for key, value in kwargs.items()}
        place = len(self.made)
        streams.seed_torch(streams.seed_of(self._seed, place))
        out = func(*args, **kwargs)
        shape = tuple((out[0] if isinstance(out, tuple) else out).shape)
        self.made.append((func._schema.name, shape))
        size = self._agreed[place] if place < len(self._agreed) else shape
        if len(size) != len(shape):
            size = shape
        streams.seed_torch(streams.seed_of(self._seed, place))
        if _name(func) in _CHANCES:
            return _by_chance(func, args, kwargs, out, _even(size, self._seed, place))
        if size == shape or _name(func) not in _FILLS or not isinstance(out, Tensor):
            return out  # what draws by weights or ranks cannot be drawn in another size
        return out.copy_(_filled(func, args, kwargs, out, size))


def _even(size: tuple[int, ...], seed: int, place: int) -> Tensor:
    """Numbers of [0, 1) that are spread evenly, over the elements as well as over neighbouring seeds.

    A mask of a few elements, one per input say, would else drop all of them now and then: whatever is read behind
    it would go unproved.
    """
    count = math.prod(size)
    if count > _MANY:
        return torch.rand(size, dtype=torch.float64)
    shift = streams.seed_of("shift", place) / 2**64 + seed * _GOLDEN
    return ((torch.randperm(count).double() / max(1, count) + shift) % 1).reshape(size)


def _by_chance(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any, even: Tensor) -> Any:
    """The result of an operation that compares or scales numbers of [0, 1), made of these."""
    name = _name(func)
    if name == "native_dropout":
        x, rate, on = args[:3]
        if on is False:
            return out
        mask = (even.to(x.device) >= rate).expand(x.shape).clone()
        return x * mask / max(1 - rate, 1e-9), mask
    even = even.to(out.device)
    if name == "bernoulli":
        chance = args[0] if func._overloadname in ("default", "out") else [*args, kwargs.get("p", 0.5)][1]
        return out.copy_(even < chance)
    if name == "uniform":
        low = [*args, kwargs.get("from", 0.0)][1]
        high = args[2] if len(args) > 2 else kwargs.get("to", 1.0)
        return out.copy_(low + (high - low) * even)
    return out.copy_(even)


def _filled(
    func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor, size: tuple[int, ...]
) -> Tensor:
    """What an operation draws for a tensor of another size, which broadcasts to that of `out`."""
    if _name(func) == "normal" and any(isinstance(value, Tensor) and value is not out for value in args[:2]):
        mean, deviation = args[:2]
        return torch.randn(size, dtype=out.dtype, device=out.device) * deviation + mean

    def smaller(value: Any) -> Any:
        if isinstance(value, Tensor):
            return value.new_empty(size) if value.shape == out.shape else value
        return list(size) if isinstance(value, (list, tuple)) and tuple(value) == tuple(out.shape) else value

    return func(*map(smaller, args), **{key: smaller(value) for key, value in kwargs.items()})
