"""Models with gates, and copies of them, are refused by whatever reads weights; the user's own hooks are not."""

from __future__ import annotations

import copy
import io
import warnings

import pytest
import torch
from conftest import same_state
from torch import nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel

import snnprune
from snnprune.errors import AttachError, ConfigError, StructureError, UnsupportedModelError
from snnprune.plain import is_gated

X = torch.randn(8, 6, generator=torch.Generator().manual_seed(1))
Y = torch.arange(8) % 3
DATA = [(X, Y)] * 4
SHORT = snnprune.PruneConfig(target={"params": 0.6}, epochs=1, round_to=1)


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Dropout(0.5), nn.Linear(12, 3)).eval()


def half(gated) -> None:
    gated.set_scales({g.id: (torch.arange(g.size) % 2).float() for g in gated.groups if g.prunable})


USES = {
    "save": lambda m, folder: snnprune.save(m, folder / "saved"),
    "load": lambda m, folder: snnprune.load(folder / "good", model=m),
    "trace": lambda m, _: snnprune.trace(m, X),
    "attach": lambda m, _: snnprune.attach(m, X),
    "optimize": lambda m, _: snnprune.optimize(m, DATA, DATA, SHORT),
    "sensitivity": lambda m, _: snnprune.sensitivity(m, DATA),
    "compare": lambda m, _: snnprune.compare(net(), m, example_inputs=X),
    "export_onnx": lambda m, folder: snnprune.export_onnx(m, folder / "m.onnx", X),
}
CARRIERS = {
    "model": lambda m: m,
    "copy": copy.deepcopy,
    "copy of a copy": lambda m: copy.deepcopy(copy.deepcopy(m)),
    "average": AveragedModel,
    "parallel": nn.DataParallel,
    "part": lambda m: nn.Sequential(nn.Identity(), m),
}


@pytest.mark.parametrize("carrier", CARRIERS)
def test_no_use_passes_gates_over(carrier, tmp_path):
    snnprune.save(net(), tmp_path / "good")
    with snnprune.attach(net(), X, switcher=None) as gated:
        half(gated)
        model = CARRIERS[carrier](gated.model)
        uses = {**USES, "evaluate": lambda m, _: snnprune.evaluate(m, DATA)}
        for name, use in uses.items():
            with pytest.raises(AttachError, match=rf"^{name}\(\) needs a plain model, .*compact\(\)") as caught:
                use(model, tmp_path)
            assert "\n" not in str(caught.value)
        for refused in (model.load_state_dict, lambda state: pickle(model)):
            with pytest.raises(AttachError, match="gates attached"):
                refused(model.state_dict())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["good"]
    if carrier.startswith(("copy", "average")):
        with pytest.raises(AttachError):
            USES["save"](model, tmp_path)
    else:
        assert not is_gated(model)


def pickle(model) -> None:
    torch.save(model, io.BytesIO())


def test_what_attach_returns_is_no_model_but_can_be_evaluated(tmp_path):
    snnprune.save(net(), tmp_path / "good")
    with snnprune.attach(net(), X, switcher=None) as gated:
        half(gated)
        for name, use in USES.items():
            with pytest.raises(AttachError, match=rf"^{name}\(\) needs a plain model"):
                use(gated, tmp_path)
        for refused in (copy.deepcopy, pickle):
            with pytest.raises(AttachError, match="gates are not"):
                refused(gated)
        gated.model.train()  # with dropout the figures would differ
        assert snnprune.evaluate(gated, DATA) == snnprune.evaluate(gated.compact(), DATA)
        assert gated.model.training


