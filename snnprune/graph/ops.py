"""What every rule for an operation needs: the store of labels, and how labels combine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from .labels import FIXED, Classes, compress, core, varying


class Store(Protocol):
    """Labels of live tensors; what the rules need of the walk."""

    @property
    def classes(self) -> Classes:
        """Labels and their classes."""
        ...

    @property
    def constraints(self) -> Constraints:
        """What is judged at the end."""
        ...

    def get(self, tensor: Any) -> Tensor | None:
        """Labels of a tensor, or None when no neuron owns any of it."""
        ...

    def macs(self, count: float, labels: Tensor) -> None:
        """Price a product of activations whose result has these labels."""
        ...

    def drawn(self, tensor: Tensor) -> bool:
        """Whether nothing but drawn numbers went into a tensor."""
        ...

    def blank(self, tensor: Any) -> Blank | None:
        """The tensor filled with a number of which this is a part; None where it is of none."""
        ...

    def rows_of(self, weight: Tensor, dim: int) -> Tensor | None:
        """Labels of what a weight of the code's own makes, one per slice along `dim`; or None."""
        ...

    def name_of(self, tensor: Tensor) -> str:
        """Name of a parameter or buffer of the model, or an empty string."""
        ...

    def where(self) -> str:
        """The module that runs, in brackets, for messages."""
        ...

    @property
    def splitting(self) -> bool:
        """Whether the sizes of the split that runs are seen as the code gives them."""
        ...

    def slices(self, dim: int, start: int, stop: int) -> bool:
        """Whether the bounds of the slice that runs are seen as the code gives them."""
        ...


@dataclass(slots=True)
class Blank:
    """A tensor that the code has filled with a number; it belongs to those whose values are written there first.

    Attributes:
        shape: of the whole.
        labels: of the whole, once something was written into a part of it.
    """

    shape: tuple[int, ...]
    labels: Tensor | None = None


