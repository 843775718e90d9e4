"""One Parameter is one thing: united, folded once, cut once, counted once, and tied in the result and its file."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file
from tied_models import MODELS, Chain, Heads, made
from torch import nn

import snnprune
from snnprune.errors import StructureError
from snnprune.inputs import tensors_in
from snnprune.metrics import count_macs, count_params


def same_names(model: nn.Module) -> set[tuple[str, ...]]:
    groups: dict[int, list[str]] = {}
    for name, tensor in model.named_parameters(remove_duplicate=False):
        groups.setdefault(id(tensor), []).append(name)
    return {tuple(names) for names in groups.values() if len(names) > 1}


@pytest.mark.parametrize("metric", ["params", "macs"])
@pytest.mark.parametrize("name", sorted(MODELS))
def test_shared_parameters_are_cut_and_counted_once_and_stay_shared(name, metric, tmp_path):
    model, x = made(name)
    with snnprune.attach(model, x) as gated:
        gated.set_budget({metric: 0.6})
        small = gated.compact().eval()
        kept = {n: (s > 0).numpy() for n, s in gated.scales.items()}
        said = {m: gated.cost.cost(m, kept) for m in ("params", "macs")}
        wanted = tensors_in(gated(x))
        folded = gated.fold().eval()
    for form in (folded, small):
        for left, right in zip(wanted, tensors_in(form(x)), strict=True):
            torch.testing.assert_close(left, right, rtol=0, atol=1e-12)
    assert same_names(small) == same_names(model)
    real = {"params": count_params(small), "macs": count_macs(small, x)}
    assert said == pytest.approx(real, abs=0.51)
    whole = count_params(model) if metric == "params" else count_macs(model, x)
    assert 0.5 < real[metric] / whole <= 0.6
    snnprune.save(small, tmp_path / "saved")
    again = snnprune.load(tmp_path / "saved", model=made(name)[0])
    assert all(torch.equal(a, b) for a, b in zip(tensors_in(small(x)), tensors_in(again(x)), strict=True))
    assert same_names(again) == same_names(model)
    assert count_params(again) == real["params"]


@pytest.mark.parametrize("name", ["convolutions", "norms", "twice"])
def test_a_file_for_onnx_runtime_computes_the_same(name, tmp_path):
    model, x = made(name)
    with snnprune.attach(model, x) as gated:
        gated.set_budget({"params": 0.6})
        small = gated.compact()
    assert snnprune.export_onnx(small, tmp_path / "m.onnx", x).relative_error < 1e-5


def test_the_file_holds_a_shared_parameter_once_and_ties_what_the_code_does_not(tmp_path):
    model, x = made("one called")
    snnprune.save(model, tmp_path)
    stored = load_file(tmp_path / "model.safetensors")
    assert sum(t.numel() for t in stored.values()) == count_params(model)
    assert json.loads((tmp_path / "structure.json").read_text())["tied"]["b.2.weight"] == "a.2.weight"
    apart = Heads(False).double()
    for layer in (0, 2, 4):  # a model whose code does not tie them, as when they were tied by hand
        apart.b[layer] = nn.Linear(apart.b[layer].in_features, apart.b[layer].out_features).double()
    again = snnprune.load(tmp_path, model=apart)
    assert again.b[2].weight is again.a[2].weight
    assert torch.equal(again(x), model(x))


def test_different_values_for_what_is_one_parameter_are_refused(tmp_path):
    model, _ = made("one called")
    for layer in (0, 2, 4):
        model.b[layer] = nn.Linear(model.b[layer].in_features, model.b[layer].out_features).double()
    snnprune.save(model, tmp_path)
    with pytest.raises(StructureError, match=r"a\.0\.weight and b\.0\.weight are one parameter in Heads"):
        snnprune.load(tmp_path, model=made("one called")[0])


@pytest.mark.parametrize(
    "tied",
    [[], {"b.0.weight": 3}, {"b.0.weight": "nothing"}, {"a.0.weight": "a.0.bias"}, {"nowhere.x": "a.0.bias"}],
)
def test_a_malformed_table_of_ties_is_refused(tied, tmp_path):
    snnprune.save(made("one called")[0], tmp_path)
    path = tmp_path / "structure.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "tied": tied}))
    with pytest.raises(StructureError):
        snnprune.load(tmp_path, model=made("one called")[0])


def test_scales_are_folded_once():
    model, x = made("both called")
    with snnprune.attach(model, x, switcher=None) as gated:
        group = next(g for g in gated.groups if g.id == "a.0")
        gated.set_scales({group.id: torch.full((group.size,), 0.5).double()})
        folded = gated.fold()
    assert torch.equal(folded.a[2].weight, 0.5 * model.a[2].weight)
    assert folded.b[2].weight is folded.a[2].weight


def test_a_weight_used_both_ways_round_is_kept_for_that_reason():
    class Back(nn.Module):
        """An encoder's kernel that its decoder uses too, with inputs and outputs exchanged."""

        def __init__(self) -> None:
            super().__init__()
            self.i, self.o = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1)
            self.z = nn.Conv2d(8, 2, 1)
            self.a, self.b = nn.Conv2d(8, 10, 3), nn.ConvTranspose2d(10, 8, 3)
            self.b.weight = self.a.weight

        def forward(self, x):
            return self.z(torch.relu(self.o(self.b(torch.relu(self.a(torch.relu(self.i(x))))))))

    groups = {g.id: g for g in snnprune.trace(Back(), torch.randn(2, 3, 8, 8))}
    assert groups["o"].prunable
    assert "reads by a weight that it shares with" in groups["i"].reason
    assert "b reads by a weight that it shares with a" in groups["a"].reason


