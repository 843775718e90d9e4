"""Data: files of arrays, and images."""

from __future__ import annotations

import functools
import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from snnprune.data import load_data

from .base import place, written


@functools.cache
def array_files() -> list[bytes]:
    draw = np.random.default_rng(0)
    arrays = {
        "x_train": draw.integers(0, 255, (6, 4, 4), dtype=np.uint8),
        "y_train": np.array([0, 1, 0, 1, 0, 1]),
        "x_test": draw.integers(0, 255, (2, 4, 4), dtype=np.uint8),
        "y_test": np.array([0, 1], dtype=np.uint8),
    }
    found = []
    for write in (np.savez, np.savez_compressed):
        target = io.BytesIO()
        write(target, **arrays)
        found.append(target.getvalue())
    return found


def feed_arrays(data: bytes) -> Any:
    splits = load_data(str(written("data.npz", data)), batch_size=2)
    images, labels = next(iter(splits.test))
    assert images.numel() < 2**24
    assert len(images) == len(labels)
    return splits


@functools.cache
def image_files() -> list[bytes]:
    draw = np.random.default_rng(0)
    image = Image.fromarray(draw.integers(0, 255, (9, 8, 3), dtype=np.uint8))
    found = []
    for form in ("PNG", "JPEG", "BMP", "PPM", "TIFF", "WEBP", "GIF", "EPS"):
        target = io.BytesIO()
        image.save(target, form)
        found.append(target.getvalue())
    return found


@functools.cache
def image_folder() -> Path:
    folder = place() / "images"
    for kind in ("train", "test"):
        for name in ("a", "b"):
            (folder / kind / name).mkdir(parents=True)
            for at in range(2):
                Image.new("RGB", (8, 8), (40 * at,) * 3).save(folder / kind / name / f"{at}.png")
    return folder


def feed_image(data: bytes) -> Any:
    folder = image_folder()
    (folder / "train" / "a" / "0.png").write_bytes(data)
    splits = load_data(str(folder), image_size=8, batch_size=2)
    for loader in splits:  # files are read when they are asked for
        assert loader.samples.all().shape[2:] == (8, 8)  # type: ignore[attr-defined]
    return splits
