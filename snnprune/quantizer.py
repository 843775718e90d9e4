"""ONNX Runtime's static quantisation: which layers, which types, and no word on the terminal."""

from __future__ import annotations

import contextlib
import inspect
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .feeds import Feed

METHODS = {"minmax": "MinMax", "entropy": "Entropy", "percentile": "Percentile"}
CHOICES = {
    "all": "layers and what lies between them",
    "layers": "layers alone",
    "inner": "layers without the first, the last and depthwise ones",
}
_LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
# Softmax, norms and products of two activations (attention, gates) stay fractions: they need their range.
_BETWEEN = (
    *("Add", "AveragePool", "Clip", "Concat", "Flatten", "GlobalAveragePool", "MaxPool", "Pad", "Relu", "Reshape"),
    *("Resize", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze"),
)


class Quantizer:
    """Quantises one model in several ways, after one calibration.

    Args:
        proto: the model in float32; it is not changed.
        folder: empty, for what is written meanwhile.
        feeds: inputs to calibrate with, each of the size of a batch.
        method: of calibration, of `METHODS`.
        engine: as `quantize_onnx` takes it.
    """

    def __init__(self, proto: Any, folder: Path, feeds: Sequence[Feed], method: str, engine: str) -> None:
        self.folder, self.feeds, self.method, self.engine = folder, feeds, method, engine
        self.prepared = folder / "prepared.onnx"
        self.layers, self.sensitive = self._prepare(proto)

    def _prepare(self, proto: Any) -> tuple[int, list[str]]:
        """Norms folded, shapes inferred, every node named; number of layers, and names of sensitive ones."""
        import onnx
        from onnxruntime.quantization.shape_inference import quant_pre_process

        given = self.folder / "given.onnx"
        onnx.save(proto, given)
        with _quietly():
            quant_pre_process(str(given), str(self.prepared), skip_symbolic_shape=True)
        prepared = onnx.load(self.prepared)
        for at, node in enumerate(prepared.graph.node):
            node.name = f"{node.op_type}_{at}"
        onnx.save(prepared, self.prepared)
        return len(layers_of(prepared)), sensitive_layers(prepared)

    def made(self, choice: str) -> Path:
        """Quantise what a choice of `CHOICES` says.

        Returns:
            The new file, in the folder.
        """
        from onnxruntime import quantization

        types = quantization.QuantType
        signed = self.engine == "tensorrt"
        options: dict[str, Any] = {"MatMulConstBOnly": True, "CalibStridedMinMax": 1}
        if signed:
            options |= {"ActivationSymmetric": True, "QuantizeBias": False, "AddQDQPairToWeight": True}
        more: dict[str, Any] = {}
        if "calibration_cache_path" in inspect.signature(quantization.quantize_static).parameters:
            more["calibration_cache_path"] = self.folder / "ranges.json"  # of the first choice, which has all
        target = self.folder / f"{choice}.onnx"
        with _quietly():
            quantization.quantize_static(
                str(self.prepared),
                str(target),
                _Reader(self.feeds),  # type: ignore[arg-type]  # it is one by its methods
                quant_format=quantization.QuantFormat.QDQ,
                op_types_to_quantize=[*_LAYERS, *(_BETWEEN if choice == "all" else ())],
                nodes_to_exclude=self.sensitive if choice == "inner" else [],
                per_channel=True,
                reduce_range=self.engine == "cpu",
                activation_type=types.QInt8 if signed else types.QUInt8,
                weight_type=types.QInt8,
                calibrate_method=quantization.CalibrationMethod[METHODS[self.method]],
                extra_options=options,
                **more,
            )
        return target


class _Reader:
    """Feeds as ONNX Runtime reads them: one by one, so that the activations of one alone are in memory."""

    def __init__(self, feeds: Sequence[Feed]) -> None:
        self.feeds = feeds
        self.set_range(0, len(feeds))

    def __len__(self) -> int:
        return len(self.feeds)

    def set_range(self, start_index: int, end_index: int) -> None:
        self.left = iter(self.feeds[start_index:end_index])

    def get_next(self) -> Feed | None:
        return next(self.left, None)


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """ONNX Runtime's quantiser prints, logs and warns; what goes wrong is raised anyway."""
    import onnxruntime

    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    onnxruntime.set_default_logger_severity(4)
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            yield
    finally:
        onnxruntime.set_default_logger_severity(2)
        logging.disable(before)


def layers_of(proto: Any) -> list[Any]:
    """Nodes that multiply by weights of the file: convolutions and matrix products."""
    weights = _constant(proto)
    return [n for n in proto.graph.node if n.op_type in _LAYERS and len(n.input) > 1 and n.input[1] in weights]


def quantised(proto: Any) -> int:
    """How many layers have weights that are of 8 bits."""
    made = {n.output[0]: n for n in proto.graph.node if n.op_type == "DequantizeLinear"}
    return sum(1 for n in layers_of(proto) if n.input[1] in made)


def _constant(proto: Any) -> set[str]:
    """Values that depend on no input: weights, and what is made of them alone, such as 8 bits dequantised."""
    found = {w.name for w in proto.graph.initializer} | {""}
    for node in proto.graph.node:
        if node.op_type in ("Constant", "Identity", "QuantizeLinear", "DequantizeLinear", "Transpose", "Cast"):
            found |= set(node.output) if set(node.input) <= found else set()
    return found


def sensitive_layers(proto: Any) -> list[str]:
    """Names of the first layers, the last ones and depthwise convolutions, which lose most by 8 bits."""
    layers = layers_of(proto)
    names = {id(n) for n in layers}
    shapes = {w.name: list(w.dims) for w in proto.graph.initializer}
    fed = {i.name for i in proto.graph.input} - shapes.keys()
    for node in proto.graph.node:  # forwards, not through layers
        if id(node) not in names and fed & set(node.input):
            fed |= set(node.output)
    read = {o.name for o in proto.graph.output}
    for node in reversed(proto.graph.node):
        if id(node) not in names and read & set(node.output):
            read |= set(node.input)
    return [
        n.name
        for n in layers
        if n.input[0] in fed or n.output[0] in read or _is_depthwise(n, shapes.get(n.input[1], []))
    ]


def _is_depthwise(node: Any, shape: list[int]) -> bool:
    groups = next((a.i for a in node.attribute if a.name == "group"), 1)
    return node.op_type == "Conv" and groups > 1 and bool(shape) and groups == shape[0]
