"""Groups of neurons that must live or die together."""

from .find import find_groups
from .records import Member, NeuronGroup, Role
from .shapes import LayerShapes, layer_shapes

__all__ = [
    "LayerShapes",
    "Member",
    "NeuronGroup",
    "Role",
    "find_groups",
    "layer_shapes",
]
