"""The main job, wired: from a trained model to a verified smaller one."""

from .optimize import optimize
from .plan import Plan, plan
from .result import Result
from .runs import Opened, newest_run, open_model, run_metadata
from .sensitivity import Sensitivity, sensitivity

__all__ = [
    "Opened",
    "Plan",
    "Result",
    "Sensitivity",
    "newest_run",
    "open_model",
    "optimize",
    "plan",
    "run_metadata",
    "sensitivity",
]
