"""snnprune: structured pruning of trained PyTorch models by learned switchers, exact to the last digit.

A switcher reads a model's own weights and gives every neuron a scale >= 0. Switcher and model learn together, from
the same batches. Then neurons of scale 0 are removed, and the other scales are folded into the weights that read
them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
"""Version of the package, after semantic versioning."""

_EXPORTS = {
    "ArrayLoader": "data",
    "Contest": "rivals",
    "Event": "learner",
    "GatedModel": "switching",
    "IndexedLinear": "layers",
    "KeptChannels": "surgery",
    "Latency": "timing.latency",
    "Metric": "measures",
    "NeuronGroup": "graph",
    "OperationCall": "graph",
    "Progress": "learner",
    "PruneConfig": "learner",
    "RecoveryOptions": "learner",
    "Registration": "registrations",
    "Report": "runs.report",
    "Result": "runs.result",
    "SearchOptions": "learner",
    "Serving": "timing.serving",
    "SnnPruneError": "errors",
    "Switcher": "switching.switcher",
    "attach": "switching",
    "bench": "timing.bench",
    "bench_onnx": "timing.bench",
    "compare": "runs.comparing",
    "contest": "rivals",
    "evaluate": "metrics",
    "export_onnx": "export",
    "kept_channels": "runs.kept",
    "load": "runs.saving",
    "load_data": "data",
    "onnx_metadata": "runtime",
    "optimize": "pipeline",
    "profile": "analysis.profiling",
    "profile_script": "analysis.profiling",
    "quantize_onnx": "quantize",
    "register_layer": "layers",
    "register_operation": "graph",
    "save": "runs.saving",
    "sensitivity": "analysis",
    "trace": "proof",
}

__all__ = [
    "ArrayLoader",
    "Contest",
    "Event",
    "GatedModel",
    "IndexedLinear",
    "KeptChannels",
    "Latency",
    "Metric",
    "NeuronGroup",
    "OperationCall",
    "Progress",
    "PruneConfig",
    "RecoveryOptions",
    "Registration",
    "Report",
    "Result",
    "SearchOptions",
    "Serving",
    "SnnPruneError",
    "Switcher",
    "__version__",
    "attach",
    "bench",
    "bench_onnx",
    "compare",
    "contest",
    "evaluate",
    "export_onnx",
    "kept_channels",
    "load",
    "load_data",
    "onnx_metadata",
    "optimize",
    "profile",
    "profile_script",
    "quantize_onnx",
    "register_layer",
    "register_operation",
    "save",
    "sensitivity",
    "trace",
]

if TYPE_CHECKING:
    from .analysis import sensitivity
    from .analysis.profiling import profile, profile_script
    from .data import ArrayLoader, load_data
    from .errors import SnnPruneError
    from .export import export_onnx
    from .graph import NeuronGroup, OperationCall, register_operation
    from .layers import IndexedLinear, register_layer
    from .learner import Event, Progress, PruneConfig, RecoveryOptions, SearchOptions
    from .measures import Metric
    from .metrics import evaluate
    from .pipeline import optimize
    from .proof.tracing import trace
    from .quantize import quantize_onnx
    from .registrations import Registration
    from .rivals import Contest, contest
    from .runs.comparing import compare
    from .runs.kept import kept_channels
    from .runs.report import Report
    from .runs.result import Result
    from .runs.saving import load, save
    from .runtime import onnx_metadata
    from .surgery import KeptChannels
    from .switching import GatedModel, attach
    from .switching.switcher import Switcher
    from .timing.bench import bench, bench_onnx
    from .timing.latency import Latency
    from .timing.serving import Serving


def __getattr__(name: str) -> Any:
    """Load public names on first use, so that importing the package stays light."""
    if name in _EXPORTS:
        return getattr(importlib.import_module(f".{_EXPORTS[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
