"""Streams of random numbers: the seed of each, and the state of all generators that a program shares.

Those are PyTorch's on the CPU and on every GPU in use, that of Python's `random`, and NumPy's global one: the
transforms and collate functions of a user's own loader draw from any of them. A global generator of NumPy that is
not the MT19937 it begins with is left alone.
"""

from __future__ import annotations

import contextlib
import random
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

_WORD, _BITS = 0xFFFFFFFF, 32
_NUMPY, _WORDS = "MT19937", 624


def seed_of(*key: int | str) -> int:
    """The seed (64 bits) of one of many streams, such as `seed_of(config.seed, "search", "rank", step, rank)`.

    Sums of its numbers would not do: rank 2 at one step would draw what rank 0 draws at the next.
    PyTorch's generator on the CPU takes the lower half of it.

    Args:
        key: what sets the stream apart; two keys give one seed only by chance, 1 in 2**64.
    """
    words = [len(key)]  # else trailing zeros would not count
    for part in key:
        number = zlib.crc32(part.encode()) if isinstance(part, str) else part
        words += [number & _WORD, (number >> _BITS) & _WORD]
    return int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0])


def seed_torch(seed: int) -> None:
    """Begin PyTorch's streams anew, as `torch.manual_seed` does fifty times as slowly for devices not in use."""
    torch.default_generator.manual_seed(seed % 2**64)
    if _cuda_is_used():
        torch.cuda.manual_seed_all(seed)
    if torch.backends.mps.is_available():
        torch.mps.manual_seed(seed)


def seed_all(seed: int) -> None:
    """Begin the streams of all generators anew.

    Args:
        seed: any number; of negative ones too each has streams of its own.
    """
    seed_torch(seed)
    random.seed(seed % 2**64)  # it takes the absolute value
    if _numpy_is_known():
        np.random.seed([seed & _WORD, (seed >> _BITS) & _WORD])  # noqa: NPY002


def rng_state(*, others: bool = True) -> dict[str, Any]:
    """The state of all generators, made of tensors and plain values.

    Args:
        others: also that of Python and NumPy, which takes longer than PyTorch's.
    """
    state: dict[str, Any] = {"cpu": torch.get_rng_state()}
    if _cuda_is_used():
        state["cuda"] = torch.cuda.get_rng_state_all()
    if others:
        state["python"] = random.getstate()
        if _numpy_is_known():
            _, words, position, normal, value = np.random.get_state()  # noqa: NPY002
            words = torch.from_numpy(np.asarray(words).astype(np.int64))
            state["numpy"] = (words, int(position), int(normal), float(value))
    return state


def set_rng_state(state: dict[str, Any]) -> None:
    """Put back what `rng_state` returned; generators of which it holds nothing go on.

    Raises:
        ValueError: the state is none.
    """
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])
    if "python" in state:
        random.setstate(state["python"])
    if "numpy" in state and _numpy_is_known():
        words, position, normal, value = state["numpy"]
        if words.shape != (_WORDS,) or not 0 <= position <= _WORDS:  # NumPy would read past its end
            raise ValueError("the state of NumPy's generator is none")
        np.random.set_state((_NUMPY, words.numpy().astype(np.uint32), position, normal, value))  # noqa: NPY002


@contextlib.contextmanager
def kept() -> Iterator[None]:
    """Afterwards the generators are as they were: what ran meanwhile does not move the caller's streams."""
    state = rng_state()
    try:
        yield
    finally:
        set_rng_state(state)


def _numpy_is_known() -> bool:
    generator = np.random.get_bit_generator()  # pyright: ignore[reportAttributeAccessIssue]
    return type(generator).__name__ == _NUMPY


def _cuda_is_used() -> bool:
    return torch.cuda.is_available() and torch.cuda.is_initialized()
