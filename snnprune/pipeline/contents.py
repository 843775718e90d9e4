"""What a loader holds, in a few words and a digest, and whether it gives the same again."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterable, Mapping
from logging import Logger
from pathlib import PurePath
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from .. import streams
from ..carried import kept_carried, seed_carried
from ..data import BatchLoader, info_of
from ..inputs import tensors_in

_BYTES = 2**32  # of one array that are looked at; of a larger one evenly spread rows
_DEPTH, _OBJECTS = 8, 10_000_000
_PLAIN = (bool, int, float, complex, type(None))


def contents(loader: Iterable[Any]) -> dict[str, Any]:
    """What sets a loader's data apart from others, by name, made of JSON's values.

    All that lies in memory is read: arrays, labels, lists of files by their names. Of what is computed as it is
    asked for, such as images that are decoded, some samples are drawn.
    """
    digest = Digest()
    if isinstance(loader, BatchLoader):
        digest.add([loader.samples.identity(), loader.labels])
        settings = {"batch size": loader.batch_size, "seed": loader.seed, "augment": loader.augment}
        return {"content": digest.text(), **settings, "description": repr(info_of(loader))}
    if isinstance(loader, DataLoader):
        with contextlib.suppress(Exception):  # of mappings and tables of somebody's own
            digest.add(loader.dataset)
        sampler = type(loader.sampler).__qualname__
        settings = {"batch size": loader.batch_size, "drop_last": loader.drop_last, "sampler": sampler}
    else:
        with contextlib.suppress(Exception):
            digest.add(loader)
        settings = {}
    first, again = _drawn(loader), _drawn(loader)
    if first is not None and first == again:
        settings["samples"] = first
    return {"content": digest.text(), **settings}


def why_not_again(loader: Iterable[Any]) -> str | None:
    """Why an epoch that is drawn again would be another one; None where nothing speaks against it.

    Every epoch begins with generators that are set; what a loader draws otherwise cannot be drawn again.
    """
    if isinstance(loader, BatchLoader):
        return None
    if isinstance(loader, DataLoader) and loader.num_workers and loader.persistent_workers:
        return "its workers live on from epoch to epoch (persistent_workers) with generators of their own"
    if _drawn(loader) != _drawn(loader):
        return "it gives other samples when it is asked again with all known generators set alike"
    return None


def _drawn(loader: Any) -> str | None:
    """A digest of the first places of a data set's order and of some samples, drawn with all generators set."""
    with streams.kept(), kept_carried([loader]):
        streams.seed_all(0)
        seed_carried(loader, "contents")
        digest = Digest()
        try:
            if not isinstance(loader, DataLoader):
                digest.add(next(iter(loader)))
                return digest.text()
            places = next(iter(loader.batch_sampler or loader.sampler), None) if _is_map(loader) else None
            digest.add(places)
            data: Any = loader.dataset
            count = len(data) if _is_map(loader) else 0
            samples = [data[i] for i in {0, count // 2, count - 1}] if count else next(iter(data))
            digest.add([tensors_in(samples), samples if not tensors_in(samples) else None])
            return digest.text()
        except Exception:  # what is wrong with the data is said where they are used
            return None


def _is_map(loader: DataLoader[Any]) -> bool:
    return hasattr(loader.dataset, "__getitem__") and hasattr(loader.dataset, "__len__")


class Digest:
    """SHA-256 over values of many kinds; others are passed over."""

    def __init__(self) -> None:
        self._value = hashlib.sha256()
        self._seen: set[int] = set()
        self._left = _OBJECTS

    def text(self) -> str:
        """So far, in hexadecimal digits."""
        return self._value.hexdigest()

    def add(self, value: Any, depth: int = 0) -> None:
        """Take a value in: tensors, arrays, numbers, names, and what lists, dicts and objects hold of them.

        Of objects only arrays and lists count: single numbers there may be counters, and dicts caches.
        """
        self._left -= 1
        if self._left < 0 or depth > _DEPTH:
            return
        if isinstance(value, (str, PurePath)):
            self._put("s", PurePath(value).name)  # the folder may have been moved
        elif isinstance(value, (*_PLAIN, np.generic)):
            self._put("n", repr(value))
        elif isinstance(value, bytes):
            self._put("b", str(len(value)))
            self._value.update(value)
        elif isinstance(value, Tensor):
            self._array(_as_bytes(value), f"{value.dtype} {tuple(value.shape)}")
        elif hasattr(type(value), "to_numpy"):  # tables
            self.add(value.to_numpy(), depth + 1)
        elif isinstance(value, np.ndarray):
            if value.dtype.hasobject:
                self.add(value.tolist(), depth + 1)
            else:
                self._array(value, f"{value.dtype} {value.shape}")
        elif isinstance(value, (list, tuple)):
            self._put("l", str(len(value)))
            kind: Any = list if isinstance(value, list) else tuple
            for item in kind.__iter__(value):  # whatever a subclass gives
                self.add(item, depth + 1)
        elif isinstance(value, Mapping):
            for key, item in value.items():
                self.add(key, depth + 1)
                self.add(item, depth + 1)
        elif isinstance(value, (ModuleType, Logger)) or callable(value) or id(value) in self._seen:
            return
        else:
            self._seen.add(id(value))
            for name, item in vars(value).items() if hasattr(value, "__dict__") else ():
                if not isinstance(item, (*_PLAIN, str, Mapping)):
                    self._put("a", name)
                    self.add(item, depth + 1)

    def _put(self, kind: str, text: str) -> None:
        self._value.update(json.dumps([kind, text]).encode())

    def _array(self, array: np.ndarray[Any, Any], form: str) -> None:
        self._put("t", form)
        rows = array.reshape(1) if array.ndim == 0 else array
        step = -(-rows.nbytes // _BYTES) or 1
        size = max(1, 2**24 * len(rows) // max(1, rows.nbytes)) if len(rows) else 1
        for begin in range(0, len(rows), size * step):
            self._value.update(np.ascontiguousarray(rows[begin : begin + size]).tobytes())


def _as_bytes(tensor: Tensor) -> np.ndarray[Any, Any]:
    """A tensor of any element type as an array of the same rows."""
    if not tensor.numel() or tensor.is_quantized or tensor.is_nested:
        return np.empty(0, np.uint8)
    plain = tensor.detach().cpu()
    plain = plain.to_dense() if plain.layout != torch.strided else plain
    plain = plain.resolve_conj().resolve_neg().contiguous()
    return plain.reshape(len(plain) if plain.dim() else 1, -1).view(torch.uint8).numpy()
