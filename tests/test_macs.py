"""Multiply-adds against closed forms: recurrent and deformable layers, every kernel of attention, every dtype."""

from __future__ import annotations

import logging
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils import parametrizations
from torch.nn.utils.rnn import pack_padded_sequence
from torch.utils.flop_counter import FlopCounterMode
from torchvision.ops import DeformConv2d

import snnprune
from snnprune.budget import CostModel
from snnprune.errors import ExactnessError
from snnprune.macs import count_macs, price
from snnprune.macs.formulas import formulas

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "kwargs",
    [{}, {"num_layers": 2, "bidirectional": True}, {"batch_first": True, "bias": False}, {"proj_size": 5}],
)
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_recurrent_layers_multiply_every_matrix_at_every_step(kind, kwargs, dtype):
    if kind is not nn.LSTM and "proj_size" in kwargs:
        kwargs = {}
    layer = kind(12, 8, **kwargs).to(dtype)
    steps, batch = (7, 3)
    x = torch.randn(batch, steps, 12) if kwargs.get("batch_first") else torch.randn(steps, batch, 12)
    matrices = sum(p.numel() for p in layer.parameters() if p.dim() == 2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's own: a projection is slow on a CPU
        counted = price(layer, x.to(dtype))
    per_input = steps * batch * matrices / (batch if kwargs.get("batch_first") else steps)
    assert counted.total == round(per_input)
    assert counted.unpriced == ()


def test_packed_sequences_count_their_own_steps():
    class Packed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.r = nn.LSTM(6, 4, batch_first=True)

        def forward(self, x):
            return self.r(pack_padded_sequence(x, [9, 3], batch_first=True))[0].data

    assert count_macs(Packed(), torch.randn(2, 9, 6)) == (9 + 3) / 2 * 4 * 4 * (6 + 4)


@pytest.mark.parametrize(("cell", "gates"), [(nn.LSTMCell, 4), (nn.GRUCell, 3), (nn.RNNCell, 1)])
def test_recurrent_cells(cell, gates):
    assert count_macs(cell(6, 4), torch.randn(5, 6)) == gates * 4 * (6 + 4)


def test_the_kernel_of_a_gpu_counts_as_the_steps_do():
    """cuDNN's kernel, on tensors without values: there is no GPU in the tests."""
    layers, hidden, width, steps, batch = 2, 8, 12, 7, 3
    lstm = nn.LSTM(width, hidden, layers, bidirectional=True)
    weights = [p.detach().to("meta") for p in lstm.parameters()]
    x = torch.empty(steps, batch, width, device="meta")
    h = torch.empty(2 * layers, batch, hidden, device="meta")
    with FlopCounterMode(display=False, custom_mapping=formulas()) as counter:
        torch.ops.aten._cudnn_rnn(
            x, weights, 4, None, h, h, 2, hidden, 0, layers, False, 0.0, False, True, [], None
        )
    assert counter.get_total_flops() / 2 == round(count_macs(lstm, torch.randn(steps, batch, width)) * steps)
    packed = torch.empty(10, width, device="meta")
    with FlopCounterMode(display=False, custom_mapping=formulas()) as counter:
        torch.ops.aten._cudnn_rnn(
            packed, weights, 4, None, h, h, 2, hidden, 0, layers, False, 0.0, False, True, [3, 3, 2, 2], None
        )
    assert counter.get_total_flops() / 2 == 10 * sum(w.numel() for w in weights if w.dim() == 2)


@pytest.mark.parametrize("groups", [1, 2])
def test_deformable_convolution_counts_as_a_convolution(groups):
    class Deformed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.offsets = nn.Conv2d(8, 18, 3, padding=1, stride=2)
            self.conv = DeformConv2d(8, 6, 3, padding=1, stride=2, groups=groups)

        def forward(self, x):
            return self.conv(x, self.offsets(x))

    plain = nn.Conv2d(8, 6, 3, padding=1, stride=2, groups=groups)
    x = torch.randn(2, 8, 10, 10)
    assert count_macs(Deformed(), x) == 25 * 9 * 8 * 18 + count_macs(plain, x)


def test_bilinear_layers_and_products_with_vectors():
    class Vectors(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.m = nn.Parameter(torch.randn(5, 6))
            self.b = nn.Bilinear(3, 4, 7)

        def forward(self, x):
            return torch.mv(self.m, x[0, :6]), self.b(x[:, :3], x[:, :4])

    assert count_macs(Vectors(), torch.randn(1, 8)) == 5 * 6 + 3 * 4 * 7


class Attention(nn.Module):
    def __init__(self, backend: SDPBackend | None) -> None:
        super().__init__()
        self.backend, self.qkv = backend, nn.Linear(32, 96)

    def forward(self, x):
        q, k, v = (t.unflatten(-1, (4, 8)).transpose(1, 2) for t in self.qkv(x).chunk(3, -1))
        if self.backend is None:
            return F.scaled_dot_product_attention(q, k, v)
        with sdpa_kernel(self.backend):
            return F.scaled_dot_product_attention(q, k, v)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("backend", [None, SDPBackend.MATH, SDPBackend.FLASH_ATTENTION])
def test_attention_counts_the_same_in_every_kernel(backend, dtype):
    model, x = Attention(backend).to(dtype), torch.randn(2, 10, 32).to(dtype)
    assert count_macs(model, x) == 10 * 32 * 96 + 4 * 10 * 10 * (8 + 8)


def test_whole_encoder_layers():
    layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)
    assert count_macs(layer, torch.randn(2, 10, 32)) == 10 * (4 * 32 * 32 + 2 * 32 * 64) + 2 * 10 * 10 * 32


@torch.library.custom_op("snnprune_tests::mix", mutates_args=())
def mix(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    """A kernel of the user's own."""
    return x @ w


@mix.register_fake
def _(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    return x.new_empty(*x.shape[:-1], w.shape[1])


mix.register_autograd(
    lambda ctx, grad: (grad @ ctx.saved_tensors[1].t(), ctx.saved_tensors[0].t() @ grad),
    setup_context=lambda ctx, inputs, output: ctx.save_for_backward(*inputs),
)


class Mixed(nn.Module):
    def __init__(self, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        self.a, self.o, self.dtype = nn.Linear(8, 16), nn.Linear(16, 4), dtype
        self.w, self.m = nn.Parameter(torch.randn(4, 4)), nn.Linear(4, 3)

    def forward(self, x):
        y, w = self.o(torch.relu(self.a(x))), self.w.t()
        if self.dtype:
            y, w = y.to(self.dtype), w.to(self.dtype)
        return self.m(mix(y, w).to(x.dtype))


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_an_operation_that_cannot_be_priced_is_named(dtype):
    counted = price(Mixed(dtype), torch.randn(2, 8))
    assert counted.total == 8 * 16 + 16 * 4 + 4 * 3
    assert counted.unpriced == ("snnprune_tests.mix",)


def test_a_run_says_what_is_not_in_its_macs(caplog):
    data = [(torch.randn(8, 8), torch.randint(0, 3, (8,))) for _ in range(4)]
    config = snnprune.PruneConfig(target={"macs": 0.7}, epochs=1, round_to=1)
    with caplog.at_level(logging.WARNING):
        result = snnprune.optimize(Mixed(), data, data, config)
    assert "snnprune_tests.mix" in caplog.text
    assert result.report.unpriced == ["snnprune_tests.mix"]
    assert "not in the MACs: snnprune_tests.mix" in str(result.report)
    assert any(row[0] == "MACs (in part)" for row in result.report.rows())
    assert snnprune.compare(Mixed(), Mixed(), example_inputs=data[0][0]).unpriced == ["snnprune_tests.mix"]


def test_norms_embeddings_and_elementwise_products_are_free():
    class Free(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.e, self.n = nn.Embedding(9, 6), nn.LayerNorm((5, 6))
            self.p, self.cls = nn.Parameter(torch.randn(1, 5, 6)), nn.Parameter(torch.randn(1, 1, 6))
            self.o = nn.Linear(6, 2)

        def forward(self, x):
            y = self.n(self.e(x)) * self.p + self.p
            return self.o(torch.cat([self.cls.expand(len(x), -1, -1), y], 1))

    assert price(Free(), torch.randint(0, 9, (3, 5))) == price(Free(), torch.randint(0, 9, (1, 5)))
    counted = price(Free(), torch.randint(0, 9, (3, 5)))
    assert (counted.total, counted.unpriced) == (6 * 6 * 2, ())
    assert counted.layers == {"o": 6 * 6 * 2}


def test_a_layer_that_costs_other_than_its_sizes_say_is_an_error():
    """The two ways to price a layer disagree: under vmap hooks see one input, the counter sees all."""

    class Mapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.o = nn.Linear(6, 12), nn.Linear(12, 3)

        def forward(self, x):
            return self.o(torch.relu(torch.vmap(self.a)(x)))

    model, x = Mapped(), torch.randn(4, 5, 6)
    groups = snnprune.graph.find_groups(model, x)
    with pytest.raises(ExactnessError, match=r"^a: 360 multiply-adds were counted where its sizes say 90"):
        CostModel(model, groups, x)


def test_layers_of_the_users_own_cost_what_was_counted():
    class LoRA(nn.Linear):
        def __init__(self, i: int, o: int) -> None:
            super().__init__(i, o)
            self.down, self.up = nn.Parameter(torch.randn(2, i)), nn.Parameter(torch.randn(o, 2))

        def forward(self, input):
            return super().forward(input) + input @ self.down.t() @ self.up.t()

    model, x = (
        nn.Sequential(nn.Linear(6, 12), nn.ReLU(), LoRA(12, 10), nn.ReLU(), nn.Linear(10, 3)),
        torch.randn(2, 6),
    )
    cost = CostModel(model, snnprune.graph.find_groups(model, x), x)
    assert cost.dense["macs"] == 6 * 12 + 12 * 10 + 2 * (12 + 10) + 10 * 3
    assert cost.cost("macs", {}) == cost.dense["macs"]


def test_a_forward_that_was_replaced_costs_what_was_counted():
    model, x = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 3)), torch.randn(2, 6)
    plain = model[0].forward
    model[0].forward = lambda x: plain(x) + plain(-x)
    cost = CostModel(model, snnprune.graph.find_groups(model, x), x)
    assert cost.dense["macs"] == 2 * 72 + 36
    assert cost.cost("macs", {"0": np.arange(12) < 6}) == 72 + 18


def test_layers_within_a_layer_of_the_users_own_are_counted_once():
    class Nested(nn.Linear):
        def __init__(self, i: int, o: int) -> None:
            super().__init__(i, o)
            self.down, self.up = nn.Linear(i, 2, bias=False), nn.Linear(2, o, bias=False)

        def forward(self, input):
            return super().forward(input) + self.up(self.down(input))

    model, x = (
        nn.Sequential(nn.Linear(6, 12), nn.ReLU(), Nested(12, 10), nn.ReLU(), nn.Linear(10, 3)),
        torch.randn(2, 6),
    )
    counted = price(model, x)
    assert counted.layers == {"0": 72, "2": 120, "2.down": 24, "2.up": 20, "4": 30}
    assert sum(counted.layers.values()) == counted.total
    cost = CostModel(model, snnprune.graph.find_groups(model, x), x)
    assert cost.cost("macs", {}) == counted.total


def test_formulas_name_operations_of_this_version():
    wanted = {torch.ops.aten._cudnn_rnn, torch.ops.aten.mkldnn_rnn_layer, torch.ops.torchvision.deform_conv2d}
    assert wanted <= set(formulas())


@pytest.mark.parametrize("make", [parametrizations.spectral_norm, parametrizations.weight_norm, None])
def test_what_makes_a_weight_is_no_work_of_the_layer(make):
    """Spectral norm multiplies matrices; it was said of the layer, whose sizes say something else."""
    layer = nn.Conv2d(3, 8, 3, padding=1)
    model = nn.Sequential(
        layer if make is None else make(layer),
        nn.ReLU(),
        nn.Conv2d(8, 6, 1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(96, 5),
    ).eval()
    x = torch.randn(2, 3, 4, 4)
    counted = price(model, x)
    assert [counted.layers[name] for name in ("0", "2", "5")] == [16 * 8 * 27, 16 * 48, 480]
    with snnprune.attach(model, x, round_to=1) as gated:
        gated.set_budget({"macs": 0.9})
        small = gated.compact()
    assert count_macs(small, x) <= 0.9 * count_macs(model, x)
