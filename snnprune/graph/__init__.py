"""Groups of neurons that must live or die together."""

from .find import find_groups
from .keep import named_by, names_of
from .ops import OperationCall
from .outputs import selected
from .records import Member, NeuronGroup
from .rules import register_operation
from .shapes import LayerShapes, layer_shapes

__all__ = [
    "LayerShapes",
    "Member",
    "NeuronGroup",
    "OperationCall",
    "find_groups",
    "layer_shapes",
    "named_by",
    "names_of",
    "register_operation",
    "selected",
]
