"""The sizes that a network's code gives to operations, and what each of them has to come to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

from .labels import compress, varying
from .traced import Attribute, Expression, Term, Width

if TYPE_CHECKING:
    from .sizing import Sizes


@dataclass(frozen=True, slots=True)
class Place:
    """Where code gives sizes to an operation.

    Attributes:
        method: of the module's class.
        call: the operation and where its call stands, see `layers.code`.
        text: file and line, for messages.
    """

    method: str
    call: str
    text: str


@dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """One size that the code gave, and what it has to come to.

    Attributes:
        module: name of the module whose code runs.
        place: where, if that code could be another.
        position: of the size among those of the call.
        expression: what was given.
        labels: of a tensor of that size.
        dim: its dimension.
        size: what it was.
        free: whether one size of the call may be left open (-1).
        text: the operation, and file and line, for messages.
        firm: whether the size is known to be wrong when neurons go, if nothing follows; a slice or split that the
            labels were taken through only because of it.
    """

    module: str
    place: Place | None
    position: int
    expression: Expression
    labels: Tensor
    dim: int
    size: int
    free: bool
    text: str
    firm: bool = False


def _given(args: tuple[Any, ...], kwargs: dict[str, Any], at: int, name: str) -> tuple[Any, bool]:
    """Sizes that a call was given, as a sequence or one by one; and whether by position."""
    rest = args[at:]
    if not rest:
        return kwargs.get(name), False
    return (rest[0] if isinstance(rest[0], (tuple, list)) else rest), True


def _noted(
    sizes: Sizes, name: str, given: Any, parts: list[tuple[Tensor, int]], *, positional: bool, firm: bool = False
) -> Iterator[Asked]:
    """The sizes of a call, each with a tensor and the dimension that has to be so long."""
    found = [sizes.walk.labels_of(tensor) for tensor, _ in parts]
    if all(labels is None for labels in found):
        return
    place, text = sizes.place()
    where = sizes.walk.calls[-1][0] if sizes.walk.calls else ""
    free = -1 not in list(given) and name not in ("split", "split_with_sizes")
    if place is not None:
        place = Place(place.method, f"{name}@{place.call}", place.text) if positional else None
    for position, (size, (tensor, dim), labels) in enumerate(zip(given, parts, found, strict=True)):
        if labels is not None and isinstance(size, int) and size != -1:
            yield Asked(
                where, place, position, sizes.credible(size), labels, dim, tensor.shape[dim], free,
                f"{name} in {text}" if text else name, firm,
            )  # fmt: skip


def _view(sizes: Sizes, name: str, args: Any, kwargs: Any, out: Any) -> Iterator[Asked]:
    given, positional = _given(args, kwargs, 1, "size" if name == "view" else "shape")
    if isinstance(out, Tensor) and isinstance(given, (tuple, list)) and len(given) == out.dim():
        yield from _noted(sizes, name, given, [(out, d) for d in range(out.dim())], positional=positional)


def _unflatten(sizes: Sizes, name: str, args: Any, kwargs: Any, out: Any) -> Iterator[Asked]:
    given = args[2] if len(args) > 2 else kwargs.get("sizes")
    dim = args[1] if len(args) > 1 else kwargs.get("dim")
    if not isinstance(given, (tuple, list)) or not isinstance(dim, int) or not isinstance(out, Tensor):
        return
    first = dim % (out.dim() - len(given) + 1)
    parts = [(out, first + i) for i in range(len(given))]
    yield from _noted(sizes, name, given, parts, positional=len(args) > 2)


def split_sizes(sizes: Sizes, name: str, args: Any, kwargs: Any, out: Any) -> Iterator[Asked]:
    """Of a split: every part is as long as what is left of it; an integer is the length of all."""
    named = kwargs.get("split_size_or_sections", kwargs.get("split_size", kwargs.get("split_sizes")))
    given = args[1] if len(args) > 1 else named
    dim = args[2] if len(args) > 2 else kwargs.get("dim", 0)
    if not isinstance(args[0], Tensor) or isinstance(dim, str) or not out:
        return
    dim = dim % args[0].dim()
    if isinstance(given, int):
        if len({part.shape[dim] for part in out}) == 1:
            yield from _noted(sizes, name, [given], [(out[0], dim)], positional=len(args) > 1)
    elif isinstance(given, (tuple, list)):
        uneven = len({part.shape[dim] for part in out}) > 1
        parts = [(part, dim) for part in out]
        yield from _noted(sizes, name, given, parts, positional=len(args) > 1, firm=uneven)


@dataclass(frozen=True, slots=True)
class Slice:
    """A slice whose bounds come from attributes or sizes: of a tensor along one dimension."""

    labels: Tensor
    dim: int
    start: int
    stop: int


def followed_slices(sizes: Sizes, name: str, args: Any, kwargs: Any) -> list[Slice]:
    """The slices of a call along the only dimension with neurons, where it is known where a bound came from."""
    if name not in ("__getitem__", "narrow") or not isinstance(args[0], Tensor):
        return []
    tensor = args[0]
    labels = sizes.walk.labels_of(tensor)
    if labels is None or len(varying(labels)) != 1:
        return []
    own = varying(labels)[0]
    found = []
    for dim, start, stop in _bounds(tensor, name, args, kwargs):
        whole = tensor.shape[dim]
        known = any(isinstance(sizes.credible(n), (Attribute, Width, Term)) for n in (start, stop))
        if dim == own and known and -whole <= start <= whole and -whole <= stop:
            found.append(Slice(labels, dim, start, stop))
    return found


def _bounds(tensor: Tensor, name: str, args: Any, kwargs: Any) -> Iterator[tuple[int, int, int]]:
    """(dimension, start, stop) of every slice of a call."""
    if name == "narrow":
        given = {**dict(zip(("dim", "start", "length"), args[1:], strict=False)), **kwargs}
        dim, start, length = given.get("dim"), given.get("start"), given.get("length")
        if isinstance(dim, int) and isinstance(start, int) and isinstance(length, int):
            yield dim % tensor.dim(), start, start + length
        return
    index = args[1] if isinstance(args[1], tuple) else (args[1],)
    if not all(part is None or part is Ellipsis or isinstance(part, (int, slice)) for part in index):
        return
    dim, named = 0, sum(isinstance(part, (int, slice)) and not isinstance(part, bool) for part in index)
    for part in index:
        if part is Ellipsis:
            dim += tensor.dim() - named
        elif isinstance(part, slice):
            bounds = (
                0 if part.start is None else part.start,
                tensor.shape[dim] if part.stop is None else part.stop,
            )
            if part.step is None and all(isinstance(n, int) for n in bounds):
                yield dim, *bounds
            dim += 1
        elif part is not None:
            dim += 1


def _pick(sizes: Sizes, name: str, args: Any, kwargs: Any, out: Any) -> Iterator[Asked]:
    """Every bound of a slice is the number of elements before it, or, where it counts from the end, behind it."""
    text = sizes.place()[1]
    where = sizes.walk.calls[-1][0] if sizes.walk.calls else ""
    for cut in followed_slices(sizes, name, args, kwargs):
        whole = cut.labels.shape[cut.dim]
        for bound in (cut.start, cut.stop):
            expression, size = sizes.credible(bound), abs(bound)
            if not size or size > whole or (bound == whole and isinstance(expression, int)):
                continue  # what reaches beyond the end is cut off there anyway
            if bound < 0:
                counted = isinstance(expression, Term) and expression.sign == "-" and expression.left == 0
                expression = expression.right if counted else size  # type: ignore[union-attr]
            part = compress(cut.labels.narrow(cut.dim, whole - size if bound < 0 else 0, size))
            yield Asked(where, None, 0, expression, part, cut.dim, size, False, f"slice in {text}", firm=True)


Handler = Callable[[Any, str, Any, Any, Any], Iterator[Asked]]
HANDLERS: dict[str, Handler] = {
    "view": _view,
    "reshape": _view,
    "unflatten": _unflatten,
    "split": split_sizes,
    "split_with_sizes": split_sizes,
    "__getitem__": _pick,
    "narrow": _pick,
}
