"""Layers told by what they compute, recurrent layers, and deformable convolutions."""

from __future__ import annotations

import pytest
import torch
from own_rules.conftest import Affine, LinearLike, PointConv, TurnedLinear
from torch import nn
from torch.nn import functional as F
from torchvision import ops

import snnprune
from followed.conftest import Code, X, cut, kept_on_disk, parts
from snnprune.errors import UnsupportedModelError
from snnprune.layers import kind_of
from snnprune.surgery import select_

P = nn.Parameter


class Conv1D(nn.Module):
    """The linear layer of GPT-2, as transformers writes it."""

    def __init__(self, nf, nx):
        super().__init__()
        self.nf, self.nx = nf, nx
        self.weight, self.bias = P(torch.randn(nx, nf) / 4), P(torch.randn(nf))

    def forward(self, x):
        return torch.addmm(self.bias, x.view(-1, x.size(-1)), self.weight).view(*x.size()[:-1], self.nf)


class Kernel(nn.Module):
    """A convolution written out, with an activation and a kernel of (height, width, in, out)."""

    def __init__(self, fan_in, fan_out):
        super().__init__()
        self.k, self.c, self.act = P(torch.randn(3, 3, fan_in, fan_out) / 9), P(torch.randn(fan_out)), nn.SiLU()

    def forward(self, x):
        return self.act(F.conv2d(x, self.k.permute(3, 2, 0, 1), self.c, padding=1))


class Standardized(nn.Module):
    """A kernel over its own spread: scaling what it reads is not scaling its slices."""

    def __init__(self, fan_in, fan_out):
        super().__init__()
        self.k = P(torch.randn(fan_out, fan_in, 3, 3))

    def forward(self, x):
        return F.conv2d(x, self.k / self.k.std((1, 2, 3), keepdim=True), padding=1)


class Table(nn.Module):
    """A table of places that is added, which multiplies nothing."""

    def __init__(self, places, width):
        super().__init__()
        self.table = P(torch.randn(places, width))

    def forward(self, x):
        return x + self.table


class Embedded(nn.Module):
    def __init__(self, count, width):
        super().__init__()
        self.table = P(torch.randn(count, width))

    def forward(self, x):
        return self.table[x]


@pytest.mark.parametrize(
    ("layer", "inputs", "outputs", "sizes", "axis"),
    [
        (Conv1D(6, 4), {"weight": 0}, {"weight": 1, "bias": 0}, {"nf": "outputs", "nx": "inputs"}, None),
        (Conv1D(4, 4), {"weight": 0}, {"weight": 1, "bias": 0}, {"nf": "outputs", "nx": "inputs"}, None),
        (PointConv(5, 5), {"kernel": 0}, {"kernel": 1, "shift": 0}, {"fan_in": "inputs", "fan_out": "outputs"}, 1),
        (LinearLike(5, 3), {"weight": 1}, {"weight": 0}, {}, None),
        (TurnedLinear(3, 3), {"w": 0, "gate": 1}, {"w": 1, "gate": 0, "b": 0}, {}, None),
        (Kernel(4, 4), {"k": 2}, {"k": 3, "c": 0}, {}, None),
        (Kernel(3, 5), {"k": 2}, {"k": 3, "c": 0}, {}, None),
    ],
)
def test_a_layer_is_told_by_what_it_computes(layer, inputs, outputs, sizes, axis):
    kind = kind_of(layer)
    assert kind is not None
    assert (kind.form, kind.found, kind.axis) == ("weighted", True, axis)
    assert (dict(kind.inputs), dict(kind.outputs), dict(kind.sizes)) == (inputs, outputs, sizes)


@pytest.mark.parametrize(
    "layer", [Affine(4, 6), Standardized(4, 6), Table(5, 4), Embedded(5, 4), nn.Embedding(5, 4), Code(None)]
)
def test_what_is_no_product_with_a_weight_is_followed_as_it_is(layer):
    assert kind_of(layer) is None


def test_a_layer_changes_nothing_while_it_is_looked_at():
    layer, state = Conv1D(6, 4).train(), torch.get_rng_state()
    before = {name: tensor.clone() for name, tensor in layer.state_dict().items()}
    layer.register_forward_hook(lambda *_: pytest.fail("it was called"))
    assert kind_of(layer).found
    assert torch.equal(torch.get_rng_state(), state)
    assert layer.training
    assert (layer.nf, layer.nx) == (6, 4)
    assert all(torch.equal(tensor, before[name]) for name, tensor in layer.state_dict().items())


def test_a_layer_that_is_told_is_cut_like_a_linear_one():
    model = nn.Sequential(Conv1D(6, 4))
    weight, bias = model[0].weight.detach().clone(), model[0].bias.detach().clone()
    select_(model, "0", inputs=torch.tensor([0, 2]), outputs=torch.tensor([1, 3, 5]))
    assert torch.equal(model[0].weight, weight[[0, 2]][:, [1, 3, 5]])
    assert torch.equal(model[0].bias, bias[[1, 3, 5]])
    assert (model[0].nf, model[0].nx) == (3, 2)