@dataclass
class Constraints:
    """Couplings that can only be judged once everything else is known.

    Attributes:
        grids: labels of one dimension that a view or split takes apart; what is kept must stay a
            product of the parts.
        operands: (labels, operand's labels or None, operand's shape, why): a parameter or constant
            that an elementwise operation combines with labelled elements.
    """

    grids: list[Tensor] = field(default_factory=list)
    operands: list[tuple[Tensor, Tensor | None, tuple[int, ...], str]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class OperationCall:
    """One call of an operation, as its rule sees it while a model is followed.

    What a rule returns are labels: whole numbers in the shape of a tensor that say which neuron each element
    belongs to, or None where no neuron owns any (or a list of them, one per result). The methods make them.

    Attributes:
        args: what the operation was called with, in order.
        kwargs: by name.
        out: what it returned.
        func: the operation.
        store: labels of all tensors.

    Example:
        >>> def turned(x: torch.Tensor) -> torch.Tensor:
        ...     return x.flip(1)
        >>> op = torch.library.custom_op("docs::turned", turned, mutates_args=())
        >>> with snnprune.register_operation(op, lambda call: call.moves(lambda x: x.flip(1))) as rule:
        ...     print(rule.name)
        docs::turned
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    out: Any
    func: Any
    store: Store

    def labels(self, tensor: Any = None) -> Tensor | None:
        """Labels of a tensor, of its shape; None when no neuron owns any of it.

        Args:
            tensor: by default the first argument.
        """
        return self.store.get(self.args[0] if tensor is None else tensor)

    def elementwise(self) -> Tensor | None:
        """For a result whose every element depends on the elements at the same place of the arguments alone.

        Arguments are broadcast, and neurons that meet live and die together.
        """
        if not isinstance(self.out, Tensor):
            return None
        flat = [a for a in (*self.args, *self.kwargs.values()) if isinstance(a, Tensor)]
        return combine(self.store, tuple(self.out.shape), flat)

    def moves(self, function: Callable[[Tensor], Tensor], tensor: Any = None) -> Tensor | None:
        """For a result whose elements are those of an argument in other places.

        Args:
            function: what moves them, made of PyTorch's operations; it is called with the labels.
            tensor: the argument; by default the first one.
        """
        labels = self.labels(tensor)
        return None if labels is None else compress(function(labels))

    def reads_across(self, *dims: int, tensor: Any = None) -> Tensor | None:
        """For a result of the shape of an argument that depends on all elements along some dimensions.

        A softmax over positions is one. What is read together becomes one neuron: along channels that is all of
        them, so that they stay.

        Args:
            dims: the dimensions.
            tensor: the argument; by default the first one.
        """
        labels = self.labels(tensor)
        if labels is None:
            return None
        return read_together(self.store, labels, dims, f"{operation(self.func)} reads across its channels")

    def keep(self, why: str) -> None:
        """For a result that depends on everything: all neurons of all arguments stay.

        Args:
            why: as a half sentence for the reason of the group.
        """
        for part in tree_leaves((self.args, self.kwargs)):
            if isinstance(part, Tensor) and (labels := self.labels(part)) is not None:
                self.store.classes.pin(labels, f"{why}{self.store.where()}")


Rule = Callable[[OperationCall], Any]


@dataclass(frozen=True, slots=True)
class OperationRule:
    """A rule in the table, and what it is for.

    Attributes:
        rule: what labels the results.
        name: of the operation, with its namespace, or of an autograd function.
        place: file and line where a user has registered it; empty for PyTorch's operations.
    """

    rule: Rule
    name: str
    place: str = ""

    @property
    def own(self) -> bool:
        """Whether a user has registered it."""
        return bool(self.place)


OPERATIONS: dict[
    Any, OperationRule
] = {}  # by name with its namespace, such as aten::add; autograd functions by class


def rule_of(*names: str) -> Callable[[Rule], Rule]:
    """A decorator that enters a rule for PyTorch's operations; names without a namespace are those of aten."""

    def enter_all(rule: Rule) -> Rule:
        for name in names:
            full = name if "::" in name else f"aten::{name}"
            OPERATIONS[full] = OperationRule(rule, full)
        return rule

    return enter_all


def combine(store: Store, shape: tuple[int, ...], operands: list[Any]) -> Tensor | None:
    """Labels of an elementwise result.

    Drawn numbers ask for nothing: masks and noise mostly have the size of what they meet. Where their size is a
    number in the code the removed model fails, and the proof keeps the group.
    """
    tensors = [t for t in operands if isinstance(t, Tensor)]
    labelled = [(t, labels) for t in tensors if (labels := store.get(t)) is not None]
    if not labelled:
        return None
    solid = [(t, labels) for t, labels in labelled if not store.classes.is_raw(labels)] or labelled[:1]
    chosen = {id(t) for t, _ in solid}
    solid.sort(key=lambda pair: -len(varying(pair[1])))
    result = compress(solid[0][1].expand(shape))
    for tensor, labels in solid[1:]:
        size = extent(tensor, len(shape))
        if not varying(labels) and varying(result) and all(size[d] == 1 for d in varying(result)):
            store.classes.pin(labels, "it is broadcast over other channels")
            continue
        other = compress(labels.expand(shape))
        store.classes.unite(core(result), core(other))
        if bool((core(result) == 0).any()):
            result = compress(torch.maximum(result, other))
    for tensor in tensors:
        if id(tensor) in chosen or tensor.numel() <= 1 or store.drawn(tensor):
            continue
        size = extent(tensor, len(shape))
        if any(size[d] > 1 for d in varying(result)):
            labels = store.get(tensor)
            raw = None if labels is None else compress(labels.expand(shape))
            store.constraints.operands.append((result, raw, size, fixed_by(store, tensor)))
    return result


def fixed_by(store: Store, tensor: Tensor) -> str:
    """How to speak of a tensor that no layer made."""
    name = store.name_of(tensor)
    if name:
        return f"the parameter {name!r} outside a layer holds its channels"
    return FIXED


def extent(tensor: Tensor, dims: int) -> tuple[int, ...]:
    """Sizes of a tensor seen with so many dimensions; 1 where it was only expanded."""
    own = (n if tensor.stride(d) else 1 for d, n in enumerate(tensor.shape))
    return (1,) * (dims - tensor.dim()) + tuple(own)


def combine_labels(store: Store, shape: tuple[int, ...], labels: Tensor, other: Tensor) -> Tensor:
    """Labels of an elementwise result of which one side is known by its labels alone."""
    theirs = store.get(other)
    if theirs is not None:
        theirs = compress(theirs.expand(shape))
        if store.classes.is_raw(theirs):
            size = extent(other, len(shape))
            store.constraints.operands.append((labels, theirs, size, fixed_by(store, other)))
        else:
            store.classes.unite(core(labels), core(theirs))
    return labels


def read_together(store: Store, labels: Tensor, dims: Any, why: str) -> Tensor:
    """Unite what is read together along some dimensions."""
    return store.classes.along(labels, dims, f"{why}{store.where()}")


def operation(func: Any) -> str:
    """Name of an operation, without PyTorch's own namespace; of an autograd function, that of its class."""
    return func.__name__ if isinstance(func, type) else func._schema.name.removeprefix("aten::")
