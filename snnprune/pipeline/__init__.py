"""The main job, wired: from a trained model to a verified smaller one."""

from .optimize import optimize
from .result import Result
from .runs import Opened, newest_run, open_model, run_metadata

__all__ = ["Opened", "Result", "newest_run", "open_model", "optimize", "run_metadata"]