class Mlp(nn.Module):
    """A block of GPT-2."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.ln, self.c_fc, self.c_proj, self.h = (
            nn.LayerNorm(16),
            Conv1D(64, 16),
            Conv1D(16, 64),
            nn.Linear(16, 4),
        )

    def forward(self, x):
        return self.h(x + self.c_proj(torch.tanh(self.c_fc(self.ln(x)))))


@pytest.mark.parametrize("seed", range(2))
def test_gpt_2s_layers_lose_neurons(seed):
    group = cut(Mlp(), torch.randn(6, 5, 16, dtype=torch.float64), seed)["c_fc"]
    assert (group.size, group.rules) == (64, ())
    assert parts(group) == {("c_fc", "producer"): 0, ("c_proj", "consumer"): 0}


def test_gpt_2s_layers_are_kept_on_disk(tmp_path):
    small = kept_on_disk(Mlp, torch.randn(2, 5, 16), tmp_path)
    assert small.c_fc.nf == small.c_proj.nx == small.c_proj.weight.shape[0] < 64


def test_the_switcher_learns_on_them():
    x = torch.randn(2, 5, 16)
    with snnprune.attach(Mlp(), x) as gated:
        gated.set_phase("switcher")
        gated(x).square().mean().backward()
        assert any(p.grad is not None and bool(p.grad.any()) for p in gated.scorer_parameters())
        gated.set_budget({"macs": 0.6})
        assert gated.compact().c_fc.nf < 64


class Recurrent(nn.Module):
    """Convolutions, whose rows are steps of a recurrent layer."""

    def __init__(self, kind, **options):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.r = nn.Conv2d(3, 16, 3, padding=1), kind(16, 10, batch_first=True, **options)
        self.o = nn.Linear(10 * (1 + options.get("bidirectional", False)), 4)

    def forward(self, x):
        return self.o(self.r(F.silu(self.a(x)).mean(2).transpose(1, 2))[0].tanh())


class Cell(Recurrent):
    def __init__(self, kind):
        super().__init__(nn.RNN)
        self.r = kind(16, 10)

    def forward(self, x):
        state = None
        for step in F.silu(self.a(x)).mean(2).unbind(-1):
            state = self.r(step, state)
        return self.o(state[0] if isinstance(state, tuple) else state)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Recurrent(nn.LSTM, num_layers=2, bidirectional=True),
        lambda: Recurrent(nn.LSTM),
        lambda: Recurrent(nn.GRU, bidirectional=True),
        lambda: Recurrent(nn.RNN),
        lambda: Cell(nn.LSTMCell),
        lambda: Cell(nn.GRUCell),
        lambda: Cell(nn.RNNCell),
    ],
)
def test_recurrent_layers_read_fewer_inputs(make):
    group = cut(make())["a"]
    assert group.size == 16
    assert parts(group) == {("a", "producer"): 0, ("r", "consumer"): 0}


def test_recurrent_layers_are_kept_on_disk(tmp_path):
    small = kept_on_disk(lambda: Recurrent(nn.LSTM, bidirectional=True), X.float(), tmp_path)
    assert small.r.input_size == small.r.weight_ih_l0.shape[1] == small.r.weight_ih_l0_reverse.shape[1] < 16


class Packed(Recurrent):
    def forward(self, x):
        steps = F.silu(self.a(x)).mean(2).transpose(1, 2)
        packed = nn.utils.rnn.pack_padded_sequence(steps, [8] * len(x), batch_first=True)
        return self.o(self.r(packed)[1][0][-1])


def test_packed_sequences_keep_their_channels():
    groups = {g.id: g for g in snnprune.trace(Packed(nn.LSTM), X.float())}
    assert groups["a"].reason == "no rule for the operation _pack_padded_sequence"


class Deformed(nn.Module):
    """A deformable convolution whose offsets a layer of its own computes, in so many groups."""

    def __init__(self, offsets=1, groups=1):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.off = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(3, 18 * offsets, 3, padding=1)
        self.d, self.o = ops.DeformConv2d(16, 12, 3, padding=1, groups=groups), nn.Conv2d(12, 4, 1)

    def forward(self, x):
        return self.o(F.silu(self.d(F.silu(self.a(x)), self.off(x))))


@pytest.mark.parametrize("offsets", [1, 4])
def test_deformable_convolutions_lose_inputs_and_outputs(offsets):
    groups = cut(Deformed(offsets))
    assert groups["a"].size == 16 // offsets, "the same channels of every group of offsets"
    assert parts(groups["a"]) == {("a", "producer"): 0, ("d", "consumer"): 0}
    assert parts(groups["d"]) == {("d", "producer"): 0, ("o", "consumer"): 0}
    assert "no rule says what becomes of it" in groups["off"].reason


def test_deformable_convolutions_of_several_groups_stay_whole():
    with pytest.raises(UnsupportedModelError, match="no rule for DeformConv2d with groups"):
        snnprune.trace(Deformed(groups=2), X.float())


def test_deformable_convolutions_are_kept_on_disk(tmp_path):
    small = kept_on_disk(Deformed, X.float(), tmp_path, onnx=False)
    assert small.d.in_channels == small.a.out_channels < 16
