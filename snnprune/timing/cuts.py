"""A network as it is and cut in a few ways, as skeletons of what would serve it."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ..export import plainly
from ..exporter import to_proto
from ..graph import NeuronGroup
from ..inputs import Inputs, map_tensors, to_dtype
from ..protos import to_half
from ..surgery import remove_
from .skeleton import strip

Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Cut:
    """One way to cut a network.

    Attributes:
        kept: group -> (size,) boolean; empty where all stays.
        skeleton: of the graph that an engine would get.
    """

    kept: Mapping[str, Mask]
    skeleton: Any


def cut(model: nn.Module, groups: Sequence[NeuronGroup], kept: Mapping[str, Mask]) -> nn.Module:
    """A copy of a model with only these neurons.

    Raises:
        CollapsedLayerError: a layer would be left empty.
    """
    scales = {name: torch.from_numpy(mask.astype(np.float32)) for name, mask in kept.items()}
    with torch.inference_mode(False), torch.no_grad():
        return remove_(copy.deepcopy(model), groups, scales)


def skeleton_of(model: nn.Module, example_inputs: Inputs, *, batch: int, fp16: bool) -> Any:
    """What an engine gets of a model, without its weights.

    Raises:
        ExportError: it cannot be exported.
    """
    with plainly():
        clone = copy.deepcopy(model).eval().cpu().float().requires_grad_(False)
        inputs = to_dtype(map_tensors(lambda x: x.detach().cpu().clone(), example_inputs), torch.float32)
        proto = to_proto(clone, inputs, batch=batch)
    return strip(_halved(proto) if fp16 else proto)


def _halved(proto: Any) -> Any:
    """In half precision, as what serves will be, with the shapes and types of all that lies between."""
    import onnx

    half = to_half(proto)
    del half.graph.value_info[:]
    return onnx.shape_inference.infer_shapes(half, data_prop=True)
