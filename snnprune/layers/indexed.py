"""The one layer of the package's own: a linear layer that reads only some features of its input."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


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
