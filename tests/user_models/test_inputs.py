"""Batches, loaders and inputs of all forms."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

import snnprune
from snnprune.errors import DataError, UnsupportedModelError
from snnprune.proof import random_scales, relative_difference
from user_models.conftest import CONFIG, X, Y, cnn


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