def test_a_copy_computes_what_the_model_computed_then():
    model = net().double()
    x = X.double()
    with snnprune.attach(model, x) as gated:
        gated.set_budget({"params": 0.5})
        out = gated(x)  # its scales hang on a graph, which nothing can copy
        copied = copy.deepcopy(model)
        assert torch.equal(copied(x), model(x))
        gated.set_budget({"params": 0.9})
        assert not torch.allclose(model(x), out)
    for scale in (None, 0.5):
        with snnprune.attach(model, x, switcher=None) as again:
            if scale is not None:
                again.set_scales({g.id: torch.full((g.size,), scale) for g in again.groups if g.prunable})
            assert torch.allclose(copied(x), out, rtol=1e-12, atol=1e-14)
    assert torch.allclose(copied(x), out, rtol=1e-12, atol=1e-14)
    fresh = net().double()
    fresh.load_state_dict(copied.state_dict())
    assert same_state(fresh, model)


def test_a_gated_models_state_goes_back_whole():
    states = []
    for _ in range(2):
        with snnprune.attach(net(), X, seed=len(states)) as gated:
            gated.set_budget({"params": 0.5})
            if states:
                gated.set_phase("network", gradient="held")
                assert gated.scales.keys() == states[0][1].keys()  # computed, and held from now on
                gated.load_state_dict(states[0][0])
            else:
                with torch.no_grad():
                    for parameter in (*gated.network_parameters(), *gated.scorer_parameters()):
                        parameter.add_(0.01 * torch.randn(parameter.shape))
            states.append((copy.deepcopy(gated.state_dict()), gated.scales))
    assert all(torch.equal(states[1][1][n], s) for n, s in states[0][1].items())
    with snnprune.attach(net(), X, switcher=None) as gated:
        assert gated.state_dict()["scorer"] is None
        gated.load_state_dict({"model": states[0][0]["model"], "scorer": None})
        assert torch.equal(gated.model[0].weight, states[0][0]["model"]["0.weight"])


def test_switched_connections_are_refused_like_gates():
    from snnprune.switching.connections import ConnectionModel, ConnectionScorer

    model = net()
    with ConnectionModel(model, snnprune.trace(model, X), ["0"], scorer=ConnectionScorer(model, ["0"])) as gated:
        for carrier in (gated, gated.model):
            with pytest.raises(AttachError, match="needs a plain model"):
                snnprune.trace(carrier, X)
        assert snnprune.evaluate(gated, DATA).count == 32


def test_hooks_of_the_users_own_are_no_obstacle(tmp_path):
    model, seen = net(), []
    model[0].register_forward_hook(lambda _m, _x, out: seen.append(len(out)))
    model[1].register_forward_pre_hook(lambda _m, x: (2 * x[0],))
    with snnprune.attach(model, X, switcher=None) as gated:
        half(gated)
        small = gated.compact()
    check = snnprune.export_onnx(small, tmp_path / "m.onnx", X)
    assert check.max_abs_error < 1e-5
    snnprune.save(small, tmp_path / "run")
    assert seen


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("model.pt", "the path 'model.pt'"),
        ({}, "a state dict"),
        (nn.Linear, "the class Linear"),
        (None, "NoneType"),
        (3, "int"),
    ],
)
def test_what_is_no_model_is_told_at_once(given, said, tmp_path):
    snnprune.save(net(), tmp_path / "good")
    for name, use in USES.items():
        with pytest.raises(
            ConfigError, match=rf"^{name}\(\) needs a torch.nn.Module as model, but was given {said}"
        ):
            use(given, tmp_path)
    with pytest.raises(ConfigError, match="needs a torch"):
        snnprune.evaluate(given, DATA)


def test_models_without_values_are_refused(tmp_path):
    with torch.device("meta"):
        meta = net()
    lazy = nn.Sequential(nn.LazyLinear(4), nn.ReLU(), nn.Linear(4, 3))
    for name, use in USES.items():
        if name != "load":
            with pytest.raises(ConfigError, match=rf"^{name}\(\): 0.weight of the model is on the device meta"):
                use(meta, tmp_path)
        with pytest.raises(ConfigError, match=rf"^{name}\(\): 0.weight of the model has no shape yet"):
            use(lazy, tmp_path)


