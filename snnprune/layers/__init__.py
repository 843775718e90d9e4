"""Kinds of layers, attention modules and windows: what of them is read, and how they are cut."""

from .indexed import IndexedLinear
from .kinds import (
    channel_dim,
    group_count,
    in_width,
    input_dim,
    is_channelwise,
    is_computed,
    is_conv,
    is_customized,
    is_grouped,
    is_linear,
    is_own,
    is_parted,
    is_reading,
    is_weighted,
    kind_of,
    main_weight,
    out_width,
    output_dim,
    parts_of_input,
    tensors,
    weight_columns,
    weight_rows,
)
from .known import enter_all
from .register import check_rules, misfit, register_layer

enter_all()

__all__ = [
    "IndexedLinear",
    "channel_dim",
    "check_rules",
    "group_count",
    "in_width",
    "input_dim",
    "is_channelwise",
    "is_computed",
    "is_conv",
    "is_customized",
    "is_grouped",
    "is_linear",
    "is_own",
    "is_parted",
    "is_reading",
    "is_weighted",
    "kind_of",
    "main_weight",
    "misfit",
    "out_width",
    "output_dim",
    "parts_of_input",
    "register_layer",
    "tensors",
    "weight_columns",
    "weight_rows",
]
