"""From names and files to models."""

from .factory import build, load_factory, torchvision_names
from .load import LoadedModel, load_model

__all__ = ["LoadedModel", "build", "load_factory", "load_model", "torchvision_names"]
