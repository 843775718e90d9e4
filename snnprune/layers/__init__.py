"""Kinds of layers, attention modules and windows: what of them is read, and how they are cut."""

from .kinds import (
    NORM_TENSORS,
    PER_CHANNEL,
    IndexedLinear,
    channel_count,
    in_width,
    input_dim,
    is_conv,
    is_customized,
    is_grouped,
    is_linear,
    out_width,
    output_dim,
    weight_columns,
    weight_rows,
)

__all__ = [
    "NORM_TENSORS",
    "PER_CHANNEL",
    "IndexedLinear",
    "channel_count",
    "in_width",
    "input_dim",
    "is_conv",
    "is_customized",
    "is_grouped",
    "is_linear",
    "out_width",
    "output_dim",
    "weight_columns",
    "weight_rows",
]
