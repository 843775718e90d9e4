"""The main job, wired: from a trained model to a verified smaller one."""

from .optimizing import optimize

__all__ = ["optimize"]
