"""Oddities of users' models: each is exact, or refused by name."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

import snnprune
from snnprune.errors import DataError, UnsupportedModelError
from snnprune.metrics import count_macs
from snnprune.surgery import random_scales, relative_difference

X = torch.randn(16, 3, 8, 8, generator=torch.Generator().manual_seed(0))
Y = torch.randint(0, 5, (16,), generator=torch.Generator().manual_seed(1))
CONFIG = snnprune.PruneConfig(target={"macs": 0.5}, epochs=4, search=0.5)


def cnn() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 5),
    )


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.o = nn.Linear(12, 12), nn.Linear(12, 12), nn.Linear(12, 5)
        self.b.weight = self.a.weight

    def forward(self, x):
        return self.o(F.relu(self.b(F.relu(self.a(x)))))


class FakeQuantized(nn.Conv2d):
    def forward(self, x):
        step = self.weight.abs().max() / 7
        return self._conv_forward(x, (self.weight / step).round() * step, self.bias)


class Permuted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.c, self.o = nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.Linear(64, 5)

    def forward(self, x):
        return self.o(F.relu(self.c(x)).permute(0, 2, 3, 1).flatten(1))


class TwoScales(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.i, self.h, self.k = (
            nn.Conv2d(3, 16, 3, padding=1),
            nn.Conv2d(16, 32, 3, padding=1),
            nn.Conv2d(32, 16, 1),
        )
        self.o = nn.Linear(16, 5)

    def forward(self, x):
        x = F.relu(self.i(x))
        parts = [F.relu(self.k(F.relu(self.h(y)))).mean((2, 3)) for y in (F.avg_pool2d(x, 4), x)]
        return self.o(sum(parts))


class Frames(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.c = cnn()

    def forward(self, x):
        b, t = x.shape[:2]
        return self.c(x.flatten(0, 1)).view(b, t, -1).mean(1)


class Auxiliary(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3)
        self.o, self.x = nn.Linear(8, 5), nn.Linear(8, 5)

    def forward(self, x):
        h = F.relu(self.a(x))
        y = self.o(F.relu(self.b(h)).mean((2, 3)))
        return y + 0.3 * self.x(h.mean((2, 3))) if self.training else y


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


def exact(model: nn.Module, x: torch.Tensor, example: torch.Tensor | None = None) -> set[str]:
    """Prune with random scales, compare, and return the prunable groups."""
    model, x = model.double().eval(), x.double()
    groups = snnprune.trace(model, x[:2] if example is None else example.double())
    with snnprune.attach(model, x[:2], switcher=None) as gated:
        gated.groups = groups
        scales = random_scales(groups, torch.Generator().manual_seed(0))
    with snnprune.gates.attach_groups(model, groups, x[:2], scorer=None) as gated:
        gated.set_scales(scales)
        assert relative_difference(gated(x), gated.compact()(x)) <= 1e-10
    return {g.id for g in groups if g.prunable}


def test_tied_weights_are_not_folded_twice():
    assert "b" in exact(Tied(), torch.randn(16, 12))


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


def test_constant_example_inputs_prove_as_much_as_others():
    class ByConstant(Permuted):
        def forward(self, x):
            y = F.relu(self.c(x))
            return self.o(torch.cat(y.split(2, 1)[::-1], 1).flatten(1))

    assert "c" not in exact(ByConstant(), X[:, :, :4, :4], torch.zeros(2, 3, 4, 4))


def test_channels_are_followed_through_a_permuted_flattening():
    assert "c" in exact(Permuted(), X[:, :, :4, :4])


@pytest.mark.parametrize(
    ("model", "x"), [(TwoScales(), torch.randn(2, 3, 32, 32)), (Frames(), torch.randn(2, 8, 3, 8, 8))]
)
def test_every_call_of_a_layer_is_priced(model, x):
    with snnprune.attach(model, x) as gated:
        gated.set_budget({"macs": 0.5})
        share = count_macs(gated.compact(), x) / count_macs(model, x)
    assert 0.35 < share <= 0.5


def test_heads_that_run_only_in_training_are_seen():
    config = snnprune.PruneConfig(target={"macs": 0.7}, epochs=4, search=0.5)
    result = snnprune.optimize(Auxiliary(), [(X, Y)], None, config)
    result.model.train()(X)
    assert result.report.compact.macs <= 0.7 * result.report.dense.macs


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_recurrent_heads_keep_their_inputs(kind):
    found = exact(Recurrent(kind), X)
    assert "c" in found
    assert "d" not in found


def test_batches_of_the_users_own_with_a_loss():
    batches = [{"x": X, "y": Y}] * 2
    result = snnprune.optimize(
        cnn(), batches, None, CONFIG, loss_fn=lambda m, b: F.cross_entropy(m(b["x"]), b["y"]), example_inputs=X[:4]
    )
    assert result.report.exactness["remove"] <= 1e-10


def test_two_inputs(tmp_path):
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.o = nn.Conv2d(3, 12, 3), nn.Conv2d(3, 12, 3), nn.Linear(24, 5)

        def forward(self, left, right):
            parts = [F.relu(self.a(left)).mean((2, 3)), F.relu(self.b(right)).mean((2, 3))]
            return self.o(torch.cat(parts, 1))

    result = snnprune.optimize(
        Two(),
        [(X, X.flip(0), Y)] * 2,
        None,
        CONFIG,
        loss_fn=lambda m, b: F.cross_entropy(m(b[0], b[1]), b[2]),
        example_inputs=(X[:4], X[4:8]),
    )
    result.save(tmp_path / "run")
    assert result.report.exactness["onnx"] < 1e-5


class Stream(IterableDataset):
    def __iter__(self):
        return iter(zip(X, Y, strict=True))


@pytest.mark.parametrize(
    "loader",
    [DataLoader(TensorDataset(X), batch_size=8), DataLoader(Stream(), batch_size=8), [X[:8], X[8:]]],
    ids=["inputs alone", "no length", "tensors"],
)
def test_loaders_of_all_kinds(loader):
    assert snnprune.optimize(cnn(), loader, None, CONFIG).report.compact.macs > 0


def test_batches_of_three_parts_say_what_is_needed():
    with pytest.raises(DataError, match="3 parts"):
        snnprune.optimize(cnn(), [(X, Y, Y)], None, CONFIG)


def test_a_fixed_dtype_is_named_as_the_cause():
    class Bytes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.c = cnn()

        def forward(self, x):
            return self.c(x.float() / 255)

    with pytest.raises(UnsupportedModelError, match="float64"):
        snnprune.trace(Bytes(), (X * 100).to(torch.uint8))


def test_layers_called_on_their_own_are_gated_too():
    model = cnn().eval()
    with torch.no_grad(), snnprune.attach(model, X[:2]) as gated:
        gated.set_budget({"macs": 0.4})
        alone = X
        for layer in model:
            alone = layer(alone)
        assert torch.equal(alone, gated(X))


def test_inference_mode_between_training_steps():
    model = cnn()
    with snnprune.attach(model, X[:2]) as gated:
        for gradient in ("through", "held"):
            gated.set_phase("network", gradient=gradient)
            with torch.inference_mode():
                gated(X)
            gated(X).sum().backward()


def test_double_and_bfloat16_models_export(tmp_path):
    for name, dtype in (("d", torch.float64), ("b", torch.bfloat16)):
        model = cnn().to(dtype).eval()
        check = snnprune.export_onnx(model, tmp_path / f"{name}.onnx", X[:4].to(dtype))
        assert check.max_abs_error < 1e-4


def test_tied_weights_stay_tied_when_saved(tmp_path):
    model = Tied()
    snnprune.save(model, tmp_path / "m")
    again = snnprune.load(tmp_path / "m", model=Tied())
    assert again.b.weight is again.a.weight
