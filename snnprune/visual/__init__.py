"""What a run looks like: figures and one page that needs nothing but itself."""

from .compared import write_comparison
from .material import PICTURES, SCALES, Material, read_material
from .page import PAGE, PLOTS, write_page

__all__ = [
    "PAGE",
    "PICTURES",
    "PLOTS",
    "SCALES",
    "Material",
    "read_material",
    "write_comparison",
    "write_page",
]
