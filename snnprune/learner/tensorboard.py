"""Progress of a run for TensorBoard, by the writer that comes with PyTorch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import ConfigError
from .events import Event


class TensorBoard:
    """A callback that writes scalars: loss, cost under the budget, validation figures, kept neurons.

    Args:
        folder: of the event files; made if it is not there.

    Raises:
        ConfigError: the package `tensorboard` is not installed.
    """

    def __init__(self, folder: str | Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ConfigError(
                f"TensorBoard's files cannot be written ({error}): pip install 'snnprune[tensorboard]'."
            ) from error
        self._writer: Any = SummaryWriter(str(folder))

    def __call__(self, event: Event) -> None:
        """Write what is a number."""
        for name, value in (event.values or {}).items():
            if name == "counts":
                for group, (kept, weakened, strengthened) in value.items():
                    figures = {"kept": kept, "weakened": weakened, "strengthened": strengthened}
                    for kind, count in figures.items():
                        self._writer.add_scalar(f"{event.stage}/{kind}/{group}", count, event.step)
            elif isinstance(value, (int, float)) and event.total:
                self._writer.add_scalar(f"{event.stage}/{name}", value, event.step)

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()
