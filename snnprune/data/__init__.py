"""Data sets by name, from folders, arrays or code."""

from .load import Splits, info_of, load_data
from .loader import ArrayLoader, DataInfo, loader_on

__all__ = ["ArrayLoader", "DataInfo", "Splits", "info_of", "load_data", "loader_on"]
