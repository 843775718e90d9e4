"""From names and files to models."""

from .factory import build, load_factory, load_named, torchvision_names
from .files import check_finite
from .load import LoadedModel, load_model, load_state_
from .match import recognise
from .scan import read_scanned
from .window import first_bytes

__all__ = [
    "LoadedModel",
    "build",
    "check_finite",
    "first_bytes",
    "load_factory",
    "load_model",
    "load_named",
    "load_state_",
    "read_scanned",
    "recognise",
    "torchvision_names",
]
