"""Batches of a loader as what an ONNX file takes, and its answers, whatever batch size it insists on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor

from .errors import DataError, ExportError, first_line
from .shown import cut

_TYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(uint8)": np.uint8,
    "tensor(bool)": np.bool_,
}
_LABELS = ("labels", "label", "targets", "target")  # names that data sets give them in a batch that is a dict

Feed = dict[str, np.ndarray]


def rows_in(feed: Feed) -> int:
    """The number of inputs in a feed, by the first array that speaks for it, as `inputs.batch_size` has it."""
    return _speaking([x.shape for x in feed.values()])[0]


def holds(x: np.ndarray, count: int) -> bool:
    """Whether an array has an entry for each of so many inputs."""
    return x.ndim > 0 and len(x) == count


def _speaking(shapes: list[Any]) -> Any:
    """The first shape of two dimensions and more; of one, where there is no other."""
    some = [shape for shape in shapes if len(shape)]
    return next((shape for shape in some if len(shape) > 1), some[0])


class OnnxModel:
    """A session of ONNX Runtime as a function of batches of any size.

    Args:
        name: of the file, for messages.
        session: what `open_session` gave.

    Raises:
        ExportError: an input is of a type that no batch holds, or there is none.
    """

    def __init__(self, name: object, session: Any) -> None:
        self.name, self.session = name, session
        self.types: dict[str, type[np.generic]] = {}
        for entry in session.get_inputs():
            if entry.type not in _TYPES:
                raise ExportError(
                    f"{name}: no batch can be given to its input {cut(entry.name, 50)}, {entry.type}."
                )
            self.types[entry.name] = _TYPES[entry.type]
        shapes = [entry.shape for entry in session.get_inputs()]
        if not any(shapes):
            raise ExportError(f"{name}: the file has no inputs that hold a batch.")
        first = _speaking(shapes)[0]
        self.batch: int | None = first if isinstance(first, int) else None

    def split(self, batch: Any) -> tuple[Feed, Tensor | None]:
        """The inputs of a batch by the file's names, and its labels; None where it has none.

        Args:
            batch: a tensor; (inputs, labels), the inputs a tensor, a tuple or a dict; several tensors and then
                labels; or a dict with an entry for every input of the file.

        Raises:
            DataError: it has not what the file takes.
        """
        fields, labels = _fields(batch, list(self.types))
        if fields is None:
            what = sorted(map(str, batch)) if isinstance(batch, Mapping) else type(batch).__name__
            raise DataError(
                f"{self.name} takes the inputs {cut(', '.join(self.types), 200)}, which a batch "
                f"({cut(what, 100)}) does not hold. Give (inputs, labels), or a dict with these names."
            )
        return {n: x.numpy(force=True).astype(self.types[n], copy=False) for n, x in fields.items()}, labels

    def __call__(self, feed: Feed) -> np.ndarray:
        """The first output for a feed of any number of inputs.

        Raises:
            DataError: the inputs do not fit the file.
        """
        count = rows_in(feed)
        step = self.batch or count
        found = []
        for at in range(0, count, max(1, step)):
            part = {name: _filled(x, at, step, count) for name, x in feed.items()}
            try:
                found.append(self.session.run(None, part)[0][: count - at])
            except Exception as error:  # ONNX Runtime's own tree of exceptions
                shapes = ", ".join(str(tuple(x.shape[1:])) for x in feed.values())
                raise DataError(
                    f"{self.name} does not run on images of shape {shapes} ({first_line(error)}). Check "
                    "--image-size and the number of channels."
                ) from error
        return np.concatenate(found)


def _filled(x: np.ndarray, at: int, step: int, count: int) -> np.ndarray:
    """Some rows of an input, the last one again where a file insists on more; what is no row stays whole."""
    return x[np.minimum(np.arange(at, at + step), count - 1)] if holds(x, count) else x


def _fields(batch: Any, names: list[str]) -> tuple[dict[str, Tensor] | None, Tensor | None]:
    labels = None
    if isinstance(batch, Mapping):
        labels = next((batch[n] for n in _LABELS if n not in names and isinstance(batch.get(n), Tensor)), None)
        inputs = batch
    elif isinstance(batch, (tuple, list)) and batch and isinstance(batch[0], Tensor):
        inputs, rest = batch[: len(names)], batch[len(names) :]
        labels = rest[0] if len(rest) == 1 else None
    elif isinstance(batch, (tuple, list)) and batch:
        inputs, labels = batch[0], batch[1] if len(batch) == 2 else None
    else:
        inputs = [batch]
    if not isinstance(inputs, Mapping):
        inputs = dict(zip(names, inputs, strict=False)) if isinstance(inputs, (tuple, list)) else {}
    found = {name: inputs.get(name) for name in names}
    tensors = [x for x in found.values() if isinstance(x, Tensor)]
    whole = len(tensors) == len(found) and any(x.dim() for x in tensors)
    return (found if whole else None), labels if isinstance(labels, Tensor) else None  # type: ignore[return-value]
