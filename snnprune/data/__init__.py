"""Data sets by name, from folders, arrays or code."""

from .load import Splits, info_of, load_data, some
from .loader import ArrayLoader, BatchLoader, DataInfo, loader_on
from .streaming import StreamLoader

__all__ = [
    "ArrayLoader",
    "BatchLoader",
    "DataInfo",
    "Splits",
    "StreamLoader",
    "info_of",
    "load_data",
    "loader_on",
    "some",
]
