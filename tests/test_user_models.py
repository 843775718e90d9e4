"""Oddities of users' models: each is exact, or refused by name."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
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
    assert exact(Functional(), X) == {"b"}


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


def test_wrappers_are_looked_through():
    model = cnn()
    names = {g.id for g in snnprune.trace(model, X[:2])}
    for wrapped in (nn.DataParallel(model), torch.compile(model), torch.compile(nn.DataParallel(model))):
        assert {g.id for g in snnprune.trace(wrapped, X[:2])} == names
        with snnprune.attach(wrapped, X[:2]) as gated:
            assert gated.model is model
    result = snnprune.optimize(torch.compile(model), [(X, Y)], None, CONFIG)
    assert type(result.model) is nn.Sequential


@pytest.mark.filterwarnings("ignore")  # dynamo's own
def test_compiled_parts_run_eagerly_under_gates():
    part, whole = cnn(), cnn()
    part[3] = torch.compile(part[3])
    whole.compile()
    for model in (part, whole):
        with snnprune.attach(model, X[:2]) as gated:
            gated.set_budget({"macs": 0.5})
            assert relative_difference(gated(X), gated.compact()(X)) < 1e-4
            assert count_macs(gated.compact(), X) <= 0.5 * count_macs(cnn(), X)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
def test_prefixes_of_wrappers_are_stripped(prefix, tmp_path):
    from snnprune.registry import load_model

    net = torchvision.models.squeezenet1_1(num_classes=3)
    torch.save({prefix + k: v for k, v in net.state_dict().items()}, tmp_path / "m.pt")
    assert load_model(tmp_path / "m.pt").arch == "squeezenet1_1"


def test_a_fully_frozen_model_learns_its_scales():
    model = cnn().requires_grad_(False)
    result = snnprune.optimize(model, [(X, Y)] * 2, None, CONFIG)
    assert result.report.compact.macs <= 0.5 * result.report.dense.macs
    assert not any(p.requires_grad for p in result.model.parameters())


def test_frozen_parts_stay_frozen():
    model = cnn()
    model[0].requires_grad_(False)
    result = snnprune.optimize(model, [(X, Y)] * 2, None, CONFIG)
    flags = [p.requires_grad for p in result.model.parameters()]
    assert flags[:2] == [False, False]
    assert all(flags[2:])
    ours, before = result.model[0].weight, model[0].weight
    kept = [i for i in range(16) if any(torch.equal(before[i], row) for row in ours)]
    assert len(kept) == len(ours) < 16, "frozen weights are cut, never changed"


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


class Text(nn.Module):
    """Token inputs and a causal mask of a constant size."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.place = nn.Embedding(50, 16), nn.Parameter(torch.randn(1, 6, 16))
        self.up, self.down, self.o = nn.Linear(16, 32), nn.Linear(32, 16), nn.Linear(16, 5)

    def forward(self, tokens, mask=None):
        x = self.tokens(tokens) + self.place
        x = x + self.down(F.gelu(self.up(x)))
        return self.o((x * mask[..., None]).sum(1) if mask is not None else x.mean(1))


def test_integer_inputs_and_keyword_inputs():
    example = {"tokens": torch.randint(0, 50, (2, 6)), "mask": torch.ones(2, 6)}
    groups = {g.id: g for g in snnprune.trace(Text(), example)}
    assert groups["up"].prunable
    with snnprune.attach(Text(), example, switcher=None) as gated:
        gated.set_scales(random_scales(gated.groups, torch.Generator().manual_seed(0)))
        assert relative_difference(gated(**example), gated.compact()(**example)) < 1e-5


def test_scripted_models_say_what_to_do():
    with pytest.raises(UnsupportedModelError, match="TorchScript"):
        snnprune.trace(torch.jit.script(cnn()), X[:2])
