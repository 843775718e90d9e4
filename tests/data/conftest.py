"""Shared by the tests of data: images that tell which they are."""

from __future__ import annotations

import numpy as np
import torch

from snnprune.data import load_data


def batches_equal(a: list, b: list) -> bool:
    return len(a) == len(b) and all(
        torch.equal(x, u) and torch.equal(y, v) for (x, y), (u, v) in zip(a, b, strict=True)
    )


def numbered(n: int, first: int = 0) -> np.ndarray:
    """(n, 8, 8) images that carry their number in the first two pixels."""
    images = np.zeros((n, 8, 8), dtype=np.uint8)
    images[:, 0, 0], images[:, 0, 1] = np.divmod(np.arange(first, first + n), 256)
    return images


def loaded(*args, **options):
    """The three loaders, after all their images have been read."""
    splits = load_data(*args, **options)
    for loader in splits:
        loader.samples.all()
    return splits
