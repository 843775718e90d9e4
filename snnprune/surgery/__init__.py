"""Fold scales into weights, and cut neurons out."""

from .fold import fold_
from .kept import KeptChannels, forget_, kept_of, kept_slices, put_back_
from .remove import remove_, set_heads_
from .resize import select_, select_slices_
from .scales import ColumnMap, Scales, check_scales, column_maps, scale_call, scale_input

__all__ = [
    "ColumnMap",
    "KeptChannels",
    "Scales",
    "check_scales",
    "column_maps",
    "fold_",
    "forget_",
    "kept_of",
    "kept_slices",
    "put_back_",
    "remove_",
    "scale_call",
    "scale_input",
    "select_",
    "select_slices_",
    "set_heads_",
]
