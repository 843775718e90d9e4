"""Training mode is set where something has changed it, and only there."""

from __future__ import annotations

import pytest
from torch import nn

from snnprune.learner.modes import TrainingMode


class Stubborn(nn.Sequential):
    """Keeps its first layer in evaluation mode, as fine-tuning recipes do."""

    def __init__(self) -> None:
        super().__init__(nn.BatchNorm1d(3), nn.Dropout(), nn.Sequential(nn.BatchNorm1d(3)))
        self.calls = 0

    def train(self, mode: bool = True):
        super().train(mode)
        self.calls += 1
        self[0].eval()
        return self


@pytest.mark.parametrize(("frozen", "wanted"), [(False, True), (True, False)])
def test_modes_are_what_train_makes_of_them(frozen, wanted):
    model = Stubborn().eval()
    mode = TrainingMode(model, freeze_norm=frozen)
    model.calls = 0
    for _ in range(3):
        mode.set()
        assert [model.training, model[0].training, model[1].training] == [True, False, True]
        assert model[2][0].training is wanted
    assert model.calls == 1, "nothing has changed since"
    for change in (model[1].eval, model[0].train, model.eval):
        change()
        mode.set()
        assert [model.training, model[0].training, model[1].training] == [True, False, True]
        assert model[2][0].training is wanted
