"""Layers and products of the user's own, and layers of all kinds and dimensions."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import snnprune
from snnprune.metrics import count_macs
from snnprune.proof import relative_difference
from user_models.conftest import X, exact


class FakeQuantized(nn.Conv2d):
    def forward(self, x):
        step = self.weight.abs().max() / 7
        return self._conv_forward(x, (self.weight / step).round() * step, self.bias)


@pytest.mark.parametrize("seed", range(5))
def test_a_convolution_of_the_users_own_is_kept_where_it_is_not_linear(seed):
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.ReLU(),
        FakeQuantized(8, 8, 3),
        nn.ReLU(),
        nn.Conv2d(8, 8, 1),
        nn.ReLU(),
        nn.Conv2d(8, 5, 1),
    )
    assert exact(model, X) == {"4"}, "what is rounded cannot be folded into, and sets the scale of its neighbours"


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        self.c, self.d, self.r, self.o = (
            nn.Conv2d(3, 8, 3),
            nn.Conv2d(8, 8, 3),
            kind(8, 10, batch_first=True),
            nn.Linear(10, 5),
        )

    def forward(self, x):
        x = F.relu(self.d(F.relu(self.c(x)))).flatten(2).transpose(1, 2)
        return self.o(self.r(x)[0][:, -1])


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_recurrent_heads_lose_inputs(kind):
    assert {"c", "d"} <= exact(Recurrent(kind), X)


class Texts(nn.Module):
    """A classifier of sequences; a cell is asked step by step."""

    def __init__(self, kind, **options) -> None:
        super().__init__()
        self.words, self.into = nn.Embedding(20, 16), nn.Linear(16, 32)
        self.layer = kind(32, 16, **options)
        self.hidden, self.out = nn.Linear(16 * (1 + ("bidirectional" in options)), 24), nn.Linear(24, 3)

    def forward(self, x):
        x, state = F.relu(self.into(self.words(x))), None
        if isinstance(self.layer, nn.RNNBase):
            last = self.layer(x)[0][:, -1]
        else:
            for step in x.unbind(1):
                state = self.layer(step, state)
            last = state[0] if isinstance(state, tuple) else state
        return self.out(F.relu(self.hidden(last)))


@pytest.mark.parametrize("target", [{"macs": 0.9}, {"params": 0.85}])
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (nn.LSTM, {"batch_first": True}),
        (nn.GRU, {"batch_first": True, "bidirectional": True}),
        (nn.RNN, {"batch_first": True, "num_layers": 2}),
        (nn.LSTMCell, {}),
    ],
)
def test_networks_with_recurrent_layers_are_pruned_to_a_target(kind, options, target, tmp_path):
    torch.manual_seed(0)
    model, x = Texts(kind, **options), torch.randint(0, 20, (8, 5))
    batches = [(x, torch.arange(8) % 3)] * 4
    config = snnprune.PruneConfig(target=target, epochs=1, round_to=1)
    result = snnprune.optimize(model, batches, batches, config)
    (metric, share) = next(iter(target.items()))
    kept = getattr(result.report.compact, metric) / getattr(result.report.dense, metric)
    assert share - 0.02 <= kept <= share
    if metric == "macs":
        assert count_macs(result.model, x) == result.report.compact.macs
    assert result.report.exactness["remove"] <= 1e-9
    result.save(tmp_path / "run", onnx=False)
    again = snnprune.load(tmp_path / "run", model=Texts(kind, **options))
    with torch.no_grad():
        assert torch.equal(again(x), result.model(x))


class Functional(nn.Module):
    """A convolution written with `F.conv2d` and parameters of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.o = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), nn.Linear(8, 5)
        self.kernel = nn.Parameter(torch.randn(8, 8, 1, 1))

    def forward(self, x):
        x = F.conv2d(F.relu(self.a(x)), self.kernel)
        return self.o(F.relu(self.b(F.relu(x))).mean((2, 3)))


def test_functional_convolutions_keep_what_they_read():
    groups = {g.id: g for g in snnprune.trace(Functional(), X[:2])}
    assert "'kernel'" in str(groups["a"].reason)
    assert exact(Functional(), X) == {"b", "kernel"}


class Matrix(nn.Module):
    """Products with parameters, both ways round, and with a layer's weight outside its call."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c, self.o = nn.Linear(12, 10), nn.Linear(9, 8), nn.Linear(8, 7), nn.Linear(7, 5)
        self.left, self.right = nn.Parameter(torch.randn(11, 10)), nn.Parameter(torch.randn(11, 9))
        self.bias = nn.Parameter(torch.randn(11))

    def forward(self, x):
        x = F.relu(F.linear(F.relu(self.a(x)), self.left, self.bias)) @ self.right
        x = F.linear(F.relu(self.b(F.relu(x))), self.c.weight, self.c.bias)
        return self.o(F.relu(x))


def test_matrices_of_the_users_own():
    groups = {g.id: g for g in snnprune.trace(Matrix(), torch.randn(2, 12))}
    assert "'left'" in str(groups["a"].reason) or "left are used outside" in str(groups["a"].reason)
    assert "c are used outside" in str(groups["b"].reason)
    assert {"c", "right"} <= exact(Matrix(), torch.randn(16, 12))


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_convolutions_of_all_dimensions(dims):
    conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dims - 1]
    back = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)[dims - 1]
    norm = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)[dims - 1]
    model = nn.Sequential(
        conv(2, 6, 3), norm(6), nn.ReLU(), back(6, 8, 3, stride=2), norm(8), nn.SiLU(), back(8, 8, 2, groups=4),
        nn.ReLU(), conv(8, 4, 1), nn.ReLU(), conv(4, 3, 1),
    )  # fmt: skip
    assert exact(model, torch.randn(3, 2, *[6] * dims)) == {"0", "3", "8"}


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("parts", [4, 8])
def test_grouped_transposed_convolutions_go_the_whole_way(dims, parts, tmp_path):
    """Upsampling as in many decoders: a switcher reads the weights, a budget cuts, a file holds it."""
    torch.manual_seed(0)
    conv, norm = (
        (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dims - 1],
        (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)[dims - 1],
    )
    back = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)[dims - 1]

    def network() -> nn.Module:
        up = back(8, 16, 3, stride=2, groups=parts)  # groups of other widths on both sides
        return nn.Sequential(conv(2, 8, 1), nn.ReLU(), up, norm(16), nn.ReLU(), conv(16, 3, 1)).double().eval()

    model, x = network(), torch.randn(2, 2, *[3] * dims).double()
    for options in (
        {"start": "fresh"},
        {"switcher": "free"},
        {"batches": [x], "loss": lambda m, b: m(b).square().mean()},
    ):
        with snnprune.attach(model, x, floor=0.01, **options) as gated:
            gated.set_budget({"macs": 0.5})
            small = gated.compact()
            kept = len(gated.scales["0"].nonzero())
            assert relative_difference(gated(x), small(x)) <= 1e-10
    assert 0 < kept < parts
    width, out = kept * 8 // parts, kept * 16 // parts
    assert (small[2].in_channels, small[2].out_channels, small[2].groups) == (width, out, kept)
    before, after = 3**dims, 7**dims
    hand = before * width * (2 + 3**dims * 16 // parts) + after * out * 3
    assert snnprune.metrics.count_macs(small, x) == hand
    snnprune.save(small, tmp_path / "run")
    assert torch.equal(snnprune.load(tmp_path / "run", model=network())(x), small(x))
