"""What `snnprune evaluate` measures: a run, a model file, or an ONNX file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ExportError, ModelFileError
from ..feeds import OnnxModel
from ..files import missing
from ..graph import layer_shapes
from ..inputs import first_images
from ..measures import Evaluation, Measure
from ..metrics import evaluate
from ..pipeline.checks import check_classes
from ..runs.folder import Opened, open_model
from ..runtime import onnx_metadata, open_session


def evaluator(
    path: Path,
    *,
    arch: str | None = None,
    num_classes: int | None = None,
    trust_pickle: bool = False,
    entry: str | None = None,
    device: str = "cpu",
    metric: Measure | None = None,
) -> tuple[Opened | None, Callable[[Any], Evaluation]]:
    """The opened model (None for ONNX) and a function that measures it on a loader.

    Args:
        path: of a run, a model file or an ONNX file.
        arch: architecture, where none is recognised.
        num_classes: outputs of that model.
        trust_pickle: load any pickled model.
        entry: of a checkpoint, which weights to take.
        device: where to run.
        metric: of the user's own; by default the accuracy. Only it knows then what batches and outputs are.

    Raises:
        ModelFileError: there is no such file, or it cannot be read.
        RunError: the run is damaged, or needs `arch`.
        ExportError: ONNX Runtime cannot load the file.
    """
    if path.suffix == ".onnx":
        if not path.is_file():
            raise ModelFileError(missing(path))
        providers = ["CUDAExecutionProvider"] if device.startswith("cuda") else []
        session = open_session(path, [*providers, "CPUExecutionProvider"])
        inputs = session.get_inputs()
        if len(inputs) != 1:
            raise ExportError(f"{path} has {len(inputs)} inputs; one, of images, is needed.")
        name, file = inputs[0].name, OnnxModel(path, session)

        def run(images: Tensor) -> Tensor:
            return torch.from_numpy(file({name: images.numpy(force=True)}))

        def measure_onnx(loader: Any) -> Evaluation:
            if metric is not None:
                return evaluate(OnnxNetwork(run), loader, metric=metric)
            check_classes(run, first_images(loader, 2), loader)
            return evaluate(run, loader, device="cpu")

        return None, measure_onnx
    opened = open_model(path, arch=arch, num_classes=num_classes, trust_pickle=trust_pickle, entry=entry)
    opened.model.to(device)

    def measure(loader: Any) -> Evaluation:
        if metric is not None:
            return evaluate(opened.model, loader, metric=metric)
        example = first_images(loader, 2).to(device)
        layer_shapes(opened.model, example)  # says so when the images do not fit
        check_classes(opened.model, example, loader)
        return evaluate(opened.model, loader)

    return opened, measure


class OnnxNetwork(nn.Module):
    """An ONNX file as a network on the CPU, of which code can ask where it is.

    Args:
        run: what the file computes of images.
    """

    def __init__(self, run: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.run = run
        self.place = nn.Parameter(torch.empty(0), requires_grad=False)

    def forward(self, images: Tensor) -> Tensor:
        """The file's first output."""
        return self.run(images)


@dataclass(frozen=True, slots=True)
class Recorded:
    """What an ONNX file tells of the images that it takes, as an opened run does.

    Attributes:
        structure: `normalization`, `crop_ratio`, and `input_shape` without the batch.
        model: none, because there is only the file.
    """

    structure: dict[str, Any]
    model: None = None


def recorded_in(path: Path) -> Recorded:
    """The normalisation, cut and shape of an input that an ONNX file was exported with."""
    shape, told = list(open_session(path).get_inputs()[0].shape[1:]), onnx_metadata(path)
    known = {key: told.get(f"snnprune.{key}") for key in ("normalization", "crop_ratio")}
    return Recorded({**known, "input_shape": shape})
