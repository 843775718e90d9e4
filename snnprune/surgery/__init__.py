"""Fold scales into weights, cut neurons out, and prove that nothing else changed."""

from .compare import (
    TOLERANCE,
    Difference,
    gated_by,
    gated_difference,
    measured,
    random_scales,
    randomize_norms_,
    relative_difference,
    removal_difference,
)
from .fold import fold_
from .remove import layer_masks, remove_, set_heads_
from .resize import select_, select_slices_
from .scales import ColumnMap, Scales, check_scales, column_maps, scale_call, scale_input
from .verify import verify_groups

__all__ = [
    "TOLERANCE",
    "ColumnMap",
    "Difference",
    "Scales",
    "check_scales",
    "column_maps",
    "fold_",
    "gated_by",
    "gated_difference",
    "layer_masks",
    "measured",
    "random_scales",
    "randomize_norms_",
    "relative_difference",
    "removal_difference",
    "remove_",
    "scale_call",
    "scale_input",
    "select_",
    "select_slices_",
    "set_heads_",
    "verify_groups",
]
