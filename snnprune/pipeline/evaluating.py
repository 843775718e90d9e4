"""What `snnprune evaluate` measures: a run, a model file, or an ONNX file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import ModelFileError
from ..export import onnx_metadata, open_session
from ..metrics import Evaluation, evaluate
from .runs import Opened, open_model


def evaluator(
    path: Path,
    *,
    arch: str | None = None,
    num_classes: int | None = None,
    trust_pickle: bool = False,
    device: str = "cpu",
) -> tuple[Opened | None, Callable[[Any], Evaluation]]:
    """The opened model (None for ONNX) and a function that measures it on a loader."""
    if path.suffix == ".onnx":
        if not path.is_file():
            raise ModelFileError(f"there is no file {path}.")
        providers = ["CUDAExecutionProvider"] if device.startswith("cuda") else []
        session = open_session(path, [*providers, "CPUExecutionProvider"])
        name = session.get_inputs()[0].name

        def run(images: Tensor) -> Tensor:
            return torch.from_numpy(session.run(None, {name: images.numpy()})[0])

        return None, lambda loader: evaluate(run, loader, device="cpu")
    opened = open_model(path, arch=arch, num_classes=num_classes, trust_pickle=trust_pickle)
    opened.model.to(device)
    return opened, lambda loader: evaluate(opened.model, loader)


def onnx_normalization(path: Path) -> Any:
    """An object with the `structure` that an ONNX file's metadata tells of."""

    class _Meta:
        structure = {"normalization": onnx_metadata(path).get("snnprune.normalization")}  # noqa: RUF012

    return _Meta()
