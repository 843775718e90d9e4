"""snnprune: structured pruning of trained PyTorch models by learned switchers, exact to the last digit.

A switcher reads a model's own weights and gives every neuron a scale >= 0. Switcher and model learn
alternately; neurons of scale 0 are removed, the other scales are folded into the next layer's weights.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
"""Version of the package, after semantic versioning."""

_EXPORTS = {
    "ArrayLoader": "data",
    "Event": "learner",
    "GatedModel": "gates",
    "IndexedLinear": "layers",
    "NeuronGroup": "graph",
    "PruneConfig": "learner",
    "Report": "report",
    "Result": "pipeline",
    "SnnPruneError": "errors",
    "Switcher": "switcher",
    "attach": "gates",
    "bench_onnx": "bench",
    "compare": "report",
    "evaluate": "metrics",
    "export_onnx": "export",
    "load": "saving",
    "load_data": "data",
    "onnx_metadata": "runtime",
    "optimize": "pipeline",
    "save": "saving",
    "sensitivity": "pipeline",
    "trace": "tracing",
}

__all__ = [
    "ArrayLoader",
    "Event",
    "GatedModel",
    "IndexedLinear",
    "NeuronGroup",
    "PruneConfig",
    "Report",
    "Result",
    "SnnPruneError",
    "Switcher",
    "__version__",
    "attach",
    "bench_onnx",
    "compare",
    "evaluate",
    "export_onnx",
    "load",
    "load_data",
    "onnx_metadata",
    "optimize",
    "save",
    "sensitivity",
    "trace",
]

if TYPE_CHECKING:
    from .bench import bench_onnx
    from .data import ArrayLoader, load_data
    from .errors import SnnPruneError
    from .export import export_onnx
    from .gates import GatedModel, attach
    from .graph import NeuronGroup
    from .layers import IndexedLinear
    from .learner import Event, PruneConfig
    from .metrics import evaluate
    from .pipeline import Result, optimize, sensitivity
    from .report import Report, compare
    from .runtime import onnx_metadata
    from .saving import load, save
    from .switcher import Switcher
    from .tracing import trace


def __getattr__(name: str) -> Any:
    """Load public names on first use, so that importing the package stays light."""
    if name in _EXPORTS:
        return getattr(importlib.import_module(f".{_EXPORTS[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
