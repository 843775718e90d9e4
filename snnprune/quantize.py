"""ONNX files with whole numbers of 8 bits: ONNX Runtime's static quantisation, and what it costs in accuracy."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from . import streams
from .errors import DataError, ExportError, first_line
from .feeds import Feed, OnnxModel, holds, rows_in
from .files import check_name, file_errors, json_of, missing, write_atomically
from .loaders import bounded, loader_of, reread
from .options import Count, Share, checked, path_of
from .protos import finish
from .quantizer import CHOICES, Quantizer, layers_of, quantised
from .runtime import open_session
from .scores import Score, measure

Engine = Literal["cpu", "cpu-vnni", "tensorrt"]
Calibration = Literal["minmax", "entropy", "percentile"]
_STEP = 8  # inputs that are calibrated with together; all their activations are in memory
_SLACK = 1e-9


@dataclass(frozen=True, slots=True)
class Quantized:
    """An int8 file, and how good it is.

    Attributes:
        path: the file.
        val: how it did on the data that decided.
        test: how it did on those that were looked at once, at the end; None without them.
        quantized: `all`, `layers` or `inner`: what was quantised, see `quantize_onnx`.
        layers: number of layers with weights that are of 8 bits.
        layers_in_all: number of layers with weights.
        calibrated: inputs that the ranges were measured on.
        bytes_before: size of the fp32 file.
        bytes_after: size of the int8 file.
        engine: that it is for.
        method: of calibration.
    """

    path: Path
    val: Score
    test: Score | None
    quantized: str
    layers: int
    layers_in_all: int
    calibrated: int
    bytes_before: int
    bytes_after: int
    engine: str
    method: str


@file_errors(ExportError)
def quantize_onnx(
    source: str | Path,
    path: str | Path,
    calibration: Iterable[Any],
    val: Iterable[Any],
    *,
    test: Iterable[Any] | None = None,
    tolerance: float = 0.01,
    calibration_size: int = 256,
    method: Calibration = "minmax",
    engine: Engine = "cpu",
) -> Quantized:
    """Write an ONNX file in int8, unless it loses more accuracy than is allowed.

    Weights get one scale per output channel. Softmax, norms and products of two activations stay fractions. First
    all layers with weights are quantised and what lies between them; if that loses too much, the layers alone; and
    if that does too, without the first, the last and depthwise convolutions.

    Args:
        source: ONNX file in float32, as `export_onnx` writes it.
        path: file to write.
        calibration: loader of training data, normalised for the model, from whose first inputs the ranges of
            activations are taken: batches of inputs, with or without labels, as tensors, tuples or dicts.
        val: loader of the data that decide. Without labels, or with outputs for every place of an image, it is the
            agreement with the fp32 file's classes that `tolerance` is about.
        test: loader of data that are looked at once, at the end; they refuse the file too.
        tolerance: accuracy that may be lost, in [0, 1]: 0.01 is one point.
        calibration_size: inputs to calibrate with.
        method: of finding a range: `minmax` takes all that was seen, `percentile` all but a thousandth of a per
            cent, `entropy` what tells most of the distribution.
        engine: that the file is for. `cpu`: activations unsigned, weights of 7 bits, which is right on every CPU.
            `cpu-vnni`: weights of 8 bits, for ARM and for x86 with VNNI; others overflow without a word.
            `tensorrt`: everything signed and symmetric, biases in float32, weights quantised by the engine, so
            that the file stays large. Files for the last two are measured by the definition of int8, not by this
            CPU.

    Returns:
        Accuracies (or agreement) of both files, sizes, and what was quantised.

    Raises:
        ConfigError: an argument is not what it must be.
        DataError: a loader is none, is empty, or does not go with the file.
        ExportError: the source is no ONNX file in float32, ONNX Runtime cannot quantise it, or it loses too much.

    Example:
        >>> check = snnprune.export_onnx(model, "m.onnx", images)
        >>> made = snnprune.quantize_onnx("m.onnx", "m-int8.onnx", train, val, tolerance=0.05)
        >>> made.layers == made.layers_in_all
        True
    """
    source, path = path_of("source", source), path_of("path", path)
    check_name(path)
    loader_of(calibration, "quantize_onnx()'s calibration data")
    reread(val, "quantize_onnx()'s val data")
    if test is not None:
        loader_of(test, "quantize_onnx()'s test data")
    tolerance, calibration_size, method, engine = check_options(tolerance, calibration_size, method, engine)
    if not source.is_file():
        raise ExportError(missing(source))
    before = OnnxModel(source, open_session(source))
    proto = _read(source)
    _refuse_other_types(source, proto)
    with tempfile.TemporaryDirectory(prefix="snnprune.") as folder, streams.kept():
        feeds = list(_feeds(before, calibration, calibration_size))
        with _quantising(path):
            quantizer = Quantizer(proto, Path(folder), feeds, method, engine)
        made, choice, score = _first_good(quantizer, before, val, path, tolerance)
        tested = None if test is None else measure(before, _opened(path, made, engine), test, "test")
        if tested is not None and tested.lost > tolerance + _SLACK:
            raise _refusal(path, "test", {choice: tested}, tolerance)
        new = _read(made)
        count = sum(rows_in(feed) for feed in feeds)
        how = {
            "engine": engine,
            "method": method,
            "calibrated": count,
            "quantized": choice,
            "tolerance": tolerance,
        }
        finish(new, _metadata(proto, score, tested, how))
        data = new.SerializeToString()
    write_atomically(path, lambda p: p.write_bytes(data))
    return Quantized(
        path=path,
        val=score,
        test=tested,
        quantized=choice,
        layers=quantised(new),
        layers_in_all=quantizer.layers,
        calibrated=count,
        bytes_before=source.stat().st_size,
        bytes_after=len(data),
        engine=engine,
        method=method,
    )


def check_options(
    tolerance: float, calibration_size: int, method: Calibration, engine: Engine
) -> tuple[float, int, Calibration, Engine]:
    """The options of `quantize_onnx` in their plain form.

    Raises:
        ConfigError: one makes no sense.
    """
    return (
        checked("tolerance", tolerance, Share),
        checked("calibration_size", calibration_size, Count),
        checked("method", method, Calibration),
        checked("engine", engine, Engine),
    )


def _read(path: Path) -> Any:
    """A model that `open_session` has let through, with its weights; in float32, or from our own quantiser."""
    import onnx

    try:
        return onnx.load(path, format="protobuf")
    except Exception as error:
        raise ExportError(f"{path} cannot be read ({first_line(error)}).") from error


def _refuse_other_types(source: Path, proto: Any) -> None:
    import onnx

    if any("Quantize" in node.op_type or "Integer" in node.op_type for node in proto.graph.node):
        raise ExportError(f"{source} is quantised already. Give the file in float32.")
    halves = (onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16)
    if any(weight.data_type in halves for weight in proto.graph.initializer):
        raise ExportError(
            f"{source} has half-precision weights. Give the file in float32: int8 is made from that."
        )
    if not layers_of(proto):
        raise ExportError(f"{source} has no convolution or product with weights, so there is nothing to quantise.")


@contextlib.contextmanager
def _quantising(name: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # of three libraries
        raise ExportError(
            f"{name} is not written: ONNX Runtime cannot quantise it ({first_line(error)})."
        ) from error


def _opened(path: Path, made: Path, engine: str) -> OnnxModel:
    """The int8 file; those that are for other machines by the definition of int8, not by this one's kernels."""
    return OnnxModel(path, open_session(made, literal=engine != "cpu"))


