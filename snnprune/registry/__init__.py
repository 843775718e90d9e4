"""From names and files to models."""

from .factory import build, load_factory, torchvision_names
from .files import check_finite
from .load import LoadedModel, load_model, load_state_
from .match import recognise
from .scan import scan

__all__ = [
    "LoadedModel",
    "build",
    "check_finite",
    "load_factory",
    "load_model",
    "load_state_",
    "recognise",
    "scan",
    "torchvision_names",
]
