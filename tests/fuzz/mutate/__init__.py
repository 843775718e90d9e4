"""Ways to damage a file, one module for each format."""

from .graphs import mutate_onnx
from .jsons import mutate_json
from .pickles import mutate_pickle, zipped_pickle
from .raw import mutate_bytes
from .tensors import mutate_safetensors
from .zips import mutate_zip

__all__ = [
    "mutate_bytes",
    "mutate_json",
    "mutate_onnx",
    "mutate_pickle",
    "mutate_safetensors",
    "mutate_zip",
    "zipped_pickle",
]
