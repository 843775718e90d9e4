"""ONNX export, checked against the model on real inputs in ONNX Runtime."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from . import streams
from .errors import ConfigError, ExportError
from .exporter import reason, to_proto
from .files import check_name, json_of, write_atomically
from .inputs import Inputs, batch_size, call, in_float32, map_tensors, rows, tensors_in, to_dtype, unwrap
from .options import Count, checked, path_of
from .parity import ExportCheck, check_onnx, sizes_taken
from .plain import copied, plain
from .protos import finish, renamed, to_half
from .shown import brief_repr


def export_onnx(
    model: nn.Module,
    path: str | Path,
    example_inputs: Inputs,
    *,
    metadata: Mapping[str, Any] | None = None,
    fp16: bool = False,
    batch: int | None = None,
    dynamic_size: bool = False,
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
) -> ExportCheck:
    """Write a model as one ONNX file, and prove it.

    The file is put in place only after ONNX Runtime has given the model's outputs on the example
    inputs at several batch sizes (`|a - b| <= 1e-3 |a| + 1e-5 max(1, max |a|)`). Batch norms are folded into
    the weights before them.

    Args:
        model: a plain network; it is exported in eval mode and left as it was. DataParallel, AveragedModel and
            `torch.compile` wrappers are looked through.
        path: file to write.
        example_inputs: real inputs, a batch of at least 2; their number bounds the batches tried.
        metadata: stored in the file as JSON strings (classes, mean, std, ...).
        fp16: convert the weights to half precision; inputs and outputs stay float32. The check then allows
            0.5 % of the largest output. Where ONNX Runtime gets a GPU, the file is run there too, where sums are
            of half precision as well, and 1 % is allowed.
        batch: inputs per call that the file takes, and no other number, for engines that want fixed shapes; by
            default any number.
        dynamic_size: images of any height and width, where the network allows it. The file is then also
            compared with the model on the example images in larger, smaller and uneven sizes; those that the
            model itself does not take are left out.
        input_names: of the file's inputs, in their order; by default those of the arguments of `forward`.
        output_names: of the file's outputs, in their order.

    Returns:
        How far file and model are apart, at which batch sizes and image sizes and on which providers, and the
        file's opset.

    Raises:
        AttachError: the model has gates attached.
        ConfigError: `model` is no module, or another argument is not what it must be.
        ExportError: the model cannot be exported, its batch or the size of its images cannot be as free as was
            asked for, or ONNX Runtime computes something else.

    Example:
        >>> check = snnprune.export_onnx(small, "small.onnx", images[:8], metadata={"classes": ["a", "b"]})
        >>> check.batch_sizes
        (1, 2, 3, 8)
    """
    path, model = path_of("path", path), unwrap(plain(model, "export_onnx()"))
    check_name(path)
    fp16, stored = checked("fp16", fp16, bool), _stored(metadata)
    batch, dynamic_size = checked("batch", batch, Count | None), checked("dynamic_size", dynamic_size, bool)
    if batch_size(example_inputs) < 2:
        raise ExportError("export needs example inputs with a batch of at least 2.")
    with plainly():
        # The reference lives on the CPU: a GPU's reduced precision must not decide about the file.
        clone = copied(model).eval().cpu().float().requires_grad_(False)
        inputs = to_dtype(map_tensors(lambda x: x.detach().cpu().clone(), example_inputs), torch.float32)
        _refuse_what_cannot_be_compared(clone, rows(inputs, batch or 2))
        sizes = sizes_taken(clone, rows(inputs, batch or 2)) if dynamic_size else ()
        proto = to_proto(clone, inputs, batch=batch, dynamic_size=dynamic_size)
        proto = renamed(to_half(proto) if fp16 else proto, input_names, output_names)
        finish(proto, stored)
        data = proto.SerializeToString()
        check = check_onnx(clone, data, inputs, path=path, fp16=fp16, batch=batch, sizes=sizes)
    write_atomically(path, lambda p: p.write_bytes(data))
    return check


@contextlib.contextmanager
def plainly() -> Iterator[None]:
    """Float32 without gradients, whatever the caller has set; the random numbers of others are left alone."""
    with (
        in_float32(),
        torch.inference_mode(False),
        torch.no_grad(),
        torch.autocast("cpu", enabled=False),
        streams.kept(),
    ):
        yield


def _refuse_what_cannot_be_compared(model: nn.Module, inputs: Inputs) -> None:
    """Outputs that are no tensors, and those that chance decides."""
    try:
        once, again = (tensors_in(call(model, inputs)) for _ in range(2))
    except Exception as error:
        raise ExportError(f"the model does not run on the example inputs ({reason(error)}).") from error
    if not once:
        raise ExportError("the model returns no tensor, so there is nothing to export.")
    for one, other in zip(once, again, strict=False):
        if one.shape != other.shape or not torch.allclose(
            one.double(), other.double(), 1e-3, 1e-5, equal_nan=True
        ):
            raise ExportError(
                "the model draws random numbers in eval mode: twice the same inputs give other outputs, so no "
                "file can be compared with it. Let it draw only where `self.training`."
            )


def _stored(metadata: object) -> dict[str, str]:
    """Metadata as the file holds them: names, and JSON."""
    if metadata is None:
        return {}
    if not isinstance(metadata, Mapping) or not all(isinstance(name, str) for name in metadata):
        raise ConfigError(f"metadata={brief_repr(metadata)} must be a dict with names as its keys.")
    return {name: json_of(f"metadata[{name[:100]!r}]", value, ConfigError) for name, value in metadata.items()}
