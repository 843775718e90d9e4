"""The equalities that everything stands on, over every network of models/, in float64."""

from __future__ import annotations

import copy
import functools

import numpy as np
import pytest
import torch
from conftest import NETWORKS, make_network, randomized, same_state
from torch import nn
from torch.nn.utils import parametrizations

import snnprune
from snnprune.export import export_onnx
from snnprune.graph import NeuronGroup
from snnprune.layers import IndexedLinear
from snnprune.metrics import count_macs, count_params
from snnprune.pipeline.attaching import working_copy
from snnprune.plain import is_gated
from snnprune.proof import random_scales, relative_difference
from snnprune.proof.tracing import trace
from snnprune.surgery import fold_, remove_
from snnprune.switching import Options, switch_neurons

TIGHT = 1e-10


def hooks(model: nn.Module) -> int:
    return sum(len(m._forward_pre_hooks) + len(m._forward_hooks) for m in model.modules())


@functools.cache
def groups_of(name: str) -> list[NeuronGroup]:
    """Traced once: groups are of a network's structure, not of its weights."""
    _, model, x = make_network(name)
    return trace(model, x)


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_everything_is_found(name):
    """Every network has prunable groups, its output is protected, and nothing else is kept."""
    groups = groups_of(name)
    kept = [g for g in groups if not g.prunable]
    assert [g.reason for g in kept] == ["it is an output of the model"], name
    assert sum(g.size for g in groups if g.prunable) > 100


def test_scales_of_one_change_nothing(network):
    _, model, x = network
    before = model(x)
    with snnprune.attach(model, x, switcher=None) as gated:
        gated.set_scales({g.id: torch.ones(g.size, dtype=torch.float64) for g in gated.groups if g.prunable})
        assert relative_difference(before, gated(x)) <= TIGHT
        assert relative_difference(before, gated.compact()(x)) <= TIGHT


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_gated_is_folded_is_removed_is_loaded(name, seed, tmp_path):
    _, model, x = make_network(name, seed)
    groups = groups_of(name)
    scales = random_scales(groups, torch.Generator().manual_seed(seed))
    plain = model(x)
    with switch_neurons(model, groups, x, Options(scores=None)) as gated:
        gated.set_scales(scales)
        reference = gated(x)
        folded, compact = gated.fold(), gated.compact()
    assert relative_difference(plain, reference) > 1e-3, "the scales must do something"
    assert relative_difference(reference, folded(x)) <= TIGHT
    assert relative_difference(reference, compact(x)) <= TIGHT
    assert count_params(compact) < 0.9 * count_params(model)
    snnprune.save(compact, tmp_path / "run")
    loaded = snnprune.load(tmp_path / "run", model=NETWORKS[name][0]().double())
    assert torch.equal(loaded(x), compact(x))
    assert {type(m) for m in compact.modules()} <= {type(m) for m in model.modules()} | {IndexedLinear}
    assert not hooks(compact)


