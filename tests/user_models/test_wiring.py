"""How users join and call their layers: flattened, repeated, shared, checkpointed."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

import snnprune
from snnprune.metrics import count_macs
from user_models.conftest import CONFIG, X, Y, cnn, exact


class Permuted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.c, self.o = nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.Linear(64, 5)

    def forward(self, x):
        return self.o(F.relu(self.c(x)).permute(0, 2, 3, 1).flatten(1))


def swapped(y):
    """Code of no module, whose sizes are what they are."""
    return torch.cat(y.split(2, 1)[::-1], 1)


def test_constant_example_inputs_prove_as_much_as_others():
    class ByConstant(Permuted):
        def forward(self, x):
            y = F.relu(self.c(x))
            return self.o(swapped(y).flatten(1))

    assert "c" not in exact(ByConstant(), X[:, :, :4, :4], torch.zeros(2, 3, 4, 4))


def test_channels_are_followed_through_a_permuted_flattening():
    assert "c" in exact(Permuted(), X[:, :, :4, :4])


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


@pytest.mark.parametrize(
    ("model", "x"), [(TwoScales(), torch.randn(2, 3, 32, 32)), (Frames(), torch.randn(2, 8, 3, 8, 8))]
)
def test_every_call_of_a_layer_is_priced(model, x):
    with snnprune.attach(model, x) as gated:
        gated.set_budget({"macs": 0.5})
        share = count_macs(gated.compact(), x) / count_macs(model, x)
    assert 0.35 < share <= 0.5


class Auxiliary(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3)
        self.o, self.x = nn.Linear(8, 5), nn.Linear(8, 5)

    def forward(self, x):
        h = F.relu(self.a(x))
        y = self.o(F.relu(self.b(h)).mean((2, 3)))
        return y + 0.3 * self.x(h.mean((2, 3))) if self.training else y


def test_heads_that_run_only_in_training_are_seen():
    config = snnprune.PruneConfig(target={"macs": 0.7}, epochs=4, search=snnprune.SearchOptions(share=0.5))
    result = snnprune.optimize(Auxiliary(), [(X, Y)], None, config)
    result.model.train()(X)
    assert result.report.compact.macs <= 0.7 * result.report.dense.macs


class Checkpointed(nn.Module):
    def __init__(self, *, reentrant: bool) -> None:
        super().__init__()
        self.stem, self.block, self.head = nn.Conv2d(3, 8, 3, padding=1), cnn()[3:5], nn.Linear(16, 5)
        self.grow, self.reentrant = nn.Conv2d(8, 16, 1), reentrant

    def forward(self, x):
        x = self.grow(F.relu(self.stem(x)))
        x = checkpoint(self.block, x, use_reentrant=self.reentrant)
        return self.head(x.mean((2, 3)))


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointed_blocks(reentrant):
    assert exact(Checkpointed(reentrant=reentrant), X) == {"stem", "grow", "block.3"}
    if not reentrant:  # the reentrant kind frees the scales' graph at the first block, by its nature
        result = snnprune.optimize(Checkpointed(reentrant=False), [(X, Y)], None, CONFIG)
        assert result.report.compact.macs < result.report.dense.macs


class Shared(nn.Module):
    """One block at two places, between layers of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.block, self.o = nn.Conv2d(3, 8, 3, padding=1), cnn()[3:5], nn.Linear(16, 5)
        self.again, self.up = self.block, nn.Conv2d(8, 16, 1)

    def forward(self, x):
        return self.o(self.again(self.block(self.up(F.relu(self.a(x))))).mean((2, 3)))


def test_shared_modules_are_one():
    assert "a" in exact(Shared(), X)


def test_layers_called_on_their_own_are_gated_too():
    model = cnn().eval()
    with torch.no_grad(), snnprune.attach(model, X[:2]) as gated:
        gated.set_budget({"macs": 0.4})
        alone = X
        for layer in model:
            alone = layer(alone)
        spread = float(alone.std())
        assert float((alone - gated(X)).abs().max()) < 1e-5 * spread
    assert float((alone - model(X)).detach().abs().max()) > 1e-2 * spread, "the gates do something"


def test_inference_mode_between_training_steps():
    model = cnn()
    with snnprune.attach(model, X[:2]) as gated:
        for gradient in ("through", "held"):
            gated.set_phase("network", gradient=gradient)
            with torch.inference_mode():
                gated(X)
            gated(X).sum().backward()
