"""A network as an ONNX graph: torch's exporter, fed with a plain function of tensors."""

from __future__ import annotations

import contextlib
import copy
import functools
import inspect
import io
import logging
import math
import re
import traceback
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from .errors import ExportError
from .inputs import Inputs, batch_size, is_listed, map_tensors, rows, tensors_in
from .layers import attention
from .protos import hold_zeros, rename_values, value_names
from .sizes import AXES, is_image, other_sizes, resized

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


def to_proto(model: nn.Module, inputs: Inputs, *, batch: int | None = None, dynamic_size: bool = False) -> Any:
    """An ONNX model whose first dimension is free in every input that holds one entry per example.

    Args:
        model: a network in eval mode on the CPU; it is left as it is.
        inputs: real inputs, at least 2.
        batch: examples per call that the file takes, and no other number; None leaves them free.
        dynamic_size: images of any height and width.

    Raises:
        ExportError: torch cannot export it, or it is too large for one file.
    """
    if sum(p.numel() * p.element_size() for p in model.parameters()) > _SINGLE_FILE_LIMIT:
        raise ExportError("the model is larger than 1.8 GiB, which one ONNX file cannot hold.")
    if batch is None and is_listed(inputs):
        raise ExportError(
            "the model takes a list with an entry for each example, and a file has a fixed number of inputs. Say "
            "how many by batch (--fixed-batch), or write the PyTorch model alone: `save(folder, onnx=False)`."
        )
    shared: dict[int, Any] = {id(p): p for p in model.parameters()}
    example = map_tensors(Tensor.contiguous, rows(inputs, batch or 2))
    function = _Function(copy.deepcopy(model, shared), example)
    given, count = named_tensors(model, example), batch_size(inputs)
    free = tuple(_free(x, count, batch is None, dynamic_size) for _, x in named_tensors(model, inputs))
    if batch is None:
        other = resized(inputs, other_sizes(inputs)[0]) if dynamic_size else inputs
        _forget_batch(function, [x for _, x in named_tensors(model, rows(other, 1))])
    try:
        with warnings.catch_warnings(), _quiet(), attention.unfused(), attention.opened(function), _spelled_out():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                function,
                tuple(x for _, x in given),
                input_names=[name for name, _ in given],
                dynamo=True,
                dynamic_shapes=(free,) if any(free) else None,
                verbose=False,
            )
    except Exception as error:
        meaning = "its code is made for one size of images" if _about_size(error) else _meaning(error)
        raise ExportError(
            f"the model cannot be exported to ONNX{f': {meaning}' if meaning else ''} ({reason(error)}). "
            "`result.save(folder, onnx=False)` writes the PyTorch model alone."
        ) from error
    assert program is not None
    proto = program.model_proto
    _rename(proto)
    hold_zeros(proto)
    return proto


def _free(x: Tensor, batch: int, any_batch: bool, any_size: bool) -> dict[int, str] | None:
    """The dimensions of an input that a file leaves open, by name."""
    found = {0: "batch"} if any_batch and x.dim() and len(x) == batch else {}
    if any_size and is_image(x):
        found |= AXES
    return found or None


@contextlib.contextmanager
def _spelled_out() -> Iterator[None]:
    """Attention and pooling to one number in few operations.

    The exporter's own form of attention asks every key for its shape, that of pooling keeps a memory layout by
    an index of every element. Only calls by `torch.nn.functional` are met; others come out in that longer form.
    """
    originals = functional.scaled_dot_product_attention, functional.adaptive_avg_pool2d
    functional.scaled_dot_product_attention = _attention(originals[0])
    functional.adaptive_avg_pool2d = _pool(originals[1])
    try:
        yield
    finally:
        functional.scaled_dot_product_attention, functional.adaptive_avg_pool2d = originals


def _pool(original: Any) -> Any:
    """Pooling to one number per channel as a mean."""

    @functools.wraps(original)
    def pool(input: Tensor, output_size: Any) -> Tensor:
        one = output_size in (1, (1, 1), [1, 1])
        return input.mean((-2, -1), keepdim=True) if one else original(input, output_size)

    return pool


def _attention(original: Any) -> Any:
    """Scaled dot-product attention where nothing is drawn, causal or grouped; anything else is left to PyTorch."""

    @functools.wraps(original)
    def attention(query: Tensor, key: Tensor, value: Tensor, *more: Any, **named: Any) -> Tensor:
        given = {**dict(zip(("attn_mask", "dropout_p", "is_causal"), more, strict=False)), **named}
        if given.get("dropout_p") or given.get("is_causal") or given.get("enable_gqa"):
            return original(query, key, value, *more, **named)
        mask, scale = given.get("attn_mask"), given.get("scale")
        logits = query * (1 / math.sqrt(query.shape[-1]) if scale is None else scale) @ key.transpose(-2, -1)
        if mask is not None and mask.dtype == torch.bool:
            logits = logits.masked_fill(~mask, -math.inf)
        elif mask is not None:
            logits = logits + mask
        return torch.softmax(logits, -1) @ value

    return attention


def _forget_batch(function: nn.Module, one: list[Tensor]) -> None:
    """Run the network with one input, so that nothing which it remembers fits what is to be exported.

    Detectors keep their last input's shape and the anchors made for it, which would go into the file. One
    input is the batch size that the exporter itself excludes, so that no other is told apart from the rest.
    """
    try:
        function(*one)
    except Exception as error:
        raise ExportError(
            f"the model runs with 2 inputs, not with one: its code uses a constant batch size ({reason(error)}). "
            "For one batch size alone give batch (--fixed-batch)."
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
    return next((plain for pattern, plain in _MEANINGS.items() if re.search(pattern, said)), "")


def _about_size(error: BaseException) -> bool:
    """Whether an exporter found that height or width is not free."""
    return any(f"({axis})" in str(error) or f"'{axis}'" in str(error) for axis in AXES.values())


def _rename(proto: Any) -> None:
    """Give weights the names that they have in the model, without that of our own module around it."""
    names = value_names(proto)
    new = {n: n.removeprefix("model.") for n in names if n.startswith("model.")}
    rename_values(proto, {old: n for old, n in new.items() if n not in names})


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