def _first_good(
    quantizer: Quantizer, before: OnnxModel, val: Iterable[Any], path: Path, tolerance: float
) -> tuple[Path, str, Score]:
    """The first of the choices that loses no more than is allowed."""
    tried: dict[str, Score] = {}
    for choice in CHOICES:
        with _quantising(path):
            made = quantizer.made(choice)
        if not quantised(_read(made)):
            continue  # a network of sensitive layers alone
        tried[choice] = measure(before, _opened(path, made, quantizer.engine), val, "val")
        if tried[choice].lost <= tolerance + _SLACK:
            return made, choice, tried[choice]
    raise _refusal(path, "validation", tried, tolerance)


def _refusal(path: Path, data: str, tried: Mapping[str, Score], tolerance: float) -> ExportError:
    best = min(tried, key=lambda choice: tried[choice].lost)
    several = " at best" if len(tried) > 1 else ""
    return ExportError(
        f"{path} is not written: on the {data} data it has{several} {tried[best]}, which is more than a loss of "
        f"{tolerance:.2%} ({CHOICES[best]} quantised). Calibrate otherwise (--calibration-method percentile or "
        "entropy) or with more inputs (--calibration), allow more (--tolerance), or take fp16."
    )


def _feeds(model: OnnxModel, loader: Iterable[Any], size: int) -> Iterator[Feed]:
    """The first inputs of a loader, in the batches that the file takes.

    Raises:
        DataError: there are none, or not even those of one batch of the file.
    """
    step, left, given = model.batch or _STEP, size, False
    for batch in bounded(loader, "the calibration data"):
        feed, _ = model.split(batch)
        count = rows_in(feed)
        for at in range(0, count, step):
            part = {n: x[at : at + min(step, left)] if holds(x, count) else x for n, x in feed.items()}
            if model.batch not in (None, rows_in(part)):
                continue  # fewer than the file insists on
            if not given:
                model(part)  # says so when they do not fit the file
            given, left = True, left - rows_in(part)
            yield part
            if left < (model.batch or 1):
                return
    if not given:
        least = f"; at least {model.batch} in a batch are needed" if model.batch else ""
        raise DataError(f"the calibration data hold no inputs for {model.name}{least}.")


def _metadata(proto: Any, val: Score, test: Score | None, how: Mapping[str, Any]) -> dict[str, str]:
    """What the source tells of itself, with the accuracy of this file, and how it was made."""
    # A metric of the user's own was measured on the source alone.
    found = {entry.key: entry.value for entry in proto.metadata_props if entry.key != "snnprune.metric"}
    split, score = ("test", test) if test is not None else ("val", val)
    accuracy = None if score.int8 is None else {"split": split, "value": score.int8}
    told = {
        **how,
        "split": split,
        "fp32_accuracy": score.fp32,
        "same_class": score.same_class,
        "count": score.count,
    }
    new = {"snnprune.accuracy": accuracy, "snnprune.quantization": told}
    return found | {name: json_of(name, value) for name, value in new.items()}