class Tied(nn.Module):
    """Two layers of one weight, one of them frozen with it, and a buffer that no file holds."""

    def __init__(self, *, table: bool = False) -> None:
        super().__init__()
        self.first, self.again, self.head = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 3)
        self.again.weight = self.first.weight
        self.head.bias.requires_grad_(False)
        if table:
            self.register_buffer("table", torch.ones(6), persistent=False)

    def forward(self, x):
        return self.head(F.relu(self.again(F.relu(self.first(x)))))


def test_loading_fills_a_model_on_meta(tmp_path):
    torch.manual_seed(0)
    model = Tied()
    snnprune.save(model, tmp_path)
    with torch.device("meta"):
        meta = Tied()
    again = snnprune.load(tmp_path, model=meta)
    assert torch.equal(again(X), model(X))
    assert again.again.weight is again.first.weight
    assert [p.requires_grad for p in again.parameters()] == [p.requires_grad for p in model.parameters()]
    with torch.device("meta"):
        meta = Tied(table=True)
    with pytest.raises(StructureError, match="table of Tied is on the device meta"):
        snnprune.load(tmp_path, model=meta)


@pytest.mark.parametrize("off", [torch.no_grad, torch.inference_mode])
def test_runs_and_gates_begun_without_gradients_learn_all_the_same(off, tmp_path):
    model = net()
    with off():
        result = snnprune.optimize(model, [(X.clone(), Y)] * 4, DATA, SHORT)
        gated = snnprune.attach(model, X)
        gated.set_budget({"params": 0.5})
        small = gated.compact()
        snnprune.save(small, tmp_path)
        loaded = snnprune.load(tmp_path, model=net())
    plain = snnprune.optimize(net(), DATA, DATA, SHORT)
    assert same_state(result.model, plain.model)
    for model in (gated, small, loaded, result.model):
        F.cross_entropy(model(X), Y).backward()
    assert gated.scorer.offsets.grad is not None
    gated.detach()


def test_a_model_made_in_inference_mode_is_copied_or_refused():
    with torch.inference_mode():
        made = net()
    with pytest.raises(ConfigError, match=r"made under torch\.inference_mode"):
        snnprune.attach(made, X)
    snnprune.attach(copy.deepcopy(made), X).detach()
    assert same_state(
        snnprune.optimize(made, DATA, DATA, SHORT).model, snnprune.optimize(net(), DATA, DATA, SHORT).model
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("granularity", ["neuron", "connection"])
def test_the_default_dtype_of_the_program_changes_nothing(dtype, granularity):
    model = net()
    config = snnprune.PruneConfig(target={"params": 0.6}, epochs=5, round_to=1, granularity=granularity)
    wanted = snnprune.optimize(model, DATA, DATA, config)
    torch.set_default_dtype(dtype)
    try:
        found = snnprune.optimize(model, DATA, DATA, config)
        assert torch.get_default_dtype() is dtype
    finally:
        torch.set_default_dtype(torch.float32)
    assert same_state(found.model, wanted.model)
    assert all(torch.equal(found.scales[n], s) for n, s in wanted.scales.items())


def test_a_model_that_cannot_be_copied_is_refused_by_all():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        old = torch.nn.utils.weight_norm(nn.Linear(4, 8))
    model, x = nn.Sequential(old, nn.ReLU(), nn.Linear(8, 3)), torch.randn(4, 4)
    batches, config = [(x, torch.arange(4) % 3)] * 2, snnprune.PruneConfig(target={"macs": 0.5}, epochs=1)
    for use in (
        lambda: snnprune.trace(model, x),
        lambda: snnprune.optimize(model, batches, batches, config),
        lambda: snnprune.contest(model, batches, batches, config, methods=["l2"], seeds=1),
        lambda: snnprune.sensitivity(model, batches),
        lambda: snnprune.bench({"it": model}, example_inputs=x),
        lambda: snnprune.profile(model, x),
    ):
        with pytest.raises(UnsupportedModelError, match="Old-style weight norm"):
            use()
