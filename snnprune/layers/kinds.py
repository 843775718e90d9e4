"""What the package knows of a layer type: where its channels lie, and the one layer of its own.

`input_dim`/`output_dim` say which dimension of `weight` runs over the input and output channels.
"""

from __future__ import annotations

from typing import TypeGuard

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.conv import _ConvNd

_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
PER_CHANNEL = (
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.BatchNorm3d,
    nn.SyncBatchNorm,
    nn.InstanceNorm1d,
    nn.InstanceNorm2d,
    nn.InstanceNorm3d,
    nn.GroupNorm,
    nn.PReLU,
)
NORM_TENSORS = ("weight", "bias", "running_mean", "running_var")  # of per-channel layers, each (channels,)


class IndexedLinear(nn.Linear):
    """A linear layer that reads only some features of its input.

    It is what remains of an `nn.Linear` after single input neurons were removed. Parameter names stay
    as they were; `index` is a buffer. It exports to ONNX as one Gather in front of the Gemm.

    Args:
        in_features: features that are read: columns of the weight.
        out_features: rows of the weight.
        bias: whether the layer has one, (out_features,).
        source_features: width of the input before the selection.
        index: features of the input to read, (in_features,) integers in [0, source_features); by default
            the first ones.

    Example:
        >>> layer = snnprune.IndexedLinear(2, 3, source_features=5, index=torch.tensor([0, 4]))
        >>> layer(torch.rand(7, 5)).shape
        torch.Size([7, 3])
    """

    index: Tensor

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        source_features: int,
        index: Tensor | None = None,
    ) -> None:
        super().__init__(in_features, out_features, bias)
        self.source_features = source_features
        self.register_buffer("index", torch.arange(in_features) if index is None else index.long())

    def forward(self, input: Tensor) -> Tensor:
        """Select, then multiply: (..., source_features) -> (..., out_features).

        Args:
            input: (..., source_features), of the weight's type and device.

        Raises:
            RuntimeError: the input has another width, which the selection alone would not notice.
        """
        if input.shape[-1] != self.source_features:
            raise RuntimeError(f"expected {self.source_features} input features, got {input.shape[-1]}")
        return F.linear(torch.index_select(input, -1, self.index), self.weight, self.bias)

    def extra_repr(self) -> str:
        """Shown by print(model)."""
        return f"source_features={self.source_features}, {super().extra_repr()}"


def is_conv(module: nn.Module) -> TypeGuard[_ConvNd]:
    """True for plain and transposed convolutions."""
    return isinstance(module, _ConvNd)


def is_linear(module: nn.Module) -> bool:
    """True for linear layers that compute x W' + b and nothing else."""
    return isinstance(module, nn.Linear) and type(module).forward in (
        nn.Linear.forward,
        IndexedLinear.forward,
    )


def is_customized(module: nn.Module) -> bool:
    """True for a convolution or linear layer whose class computes its output in a way of its own."""
    if is_conv(module):
        return not type(module).__module__.startswith("torch.nn.")
    return isinstance(module, nn.Linear) and not is_linear(module)


def is_depthwise(module: nn.Module) -> bool:
    """True for a convolution that maps every channel to itself alone."""
    return is_conv(module) and module.groups > 1 and module.groups == module.in_channels == module.out_channels


def is_grouped(module: nn.Module) -> bool:
    """True for a grouped convolution, depthwise ones included: it is cut by whole groups."""
    return is_conv(module) and module.groups > 1


def input_dim(module: nn.Module) -> int:
    """Dimension of `weight` that runs over the input channels."""
    return 0 if isinstance(module, _TRANSPOSED) else 1


def output_dim(module: nn.Module) -> int:
    """Dimension of `weight` that runs over the output channels."""
    return 1 if isinstance(module, _TRANSPOSED) else 0


def in_width(module: nn.Module) -> int:
    """Width of the layer's *input*, before any index selection."""
    if isinstance(module, IndexedLinear):
        return module.source_features
    if isinstance(module, nn.Linear):
        return module.in_features
    assert is_conv(module)
    return module.in_channels


def out_width(module: nn.Module) -> int:
    """Number of output channels or features."""
    if isinstance(module, nn.Linear):
        return module.out_features
    assert is_conv(module)
    return module.out_channels


def channel_count(module: nn.Module) -> int:
    """Channels of a per-channel layer; 1 for a PReLU with a shared slope."""
    if isinstance(module, nn.PReLU):
        return module.num_parameters
    if isinstance(module, nn.GroupNorm):
        return module.num_channels
    return int(module.num_features)  # type: ignore[arg-type]


def weight_columns(module: nn.Module, weight: Tensor) -> Tensor:
    """The layer's weight as (input channels, everything else): one row per column of the layer.

    For an `IndexedLinear` the rows run over the selected features only.

    Args:
        module: the layer.
        weight: its weight, or a tensor of that shape.
    """
    return _by_channel(weight, input_dim(module), module.groups if is_conv(module) else 1)


def weight_rows(module: nn.Module, weight: Tensor) -> Tensor:
    """The layer's weight as (output channels, everything else): one row per neuron.

    Args:
        module: the layer.
        weight: its weight, or a tensor of that shape.
    """
    return _by_channel(weight, output_dim(module), module.groups if is_conv(module) else 1)


def _by_channel(weight: Tensor, dim: int, groups: int) -> Tensor:
    """A view of the weight with all channels in front that run over `dim`.

    The first dimension of a grouped convolution's weight runs over all channels of its side, group by group,
    the second over those of one group alone: a channel's weights are then in the slices of its own group.
    """
    if dim == 0:
        return weight.flatten(1)
    return weight.unflatten(0, (groups, -1)).transpose(1, 2).flatten(0, 1).flatten(1)
