"""A dense model and a smaller one, timed side by side as they will be served."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import nn

from ..export import export_onnx
from ..inputs import Inputs
from .clock import Measured, measure, own_time
from .networks import serve_network, threads_of
from .serving import Serving
from .sessions import Served, serve_file

_LIMIT = 20.0  # seconds for each of the two


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """Times of both models.

    Attributes:
        dense_ms: milliseconds of a call of the dense model; None where not to be believed.
        compact_ms: of the smaller one, likewise.
        share: time of the smaller one over that of the dense one; None where not to be believed.
        spread: of that share: it is `share` times (1 +- spread).
        dense_spread: of `dense_ms`, likewise.
        compact_spread: of `compact_ms`, likewise.
        refused: why one of them is not to be believed; None where all are.
        engine: that served.
        version: of it.
        device: name of the CPU or GPU.
        batch: inputs per call.
        precision: of numbers.
        threads: of the CPU.
        load: what else the machine did, in words.
        predicted_ms: what the smaller model takes by its parts, where those were timed.
    """

    dense_ms: float | None
    compact_ms: float | None
    share: float | None
    spread: float
    dense_spread: float
    compact_spread: float
    refused: str | None
    engine: str
    version: str
    device: str
    batch: int
    precision: str
    threads: int
    load: str
    predicted_ms: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for reports."""
        return asdict(self)


class SideBySide:
    """Times models beside the dense one; the dense one is made ready once.

    Args:
        dense: the model before.
        example_inputs: what both take, at least two.
        serving: what serves them.
        limit: seconds for each of the two.
    """

    def __init__(
        self, dense: nn.Module, example_inputs: Inputs, serving: Serving, *, limit: float = _LIMIT
    ) -> None:
        self.dense, self.example, self.limit = dense, example_inputs, limit
        self.serving = serving.resolved()
        self._file: bytes | None = None

    def __call__(self, compact: nn.Module, *, predicted_ms: float | None = None) -> Compared:
        """Both times.

        Args:
            compact: the model after.
            predicted_ms: goes into the result.

        Raises:
            ExportError: a model cannot be exported, or the engine cannot run it.
        """
        return _compared(self.times(compact), self.serving.key(), predicted_ms)

    def times(self, compact: nn.Module) -> Measured:
        """Both times as the clock gives them, whether they are to be believed or not: `dense` and `compact`.

        Args:
            compact: the model after.

        Raises:
            ExportError: a model cannot be exported, or the engine cannot run it.
        """
        serving = self.serving
        alone = not serving.on_gpu and serving.threads == 1
        with ExitStack() as stack:
            if serving.in_torch:
                stack.enter_context(threads_of(serving))
            served = {
                name: self._ready(name, model) for name, model in (("dense", self.dense), ("compact", compact))
            }
            return measure(
                {name: one.call for name, one in served.items()}, limit=self.limit, cpu=own_time if alone else None
            )

    def _ready(self, name: str, model: nn.Module) -> Served:
        if self.serving.in_torch:
            return serve_network(model, self.example, self.serving, name)
        if name == "dense" and self._file is not None:
            return serve_file(self._file, self.serving, name)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            export_onnx(model, path, self.example)
            data = path.read_bytes()
        if name == "dense":
            self._file = data
        return serve_file(data, self.serving, name)


def _compared(found: Measured, key: dict[str, Any], predicted_ms: float | None) -> Compared:
    dense, compact = found["dense"], found["compact"]
    why = {name: found.refused(name) for name in ("dense", "compact")}
    ratio = found.ratio_refused("compact")
    said = [f"{name}: {reason}" for name, reason in why.items() if reason is not None]
    return Compared(
        dense_ms=dense.ms if why["dense"] is None else None,
        compact_ms=compact.ms if why["compact"] is None else None,
        share=found.ratio("compact") if ratio is None else None,
        spread=found.ratio_spread("compact"),
        dense_spread=dense.spread,
        compact_spread=compact.spread,
        refused=ratio or (said[0] if said else None),
        load=str(found.load),
        predicted_ms=predicted_ms,
        **{name: key[name] for name in ("engine", "version", "device", "batch", "precision", "threads")},
    )
