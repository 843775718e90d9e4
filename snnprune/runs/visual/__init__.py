"""What a run looks like: figures and one page that needs nothing but itself."""

from .compared import comparison, head, write_comparison
from .curves import write_sensitivity
from .material import PICTURES, SCALES, Material, read_material
from .page import PAGE, PLOTS, write_page

__all__ = [
    "PAGE",
    "PICTURES",
    "PLOTS",
    "SCALES",
    "Material",
    "comparison",
    "head",
    "read_material",
    "write_comparison",
    "write_page",
    "write_sensitivity",
]
