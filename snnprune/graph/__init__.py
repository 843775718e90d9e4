"""Groups of neurons that must live or die together."""

from .find import find_groups
from .keep import named_by
from .records import Member, NeuronGroup, Role
from .shapes import LayerShapes, layer_shapes

__all__ = [
    "LayerShapes",
    "Member",
    "NeuronGroup",
    "Role",
    "find_groups",
    "layer_shapes",
    "named_by",
]
