"""A network as an ONNX graph: torch's exporter, fed with a plain function of tensors."""

from __future__ import annotations

import contextlib
import copy
import inspect
import io
import logging
import re
import traceback
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .errors import ExportError
from .inputs import Inputs, batch_size, first_rows, map_tensors, tensors_in
from .layers import attention

_SINGLE_FILE_LIMIT = int(1.8 * 2**30)
_LONGEST = 300  # characters of another library's message that one of ours quotes
_MEANINGS = {
    "static shape|specialized to": "its code uses a constant batch size, or treats one size apart",
    "data-dependent": "its code asks for the values of tensors, which no graph can",
    "No ONNX function found": "ONNX has no such operation",
}
_LIBRARIES = ("torch", "onnxscript", "onnx", "onnx_ir", "snnprune")


class _Function(nn.Module):
    """A network as a function of its input tensors alone, whose outputs are tensors alone.

    Torch's exporter takes neither `forward(*inputs)` nor numbers among the outputs nor dataclasses. What is no
    tensor among the inputs becomes a constant of the file.
    """

    def __init__(self, model: nn.Module, inputs: Inputs) -> None:
        super().__init__()
        self.model, self.inputs = model, inputs

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """The output's tensors, in the order of `tensors_in`."""
        left = iter(tensors)
        inputs = map_tensors(lambda _: next(left), self.inputs)
        if isinstance(inputs, dict):  # `call` would touch torch.compile's switch, which the exporter cannot follow
            return tuple(tensors_in(self.model(**inputs)))
        return tuple(tensors_in(self.model(*inputs) if isinstance(inputs, tuple) else self.model(inputs)))


def to_proto(model: nn.Module, inputs: Inputs) -> Any:
    """An ONNX model whose first dimension is free in every input that holds one entry per example.

    Args:
        model: a network in eval mode on the CPU; it is left as it is.
        inputs: real inputs, at least 2.

    Raises:
        ExportError: torch cannot export it, or it is too large for one file.
    """
    if sum(p.numel() * p.element_size() for p in model.parameters()) > _SINGLE_FILE_LIMIT:
        raise ExportError("the model is larger than 1.8 GiB, which one ONNX file cannot hold.")
    shared: dict[int, Any] = {id(p): p for p in model.parameters()}
    example = map_tensors(Tensor.contiguous, first_rows(inputs, 2))
    function = _Function(copy.deepcopy(model, shared), example)
    named = named_tensors(model, inputs)
    batch = batch_size(inputs)
    free = tuple({0: "batch"} if x.dim() and len(x) == batch else None for _, x in named)
    _forget_batch(function, [x for _, x in named_tensors(model, first_rows(inputs, 1))])
    try:
        with warnings.catch_warnings(), _quiet(), attention.unfused():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                function,
                tuple(x for _, x in named_tensors(model, example)),
                input_names=[name for name, _ in named],
                dynamo=True,
                dynamic_shapes=(free,),
                verbose=False,
            )
    except Exception as error:
        raise ExportError(
            f"the model cannot be exported to ONNX{_meaning(error)} ({reason(error)}). "
            "`result.save(folder, onnx=False)` writes the PyTorch model alone."
        ) from error
    assert program is not None
    proto = program.model_proto
    _rename(proto)
    return proto


def _forget_batch(function: nn.Module, one: list[Tensor]) -> None:
    """Run the network with one input, so that nothing which it remembers fits the batch to be exported.

    Detectors keep their last input's shape and the anchors made for it, which would go into the file. One
    input is the batch size that the exporter itself excludes, so that no other is told apart from the rest.
    """
    try:
        function(*one)
    except Exception as error:
        raise ExportError(
            f"the model runs with 2 inputs, not with one: its code uses a constant batch size ({reason(error)})."
        ) from error


def named_tensors(model: nn.Module, inputs: Inputs) -> list[tuple[str, Tensor]]:
    """The tensors among the inputs, with the names of the arguments of the model's forward that they are."""
    given: Mapping[str, Any]
    if isinstance(inputs, dict):
        given = inputs
    else:
        args = inputs if isinstance(inputs, tuple) else (inputs,)
        try:
            given = inspect.signature(model.forward).bind_partial(*args).arguments
        except (TypeError, ValueError):  # a forward without a signature, or one that these do not fit
            given = {"input": args}
    found: list[tuple[str, Tensor]] = []
    for name, value in given.items():
        inner: list[Tensor] = []
        map_tensors(lambda x, inner=inner: inner.append(x) or x, value)
        names = [name] if isinstance(value, Tensor) else [f"{name}_{i}" for i in range(len(inner))]
        found += zip(names, inner, strict=True)
    return found


def reason(error: BaseException) -> str:
    """What an exporter's error comes from, in one line: its root cause, and where in the user's code.

    The error itself is a long account of the exporter's steps whose first line says nothing.
    """
    while error.__cause__ is not None:
        error = error.__cause__
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip()
    lines = [line.strip() for line in text.splitlines() if line.strip()] or [""]
    said = lines[0]
    if said.endswith(":") and len(lines) > 1:  # what follows is what was found
        said = lines[1].removeprefix("- ")
    said = said if len(said) <= _LONGEST else said[:_LONGEST] + "..."
    return f"{type(error).__name__}: {said}".removesuffix(".").removesuffix(": ") + _place(error, text)


def _place(error: BaseException, text: str) -> str:
    """The line of the user's code that an error comes from, if it tells."""
    told = re.findall(r'File "([^"]+)", line (\d+), in \w+\n\s*(.*)', text)
    ran = [(f.filename, str(f.lineno), f.line or "") for f in traceback.extract_tb(error.__traceback__)]
    for file, line, code in reversed([*ran, *told]):
        if not file.startswith("<") and not set(Path(file).parts) & set(_LIBRARIES):
            return f", in {Path(file).name}:{line}: {code.strip()[:100]}"
    return ""


def _meaning(error: BaseException) -> str:
    said = reason(error)
    return next((f": {plain}" for pattern, plain in _MEANINGS.items() if re.search(pattern, said)), "")


def _rename(proto: Any) -> None:
    """Give weights the names that they have in the model, without that of our own module around it."""
    graphs = [proto.graph]
    for graph in graphs:
        graphs += [a.g for node in graph.node for a in node.attribute if a.HasField("g")]
    names = {n for graph in graphs for node in graph.node for n in (*node.input, *node.output)}
    names |= {i.name for graph in graphs for i in (*graph.input, *graph.output, *graph.initializer)}
    new = {n: n.removeprefix("model.") for n in names if n.startswith("model.")}
    new = {old: n for old, n in new.items() if n not in names}
    for graph in graphs:
        for node in graph.node:
            node.input[:] = [new.get(n, n) for n in node.input]
            node.output[:] = [new.get(n, n) for n in node.output]
        for entry in (*graph.initializer, *graph.input, *graph.output, *graph.value_info):
            entry.name = new.get(entry.name, entry.name)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's prints and log lines off the terminal."""
    loggers = [logging.getLogger(n) for n in ("torch.onnx", "onnxscript", "onnx_ir", "torch.export")]
    levels = [log.level for log in loggers]
    for log in loggers:
        log.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        for log, level in zip(loggers, levels, strict=True):
            log.setLevel(level)
