"""Parts of a data set: brought to a size, carved from every class, limited in balance."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import DataError
from ..labels import classes_of
from .parts import Held, Images

Part = tuple[Images, Tensor]


def resized(part: Part, side: int | None) -> Part:
    """Images that lie in memory brought to a size; files come to theirs when they are read."""
    images, labels = part
    if side is None or not isinstance(images, Held) or images.shape[1:] == (side, side):
        return part
    chunks = [
        F.interpolate(chunk.float(), (side, side), mode="bilinear", antialias=True).round().byte()
        for chunk in images.images.split(1024)
    ]
    return Held(torch.cat(chunks)), labels


def split(part: Part, fraction: float, seed: int, *, what: str = "validation") -> tuple[Part, Part]:
    """Carve a part out of every class.

    Args:
        part: all of it.
        fraction: share of each class that is carved out, at least one image where there are two.
        seed: of the choice.
        what: it becomes, for the message.

    Returns:
        What stays, and what was carved out.

    Raises:
        DataError: no class has two images.
    """
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.zeros(len(part[1]), dtype=torch.bool)
    for own in _by_class(classes_of(part[1])):
        if len(own) > 1:
            count = max(1, round(fraction * len(own)))
            chosen[own[torch.randperm(len(own), generator=generator)[:count]]] = True
    if not bool(chosen.any()):
        raise DataError(f"no class has two images, so no {what} part can be carved from the training data.")
    return _those(part, (~chosen).nonzero().flatten()), _those(part, chosen.nonzero().flatten())


def subset(part: Part, limit: int, seed: int) -> Part:
    """At most so many samples, as many of each class as of any other where there are enough."""
    if limit >= len(part[1]):
        return part
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(part[1]), generator=generator)
    rank = torch.empty(len(order), dtype=torch.long)  # of an image among those of its class
    for own in _by_class(classes_of(part[1])[order]):
        rank[order[own]] = torch.arange(len(own))
    return _those(part, order[rank[order].argsort(stable=True)[:limit]].sort().values)


def _those(part: Part, places: Tensor) -> Part:
    return part[0].take(places), part[1][places]


def _by_class(known: Tensor) -> list[Tensor]:
    """Where each class stands, in ascending order, found by one sort: there may be 100,000 classes."""
    counts = known.unique(return_counts=True)[1]
    return list(known.argsort(stable=True).split(counts.tolist()))