class Written(nn.Module):
    """Activations are written into under a mask, between batch norms."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 12, 3), nn.Conv2d(12, 16, 3), nn.Conv2d(16, 4, 1)
        self.first, self.second = nn.BatchNorm2d(12), nn.BatchNorm2d(16)

    def forward(self, x):
        x = self.first(self.a(x))
        x = x.index_put((x < 0.1,), x.new_tensor(0.0))
        return self.c(torch.relu(self.second(self.b(x)))).mean((2, 3))


def chain(make, model: nn.Module, x: torch.Tensor, seed: int, folder) -> None:
    """Gated is folded is removed is loaded, in float64, and is what ONNX Runtime computes, in float32."""
    groups = trace(model, x)
    scales = random_scales(groups, torch.Generator().manual_seed(seed))
    with switch_neurons(model, groups, x, Options(scores=None)) as gated:
        gated.set_scales(scales)
        reference = gated(x)
        with gated.running() as inside:
            assert torch.equal(inside(x), reference)
        folded, compact = gated.fold(), gated.compact()
    assert relative_difference(model(x), reference) > 1e-3, "the scales must do something"
    assert count_params(compact) < 0.9 * count_params(model)
    for small in (folded, compact):
        assert relative_difference(reference, small(x)) <= TIGHT
    snnprune.save(compact, folder / "run")
    loaded = snnprune.load(folder / "run", model=make())
    assert relative_difference(compact(x), loaded(x)) <= TIGHT
    assert same_state(compact, loaded)
    check = export_onnx(compact.float(), folder / "m.onnx", x.float())  # compares both, at several batch sizes
    assert check.max_abs_error <= 1e-4 * float(reference.detach().std())


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_activations_written_under_a_mask(seed, tmp_path):
    def make():
        return randomized(Written, seed)

    x = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    assert all(g.prunable for g in trace(make(), x) if g.id in ("a", "b"))
    chain(make, make(), x, seed, tmp_path)


class Sequence(nn.Module):
    """A recurrent layer reads what comes out of a batch norm."""

    def __init__(self, kind=nn.LSTM) -> None:
        super().__init__()
        self.a, self.norm, self.b = nn.Conv1d(3, 16, 3), nn.BatchNorm1d(16), nn.Conv1d(16, 12, 1)
        self.layer, self.hidden, self.out = kind(12, 8, batch_first=True), nn.Linear(8, 20), nn.Linear(20, 4)

    def forward(self, x):
        x = torch.relu(self.b(torch.relu(self.norm(self.a(x)))))
        return self.out(torch.relu(self.hidden(self.layer(x.transpose(1, 2))[0][:, -1])))


class Normed(nn.Module):
    """The weight of the first layer is made by a parametrization, which multiplies matrices."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.first = parametrizations.spectral_norm(nn.Conv1d(3, 8, 3)), nn.BatchNorm1d(8)
        self.b, self.second, self.c = nn.Conv1d(8, 24, 3), nn.BatchNorm1d(24), nn.Conv1d(24, 16, 3)
        self.out = nn.Linear(16, 4)

    def forward(self, x):
        x = self.second(self.b(torch.relu(self.first(self.a(x)))))
        return self.out(torch.relu(self.c(torch.relu(x))).mean(2))


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(
    "make", [Sequence, functools.partial(Sequence, nn.GRU), Normed], ids=["lstm", "gru", "normed"]
)
def test_recurrent_layers_and_weights_that_are_made(make, seed, tmp_path):
    x = torch.randn(4, 3, 12, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    chain(lambda: randomized(make, seed), randomized(make, seed), x, seed, tmp_path)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("name", ["vgg_cov2", "resnet20", "mobilenet_v1_025", "digits_cnn"])
def test_another_memory_format(name, seed, tmp_path):
    _, model, x = make_network(name, seed)
    model = working_copy(model, x.device, snnprune.PruneConfig(channels_last=True))
    wide = [m.weight for m in model.modules() if isinstance(m, nn.Conv2d) and m.weight.shape[1] > 1]
    assert all(w.is_contiguous(memory_format=torch.channels_last) for w in wide)
    chain(lambda: NETWORKS[name][0]().double(), model, x, seed, tmp_path)


def test_float32_agrees_too(network):
    name, model, x = network
    model, x = model.float(), x.float()
    groups = groups_of(name)
    scales = {n: s.float() for n, s in random_scales(groups, torch.Generator().manual_seed(7)).items()}
    with switch_neurons(model, groups, x, Options(scores=None)) as gated:
        gated.set_scales(scales)
        assert relative_difference(gated(x), gated.compact()(x)) <= 1e-5


def test_detach_leaves_the_model_as_it_was(network):
    _, model, x = network
    model.train()
    frozen = next(iter(model.parameters()))
    frozen.requires_grad_(False)
    state = copy.deepcopy(model.state_dict())
    flags = [p.requires_grad for p in model.parameters()]
    modes = [m.training for m in model.modules()]
    identities = [id(p) for p in model.parameters()]
    before = hooks(model)

    def work() -> None:
        with snnprune.attach(model, x) as gated:
            assert hooks(model) > before
            gated.set_phase("switcher")
            gated(x.new_zeros(1))  # a wrong shape: the model itself raises

    with pytest.raises((RuntimeError, IndexError)):
        work()
    assert hooks(model) == before
    assert not is_gated(model)
    assert [p.requires_grad for p in model.parameters()] == flags
    assert [m.training for m in model.modules()] == modes
    assert [id(p) for p in model.parameters()] == identities
    after = model.state_dict()
    assert all(torch.equal(state[k], after[k]) for k in state)


@pytest.mark.parametrize("name", ["mlp", "lenet5_caffe", "vgg_cov2", "resnet20", "mobilenet_v1_025", "digits_cnn"])
def test_onnx_runtime_computes_the_same(name, tmp_path):
    import onnxruntime

    _, model, x = make_network(name, seed=3, batch=5)
    model, x = model.float(), x.float()
    groups = groups_of(name)
    scales = {n: s.float() for n, s in random_scales(groups, torch.Generator().manual_seed(3)).items()}
    compact = remove_(fold_(copy.deepcopy(model), groups, scales), groups, scales)
    check = export_onnx(compact, tmp_path / "m.onnx", x)
    session = onnxruntime.InferenceSession(str(tmp_path / "m.onnx"), providers=["CPUExecutionProvider"])
    name_in = session.get_inputs()[0].name
    for batch in (1, 3, 5):
        with torch.no_grad():
            ours = compact(x[:batch]).numpy()
        theirs = session.run(None, {name_in: x[:batch].numpy()})[0]
        assert np.abs(ours - theirs).max() <= 1e-4 * ours.std()
    assert check.batch_sizes == (1, 2, 3, 5)


def test_callers_model_is_untouched_by_trace(network):
    _, model, x = network
    model.train()
    for p in list(model.parameters())[::2]:
        p.requires_grad_(False)
    state = copy.deepcopy(model.state_dict())
    flags = [p.requires_grad for p in model.parameters()]
    trace(model, x)
    assert all(m.training for m in model.modules())
    assert [p.requires_grad for p in model.parameters()] == flags
    assert all(torch.equal(state[k], v) for k, v in model.state_dict().items())


def test_macs_are_hand_arithmetic():
    _, model, x = make_network("lenet5_caffe")
    assert count_macs(model, x) == 24 * 24 * 20 * 25 + 8 * 8 * 50 * 20 * 25 + 800 * 500 + 500 * 10
    assert count_params(model) == 20 * 25 + 20 + 50 * 20 * 25 + 50 + 800 * 500 + 500 + 500 * 10 + 10
    _, model, x = make_network("mlp")
    assert count_macs(model, x) == 784 * 300 + 300 * 100 + 100 * 10
    _, model, x = make_network("resnet20")
    stage = [16 * 16 * 9 * 32 * 32 * 6, 0, 0]
    stage[1] = 16 * 32 * 9 * 16 * 16 + 32 * 32 * 9 * 16 * 16 * 5
    stage[2] = 32 * 64 * 9 * 8 * 8 + 64 * 64 * 9 * 8 * 8 * 5
    assert count_macs(model, x) == 3 * 16 * 9 * 32 * 32 + sum(stage) + 640


def test_compact_learns(network):
    """Gradients reach every parameter of the compact model."""
    name, model, x = network
    groups = groups_of(name)
    scales = random_scales(groups, torch.Generator().manual_seed(5))
    compact = remove_(fold_(copy.deepcopy(model), groups, scales), groups, scales)
    compact.train()
    compact(x).square().mean().backward()
    assert all(p.grad is not None for p in compact.parameters())


def test_a_compact_model_can_be_pruned_again():
    _, model, x = make_network("lenet5_caffe")
    first = random_scales(trace(model, x), torch.Generator().manual_seed(0))
    small = remove_(fold_(copy.deepcopy(model), trace(model, x), first), trace(model, x), first)
    assert isinstance(small.get_submodule("fc1"), IndexedLinear)
    groups = trace(small, x)
    assert {g.id: g.size for g in groups}["fc1:in"] == small.get_submodule("fc1").in_features
    scales = random_scales(groups, torch.Generator().manual_seed(1))
    with switch_neurons(small, groups, x, Options(scores=None)) as gated:
        gated.set_scales(scales)
        smaller = gated.compact()
        assert relative_difference(gated(x), smaller(x)) <= TIGHT
    assert count_params(smaller) < 0.7 * count_params(small)
