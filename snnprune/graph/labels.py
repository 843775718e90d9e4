"""Which neuron every element of every tensor belongs to: labels, and classes of labels.

A label is a positive integer; 0 marks elements that no neuron owns (inputs, constants). A tensor's
labels are an integer tensor of its shape, in which a dimension along which nothing changes has stride
0, so that labels stay small however large the activation is. Labels that must live or die together are
put into one class (union-find).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

FIXED = "it meets padding, or channels whose number is a constant in the code"


def compress(labels: Tensor) -> Tensor:
    """The same labels with stride 0 along every dimension in which they do not change."""
    for dim in range(labels.dim()):
        if labels.shape[dim] > 1 and labels.stride(dim):
            first = labels.narrow(dim, 0, 1)
            if bool((labels == first).all()):
                labels = first.expand_as(labels)
    return labels


def varying(labels: Tensor) -> tuple[int, ...]:
    """Dimensions along which compressed labels change."""
    return tuple(d for d in range(labels.dim()) if labels.shape[d] > 1 and labels.stride(d))


def core(labels: Tensor) -> Tensor:
    """Compressed labels with every constant dimension cut to length 1."""
    for dim in range(labels.dim()):
        if labels.shape[dim] > 1 and not labels.stride(dim):
            labels = labels.narrow(dim, 0, 1)
    return labels


def spread(labels: Tensor, dim: int, shape: Sequence[int]) -> Tensor:
    """(n,) labels along one dimension of a tensor of the given shape."""
    view = [1] * len(shape)
    view[dim] = len(labels)
    return compress(labels.reshape(view).expand(*shape))


class Classes:
    """Labels and which of them live and die together."""

    def __init__(self) -> None:
        self._parent = np.zeros(1, dtype=np.int64)
        self._raw = np.zeros(1, dtype=bool)
        self._made = np.zeros(1, dtype=bool)  # of parameters that make neurons
        self._pins: list[tuple[np.ndarray, str]] = []
        self._merges: list[tuple[np.ndarray, str]] = []

    def new(self, count: int, *, raw: bool = False) -> Tensor:
        """Fresh labels, (count,); `raw` ones belong to parameters outside the known layers."""
        start = len(self._parent)
        fresh = np.arange(start, start + count)
        self._parent = np.concatenate([self._parent, fresh])
        self._raw = np.concatenate([self._raw, np.full(count, raw)])
        self._made = np.concatenate([self._made, np.full(count, False)])
        return torch.from_numpy(fresh)

    def known(self, labels: object) -> bool:
        """Whether something is a tensor of labels that were given out, or of zeros."""
        if not isinstance(labels, Tensor) or labels.dtype != torch.int64:
            return False
        small = core(compress(labels))
        return not small.numel() or (int(small.min()) >= 0 and int(small.max()) < len(self._parent))

    def is_raw(self, labels: Tensor) -> bool:
        """True when no label of the tensor came out of a layer, or of a parameter that makes neurons like one."""
        ids = core(labels).numpy()
        return bool((self._raw[ids] & ~self._made[ids]).all())

    def of_parameters(self, labels: Tensor) -> bool:
        """True when all labels of the tensor are of parameters outside layers."""
        return bool(self._raw[core(labels).numpy()].all())

    def make(self, labels: Tensor) -> None:
        """Count labels of a parameter among those of layers: it makes neurons, as a layer's weight does."""
        self._made[core(labels).numpy()] = True

    def roots(self, labels: Tensor | np.ndarray) -> np.ndarray:
        """One representative per class, in the shape of the labels; 0 stays 0."""
        ids = np.asarray(labels)
        found = self._parent[ids]
        while True:
            up = self._parent[found]
            if np.array_equal(up, found):
                break
            found = up
        self._parent[ids] = found
        return found

    def unite(
        self, left: Tensor | np.ndarray, right: Tensor | np.ndarray, why: str = "", *, fixed: str = FIXED
    ) -> None:
        """Put labels pairwise into one class. Where one side is 0, the other's place is fixed: it is kept.

        Args:
            left: labels.
            right: labels of a shape that broadcasts with it.
            why: what couples them, if it reads across channels.
            fixed: why a neuron is kept whose partner is 0.
        """
        a, b = np.broadcast_arrays(np.asarray(left), np.asarray(right))
        a, b = a.ravel(), b.ravel()
        differ = a != b
        a, b = a[differ], b[differ]
        if not len(a):
            return
        lone = (a == 0) | (b == 0)
        if lone.any():
            self.pin(np.maximum(a, b)[lone], fixed)
            a, b = a[~lone], b[~lone]
        if why and len(a):
            self._merges.append((np.unique(np.concatenate([a, b])), why))
        while len(a):
            a, b = self.roots(a), self.roots(b)
            open_ = a != b
            a, b = a[open_], b[open_]
            if len(a):
                low = np.minimum(a, b)
                np.minimum.at(self._parent, a, low)
                np.minimum.at(self._parent, b, low)

    def along(self, labels: Tensor, dims: Iterable[int], why: str = "") -> Tensor:
        """Unite labels along some dimensions, which then no longer matter: the result is constant there."""
        for dim in sorted({d % labels.dim() for d in dims}):
            if labels.shape[dim] > 1 and labels.stride(dim):
                small = core(labels)
                self.unite(small, small.narrow(dim, 0, 1), why)
                labels = labels.narrow(dim, 0, 1).expand_as(labels)
        return labels

    def pin(self, labels: Tensor | np.ndarray, why: str) -> None:
        """Neurons that must stay, and why."""
        ids = np.unique(np.asarray(core(labels) if isinstance(labels, Tensor) else labels))
        ids = ids[ids > 0]
        if len(ids):
            self._pins.append((ids, why))

    def reasons(self) -> tuple[dict[int, str], dict[int, str]]:
        """(class -> why it is kept, class -> what merged its channels), first cause first."""
        found: tuple[dict[int, str], dict[int, str]] = ({}, {})
        for events, table in zip((self._pins, self._merges), found, strict=True):
            for ids, why in events:
                for root in np.unique(self.roots(ids)).tolist():
                    table.setdefault(root, why)
        return found
