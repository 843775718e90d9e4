"""What must not stop the proof."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from traps import Body, X, by_id

import snnprune
from snnprune.metrics import count_macs
from snnprune.proof import random_scales, relative_difference
from snnprune.switching import Options, switch_neurons


def test_keyword_calls_are_gated():
    class Keywords(Body):
        def forward(self, x):
            return self.c(input=F.relu(self.b(input=F.relu(self.a(input=x)))))

    model = Keywords()
    with snnprune.attach(model, X) as gated:
        gated.set_budget({"macs": 0.5})
        small = gated.compact()
        assert relative_difference(gated(X), small(X)) < 1e-4
        assert count_macs(small, X) <= 0.5 * count_macs(model, X)


def test_layers_with_children_are_priced():
    class Observed(nn.Conv2d):
        def __init__(self, *args: int) -> None:
            super().__init__(*args)
            self.observer = nn.Identity()

    model = nn.Sequential(Observed(3, 8, 3), nn.ReLU(), Observed(8, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 1))
    groups = snnprune.trace(model, X)
    scales = random_scales(groups, torch.Generator().manual_seed(0))
    with switch_neurons(model, groups, X, Options(scores=None)) as gated:
        gated.set_scales(scales)
        kept = {n: (s > 0).numpy() for n, s in scales.items()}
        assert gated.cost.cost("macs", kept) == pytest.approx(count_macs(gated.compact(), X))


def test_buffers_that_appear_in_training():
    class Lazy(Body):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("ema", None)

        def end(self, x):
            if self.training:
                self.ema = x.mean().detach()
            return x

    model = Lazy()
    assert by_id(model)["a"].prunable
    assert model.ema is None


class Between(Body):
    """A module of the user's choice between the two layers."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def middle(self, x):
        return self.module(x)


@pytest.mark.parametrize(
    "drop", [nn.Dropout2d(0.5), nn.FeatureAlphaDropout(0.5), nn.Dropout(0.5), nn.AlphaDropout(0.5)]
)
def test_dropout_is_no_obstacle(drop):
    assert by_id(Between(drop).train())["a"].prunable


def test_tracing_draws_nothing_from_the_callers_random_stream():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Dropout(0.5), nn.Conv2d(8, 4, 1))
    before = torch.get_rng_state()
    snnprune.trace(model, X)
    assert torch.equal(before, torch.get_rng_state())


def test_a_batch_of_one_with_a_pooled_norm():
    class Pooled(Between):
        def middle(self, x):
            return x * self.module(x)

    pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8), nn.Sigmoid())
    assert by_id(Pooled(pool), X[:1])["a"].prunable


@pytest.mark.parametrize(
    "act", [nn.Mish(inplace=True), nn.GELU(), nn.Hardswish(inplace=True), nn.Threshold(0.1, 0.0, True)]
)
def test_activations_in_place(act):
    class Activated(Between):
        def middle(self, x):
            x = self.module(x)
            x[x < 0] = 0
            return x.abs_()

    assert by_id(Activated(act))["a"].prunable


@pytest.mark.parametrize(
    ("places", "prunable"),
    [
        (lambda x: (x < 0,), True),
        (lambda x: (torch.arange(8).reshape(1, 8, 1, 1).expand_as(x) < 3,), False),  # three certain channels
        (lambda x: (torch.tensor([0, 1])[:, None], torch.tensor([2, 5])), False),
        (lambda x: (x[:, :, 0, 0] < 0,), False),  # a mask of images and channels
    ],
)
def test_numbers_written_into_places(places, prunable):
    class Written(Between):
        def middle(self, x):
            x = self.module(x).clone()
            return x.index_put_(places(x), x.new_tensor(0.5))

    assert by_id(Written(nn.ReLU()))["a"].prunable == prunable


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("first", [True, False])
def test_encoders_with_padding_masks(first):
    class Padded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            layer = nn.TransformerEncoderLayer(24, 4, 40, 0.0, batch_first=first)
            self.body = nn.TransformerEncoder(layer, 2, enable_nested_tensor=first)
            self.head = nn.Linear(24, 5)

        def forward(self, x, padding=None):
            x = self.body(x if first else x.transpose(0, 1), src_key_padding_mask=padding)
            return self.head(x[:, 0] if first else x[0])

    torch.manual_seed(0)
    model, x = Padded().double().eval(), torch.randn(3, 6, 24, dtype=torch.float64)
    padding = torch.zeros(3, 6, dtype=torch.bool)
    padding[:, 4:] = True
    expected = model(x, padding)
    for example in ((x,), (x, padding)):
        groups = snnprune.trace(model, example)
        heads = [g.id for g in groups if g.heads]
        assert len(heads) == 2
        with switch_neurons(model, groups, example, Options(scores=None)) as gated, torch.no_grad():
            scales = {heads[1]: torch.tensor([1.0, 0.0, 1.0, 0.5])}  # of the second layer alone
            gated.set_scales(scales)
            small = gated.compact()
            assert relative_difference(gated(x, padding), small(x, padding)) < 1e-10
            assert relative_difference(expected, small(x, padding)) > 1e-3
        assert relative_difference(expected, model(x, padding)) < 1e-12


def test_decisions_that_rounding_flips_are_no_fault():
    """All scores are equal up to rounding, so which comes first says nothing."""

    class Decides(Body):
        def end(self, x):
            scores = x.sum((1, 2, 3)) * 0 + (x - x.mean()).mean((1, 2, 3)) * 1e-30
            order = (scores * 1e14).sin().argsort()
            return x[order], order

    groups = by_id(Decides())
    assert groups["a"].prunable
    assert groups["b"].prunable
