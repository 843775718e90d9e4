"""What is told of a model that was timed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Latency:
    """Time of one model, as one engine serves it at one batch size.

    Attributes:
        path: the file, or the name of the model.
        provider: what really served it: an execution provider of ONNX Runtime, or PyTorch and where.
        batch: inputs per call.
        median_ms: milliseconds per call; half of the timings were longer.
        p10_ms: a tenth of the timings were shorter. This is what `ms` and `ratio` are made of.
        p90_ms: a tenth of the timings were longer.
        calls: timings.
        launch_bound: on a GPU, a call with many more inputs takes hardly longer, so what is timed is the
            start of kernels, and a smaller model will not be faster; None where that was not tried.
        engine: that ran it, such as `cpu` or `torch-compiled`.
        device: name of the CPU or GPU.
        precision: in which it ran; a file of half precision is `fp16` also where `fp32` was asked for.
        threads: of the CPU.
        spread: of the time: it is `p10_ms` times (1 +- spread).
        load: what else the machine did meanwhile, in words; empty where the system does not tell.
        refused: why the time is not to be believed; None where it is.
        ratio: time over that of the first model, as the same engine serves it; None where not to be believed.
        ratio_spread: of that ratio, as a share of it.
        ratio_refused: why the ratio is not to be believed; None where it is.

    Example:
        >>> check = snnprune.export_onnx(model, "m.onnx", images)
        >>> (latency,) = snnprune.bench_onnx(["m.onnx"], batch_sizes=[1], engine="cpu", calls=6)
        >>> latency.engine, latency.batch, latency.precision
        ('cpu', 1, 'fp32')
    """

    path: str
    provider: str
    batch: int
    median_ms: float
    p10_ms: float
    p90_ms: float
    calls: int
    launch_bound: bool | None = None
    engine: str = ""
    device: str = ""
    precision: str = "fp32"
    threads: int = 1
    spread: float = math.inf
    load: str = ""
    refused: str | None = None
    ratio: float | None = None
    ratio_spread: float = math.inf
    ratio_refused: str | None = None

    @property
    def ms(self) -> float | None:
        """Milliseconds per call; None where they are not to be believed."""
        return self.p10_ms if self.refused is None else None

    @property
    def on_gpu(self) -> bool:
        """Whether a GPU computed."""
        return "cpu" not in self.provider.lower()


def judged(one: Latency, every: Sequence[Latency]) -> Latency:
    """With a word on whether the start of kernels is what takes the time."""

    def same(o: Latency) -> bool:
        return (o.path, o.engine, o.precision) == (one.path, one.engine, one.precision)

    larger = [o for o in every if same(o) and o.batch >= 4 * one.batch]
    if not one.on_gpu or not larger:
        return one
    return replace(one, launch_bound=one.p10_ms >= 0.8 * larger[0].p10_ms)
