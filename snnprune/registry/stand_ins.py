"""Plain values of training scripts that stand beside weights: read as nothing, by none of their own code.

Checkpoints often hold the best accuracy as a number of NumPy's, paths, and the options of the script. PyTorch's
reader without code refuses them. Here an object that does nothing is made in place of each; what it was made with
was counted by the scan before, and is dropped.
"""

from __future__ import annotations

from typing import Any

NAMESPACE = "argparse.Namespace"
SCALARS = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")
DTYPE = "numpy.dtype"
PATHS = tuple(f"pathlib.{name}" for name in ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath"))
PATHS += tuple(name.replace("pathlib.", "pathlib._local.") for name in PATHS)  # Python 3.13


class Nothing:
    """In place of a value that is no part of a model."""

    def __new__(cls, *_: Any) -> Nothing:
        """One that holds nothing of what it is made with."""
        return super().__new__(cls)

    def __setstate__(self, _: Any) -> None:
        """Takes nothing in."""


def stand_ins() -> list[Any]:
    """For `torch.serialization.safe_globals`: the class and the name that it stands in for."""
    return [(Nothing, name) for name in (NAMESPACE, DTYPE, *SCALARS, *PATHS)]
