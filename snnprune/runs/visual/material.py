"""What the figures are drawn from: the files of a run folder, and nothing else."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from ...errors import RunError, first_line
from ...files import STRUCTURE, read_json
from ...shown import cut
from ..report import Report

REPORT, SCALES, PICTURES = "report.json", "scales.safetensors", "pictures.safetensors"


@dataclass(frozen=True, slots=True)
class Material:
    """A run, as far as it can be drawn.

    Attributes:
        name: of the run folder.
        report: its `report.json`.
        scales: group id -> (size,) scales at compaction; empty where there are none on file.
        pictures: `input` (channels, height, width), and for some layers `<layer>|pruned` and
            `<layer>|strengthened`, (maps, height, width); all uint8.
        input_shape: of one input, where it is one tensor.
        network: what it is called, as the architecture or else the class; empty where it is not on file.
        classes: of the data; 0 where that is not known.
        widths: layer -> its outputs in the compact model.
    """

    name: str
    report: Report
    scales: dict[str, Tensor] = field(default_factory=dict)
    pictures: dict[str, Tensor] = field(default_factory=dict)
    input_shape: tuple[int, ...] = ()
    network: str = ""
    classes: int = 0
    widths: dict[str, int] = field(default_factory=dict)

    def pixels(self) -> tuple[str, tuple[int, int, int]] | None:
        """The group whose neurons are the values of the input image, and the image's shape."""
        if len(self.input_shape) != 3:
            return None
        for name, scale in self.scales.items():
            if name.endswith(":in") and len(scale) == math.prod(self.input_shape):
                channels, height, width = self.input_shape
                return name, (channels, height, width)
        return None


def read_material(folder: Path, report: Report | None = None) -> Material:
    """Read a run folder, and its report where that is not given.

    Raises:
        RunError: it holds no report, or a file of it is damaged.
    """
    if not (folder / REPORT).is_file():
        raise RunError(f"{folder} is no finished run folder (it has no {REPORT}).")
    structure = read_json(folder / STRUCTURE) if (folder / STRUCTURE).is_file() else {}
    structure = structure if isinstance(structure, dict) else {}
    shape, classes = structure.get("input_shape"), structure.get("classes")
    plain = isinstance(shape, list) and all(type(v) is int and 0 < v < 2**16 for v in shape)
    return Material(
        folder.resolve().name.removesuffix(".partial"),
        Report.read(folder / REPORT) if report is None else report,
        _tensors(folder / SCALES, dims=1, fits=_are_scales, what="finite numbers of at least 0"),
        _tensors(folder / PICTURES, dims=3, fits=_are_bytes, what="bytes"),
        tuple(shape) if plain and shape else (),
        _network(structure),
        len(classes) if isinstance(classes, list) else 0,
        _widths(structure.get("layers")),
    )


def _network(structure: Mapping[str, Any]) -> str:
    """`resnet18` of an architecture of that name, `function` of `file.py:function`; else the class."""
    factory = structure.get("factory")
    arch = factory.get("arch") if isinstance(factory, dict) else None
    name = arch if isinstance(arch, str) else structure.get("class")
    return re.split(r"[:.]", name)[-1].strip() if isinstance(name, str) else ""


def _widths(layers: Any) -> dict[str, int]:
    """Outputs of layers, as far as a structure file tells."""
    found: dict[str, int] = {}
    for name, sizes in layers.items() if isinstance(layers, dict) else ():
        out = sizes.get("out") if isinstance(sizes, dict) else None
        if type(out) is int:
            found[name] = out
    return found


def _tensors(path: Path, *, dims: int, fits: Callable[[Tensor], bool], what: str) -> dict[str, Tensor]:
    if not path.is_file():
        return {}
    try:
        found = load_file(path)
    except Exception as error:  # its own, and those of element types that PyTorch lacks
        raise RunError(f"{path} cannot be read ({first_line(error)}); remove it to go without it.") from error
    for name, tensor in found.items():
        if tensor.dim() != dims or not tensor.numel():
            wrong = f"has shape {tuple(tensor.shape)}"
        elif not fits(tensor):
            wrong = f"does not hold {what}"
        else:
            continue
        raise RunError(f"{path}: {cut(name, 100)!r} {wrong}; remove the file to go without it.")
    return found


def _are_scales(tensor: Tensor) -> bool:
    return tensor.is_floating_point() and bool(((tensor >= 0) & (tensor < math.inf)).all())


def _are_bytes(tensor: Tensor) -> bool:
    return tensor.dtype == torch.uint8
