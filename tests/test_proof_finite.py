"""Inputs that are not finite: refused where the model makes no numbers of them, and taken where it does."""

from __future__ import annotations

import math

import pytest
import torch
from conftest import randomized
from torch import nn

import snnprune
from snnprune.errors import ConfigError, DataError
from snnprune.proof.finite import check_numbers


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_no_number_is_laid_on_the_inputs(value):
    """It was said that nothing in the model can be pruned exactly."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    x = torch.randn(8, 6)
    wrong = x.clone()
    wrong[1, 3] = value
    labels = torch.arange(8) % 3
    for call in (snnprune.trace, lambda m, x: snnprune.attach(m, x).__enter__()):
        with pytest.raises(ConfigError, match=r"1 values of example_inputs .*Mend or leave\s+out"):
            call(model, wrong)
    config = snnprune.PruneConfig(target={"macs": 0.5}, epochs=1)
    good, bad = [(x, labels)], [(wrong, labels)]
    for train, val, part in ((bad, good, "training"), (good, bad, "validation")):
        with pytest.raises(DataError, match=f"1 values of the first inputs of the {part}"):
            snnprune.optimize(model, train, val, config)
    with pytest.raises(ConfigError, match="values of example_inputs"):
        snnprune.optimize(model, good, good, config, example_inputs=wrong)


def test_what_the_model_makes_numbers_of_is_taken():
    """NaN for a missing value, infinity for no limit; a matrix that is sparse."""

    class Patient(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(6, 8), nn.Linear(8, 3)

        def forward(self, x, most):
            x = torch.minimum(torch.where(x.isnan(), 0.0, x), most)
            return self.last(torch.relu(self.first(x)))

    model, x = randomized(Patient), torch.randn(4, 6, dtype=torch.float64)
    x[0, 1] = math.nan
    most = torch.tensor(math.inf, dtype=torch.float64)
    assert any(group.prunable for group in snnprune.trace(model, (x, most)))
    check_numbers(nn.Linear(3, 3), torch.eye(3).to_sparse(), "a matrix")
    norm = nn.BatchNorm1d(6).train()
    with pytest.raises(ConfigError, match="1 values of x"):
        check_numbers(norm, x.float(), "x")
    assert norm.training
    assert norm.num_batches_tracked == 0


def test_minus_infinity_is_a_mask():
    """Noise on it was no number, so that nothing of the network could be pruned."""

    class Attends(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.TransformerEncoderLayer(12, 2, 20, batch_first=True, dropout=0.0)
            self.head = nn.Linear(12, 3)

        def forward(self, x, mask):
            return self.head(self.body(x, src_mask=mask)[:, -1])

    model, x = randomized(Attends), torch.randn(4, 5, 12, dtype=torch.float64)
    mask = torch.full((5, 5), -math.inf, dtype=torch.float64).triu(1)
    groups = {group.id: group for group in snnprune.trace(model, (x, mask))}
    hidden = groups["body.linear1"]
    assert hidden.prunable
    with snnprune.attach(model, (x, mask), switcher=None) as gated:
        gated.set_scales({"body.linear1": (torch.arange(20) % 3).double() / 2})
        wanted = gated(x, mask)
        small = gated.compact()
    assert small.body.linear1.out_features == 13
    torch.testing.assert_close(small(x, mask), wanted, rtol=1e-12, atol=1e-12)
