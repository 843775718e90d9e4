"""Fold scales into weights, cut neurons out, and prove that nothing else changed."""

from .check import (
    TOLERANCE,
    Difference,
    random_scales,
    randomize_norms_,
    relative_difference,
    removal_difference,
    verify_groups,
)
from .fold import fold_
from .remove import layer_masks, remove_, set_heads_
from .resize import select_, select_slices_
from .scales import ColumnMap, Scales, check_scales, column_maps, scale_input

__all__ = [
    "TOLERANCE",
    "ColumnMap",
    "Difference",
    "Scales",
    "check_scales",
    "column_maps",
    "fold_",
    "layer_masks",
    "random_scales",
    "randomize_norms_",
    "relative_difference",
    "removal_difference",
    "remove_",
    "scale_input",
    "select_",
    "select_slices_",
    "set_heads_",
    "verify_groups",
]
