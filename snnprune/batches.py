"""How many inputs a batch holds, and some of them, whatever form it has."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

_Length = tuple[int, int]  # a length that a field may have in inputs, and how many dimensions speak for it


_CHANNELS = (1, 3, 4)  # of an image


def are_images(tensors: Sequence[Tensor]) -> bool:
    """Whether tensors of three dimensions are images one by one, and not sequences that each hold all inputs.

    Both lists look alike; images are told by their channels, and by lengths that differ where those of inputs
    would not.

    Args:
        tensors: (channels, height, width) each, or (batch, length, channels).
    """
    lengths = {len(tensor) for tensor in tensors}
    return len(lengths) > 1 or lengths.issubset(_CHANNELS)


def is_samples(batch: Any) -> bool:
    """Whether a batch is a list of samples (images, or tuples and dicts of one input each), not of fields."""
    if not isinstance(batch, list) or not batch:
        return False
    if all(isinstance(entry, Tensor) for entry in batch):
        return all(entry.dim() == 3 for entry in batch) and are_images(batch)
    if all(isinstance(entry, dict) for entry in batch):
        return True
    if not all(isinstance(entry, tuple) and entry for entry in batch):
        return False
    heads = {(type(entry[0]), entry[0].dim() if isinstance(entry[0], Tensor) else 0) for entry in batch}
    return len(heads) == 1  # (images, ..), (targets, ..) differ in their first entries


def inputs_in(batch: Any) -> int:
    """Inputs in a batch of any form that a loss may take; 1 where its form is only known to the loss.

    That many is the length that most of its fields have: weights of classes, a temperature or the name of a task
    may stand before the inputs. Of lengths that equally many have it is that of the field of most dimensions.
    In a pair of sequences and targets, the sequences may come time first: (time, inputs, ..).
    """
    return counted(batch) or 1


def counted(batch: Any) -> int | None:
    """The same; None where nothing in the batch runs over inputs."""
    if is_samples(batch):
        return len(batch)
    if _is_time_first(batch):
        return len(batch[1])
    if isinstance(batch, Tensor):
        return len(batch) if batch.dim() else None
    votes: Counter[int] = Counter()
    weight: dict[int, int] = {}
    for lengths in _fields(batch):
        for length, dims in lengths:
            votes[length] += 1
            weight[length] = max(weight.get(length, 0), dims)
    return max(votes, key=lambda length: (votes[length], weight[length]), default=None)


def _is_time_first(batch: Any) -> bool:
    """Whether a batch is sequences (time, inputs, ..), or tokens, with a target for each of the inputs.

    Nothing else may stand beside them: positions, masks and weights of positions have the length of the time too.
    """
    if not (isinstance(batch, (list, tuple)) and len(batch) == 2 and all(isinstance(x, Tensor) for x in batch)):
        return False
    x, y = batch
    if x.dim() != (3 if x.is_floating_point() else 2) or not 1 <= y.dim() <= 2 or len(y) == len(x):
        return False
    if y.dim() == 2 and 1 < len(y) == y.shape[1]:  # a mask
        return False
    return len(y) == x.shape[1] and not (y.dim() == 1 and len(y) > 1 and _are_positions(y))


def _are_positions(y: Tensor) -> bool:
    return bool((y == torch.arange(len(y), device=y.device)).all())


def picked(batch: Any, chosen: slice, wrong: Callable[[int], Exception] | None = None) -> Any:
    """Some inputs of a batch: of a list of samples, or of every field that runs over the inputs.

    Args:
        batch: of any form that a loss may take.
        chosen: which of its inputs.
        wrong: makes the error for a field of another length; without it such a field stays whole.
    """
    count = inputs_in(batch)

    def cut(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: cut(item) for key, item in value.items()}
        if isinstance(value, Tensor) and not value.dim():
            return value
        if isinstance(value, (list, tuple)) and _is_fields(value, count):
            return rebuilt(value, [cut(item) for item in value])
        if isinstance(value, (Tensor, list, tuple)):
            if len(value) == count:
                return value[chosen]
            if wrong is not None:
                raise wrong(len(value))
        return value

    if is_samples(batch):
        return batch[chosen]
    if _is_time_first(batch):
        return rebuilt(batch, [batch[0][:, chosen], batch[1][chosen]])
    if isinstance(batch, (list, tuple)):
        return rebuilt(batch, [cut(field) for field in batch])
    return cut(batch) if isinstance(batch, (Tensor, Mapping)) else batch


def rebuilt(value: Any, items: list[Any]) -> Any:
    """A sequence of the same kind with other items."""
    return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)


def _fields(value: Any) -> Iterator[list[_Length]]:
    """Lengths that each field may have."""
    items = list(value.values()) if isinstance(value, Mapping) else value
    for item in items if isinstance(items, (list, tuple)) else ():
        if isinstance(item, Mapping):
            yield from _fields(item)
        elif isinstance(item, Tensor):
            if item.dim():
                yield [(len(item), item.dim())]
        elif isinstance(item, (list, tuple)) and item:
            yield _of_sequence(item)


def _of_sequence(items: Any) -> list[_Length]:
    """Its own length, one entry for every input; or that of its tensors, each of which runs over all inputs."""
    dims = {entry.dim() if isinstance(entry, Tensor) else 0 for entry in items}
    inner = {len(entry) for entry in items if isinstance(entry, Tensor) and entry.dim()}
    if len(inner) != 1 or 0 in dims:
        return [(len(items), 1)]
    return [(len(items), 4 if dims == {3} else 0), (inner.pop(), max(dims))]  # images, or fields


def _is_fields(items: Any, count: int) -> bool:
    """Whether a nested sequence holds fields, not one entry for every input."""
    tensors = [entry for entry in items if isinstance(entry, Tensor) and entry.dim()]
    if not items or len(tensors) < len(items) or any(len(entry) != count for entry in tensors):
        return False
    return len(items) != count or any(entry.dim() != 3 for entry in tensors)
