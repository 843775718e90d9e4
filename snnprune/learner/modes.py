"""Training mode for every step, set only where something has changed it."""

from __future__ import annotations

from torch import nn


class TrainingMode:
    """Puts a model into training mode before a step.

    `model.train()` goes through all modules in Python, which takes a millisecond for a deep network; whether some
    module has left its mode since (a validation, a loss of the user's) is seen in a hundredth of that.

    Args:
        model: the network; its modules stay the same.
        freeze_norm: leave every batch norm in evaluation mode, so that its statistics stay.
    """

    def __init__(self, model: nn.Module, *, freeze_norm: bool) -> None:
        self._model, self._freeze_norm = model, freeze_norm
        self._modules = list(model.modules())
        self._modes: list[bool] | None = None  # as they were right after they were set

    def set(self) -> None:
        """Make it so."""
        if self._modes is not None and [module.training for module in self._modules] == self._modes:
            return
        self._model.train()
        for module in self._modules:
            if self._freeze_norm and isinstance(module, nn.modules.batchnorm._NormBase):
                module.eval()
        self._modes = [module.training for module in self._modules]