def test_a_weight_shared_with_a_recurrent_layer_is_kept():
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.r = nn.Linear(8, 32, bias=False), nn.RNN(8, 32, batch_first=True)
            self.r.weight_ih_l0 = self.a.weight
            self.o, self.z = nn.Linear(32, 16), nn.Linear(16, 3)

        def forward(self, x):
            return self.z(torch.relu(self.o(torch.relu(self.a(x)) + self.r(x)[0])))

    groups = {g.id: g for g in snnprune.trace(Recurrent(), torch.randn(2, 5, 8))}
    assert groups["a"].reason == "a shares a parameter with r"
    assert groups["o"].prunable


def test_a_run_with_shared_parameters_meets_its_target():
    torch.manual_seed(0)
    data = [(torch.randn(16, 24), torch.randint(0, 5, (16,))) for _ in range(6)]
    config = snnprune.PruneConfig(target={"params": 0.6}, epochs=2, round_to=1)
    result = snnprune.optimize(Chain(), data, data, config)
    assert result.model.a.weight is result.model.b.weight
    assert 0.58 < result.report.compact.params / result.report.dense.params <= 0.6


class Idle(nn.Module):
    """Layers that do not run, tied in a chain to one that does; a norm at its end cannot be cut."""

    def __init__(self, norm: bool) -> None:
        super().__init__()
        self.last, self.middle = nn.Linear(5, 32), nn.Linear(8, 32)
        self.a, self.o, self.norm = nn.Linear(8, 32), nn.Linear(32, 3), nn.LayerNorm(32)
        self.middle.weight, self.last.bias = self.a.weight, self.middle.bias
        self.kept = nn.ParameterList([self.last.bias])
        if norm:
            self.norm.bias = self.last.bias

    def forward(self, x):
        return self.o(torch.relu(self.a(x)))


def test_ties_are_followed_through_layers_that_do_not_run():
    model, x = Idle(norm=False).double(), torch.randn(2, 8).double()
    with snnprune.attach(model, x, switcher=None, input_neurons=False) as gated:
        scales = torch.ones(32).double()
        scales[::2] = 0
        gated.set_scales({"a": scales})
        small = gated.compact()
        torch.testing.assert_close(small(x), gated(x), rtol=0, atol=1e-12)
    assert (small.a.out_features, small.middle.out_features, small.last.out_features) == (16, 16, 16)
    assert small.last.in_features == 5
    assert small.last.bias is small.middle.bias
    assert small.kept[0] is small.middle.bias
    assert torch.equal(small.middle.bias, model.middle.bias[1::2])
    assert torch.equal(small.last.weight, model.last.weight[1::2])


def test_a_parameter_of_a_layer_that_is_never_cut_keeps_its_group():
    groups = {g.id: g for g in snnprune.trace(Idle(norm=True), torch.randn(2, 8))}
    assert groups["a"].reason is not None
    assert "shares a parameter with norm" in groups["a"].reason
