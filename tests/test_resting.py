"""A model that is only looked at: dropout rests however it is written, and everything is as before afterwards."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from snnprune.resting import still


class Written(nn.Module):
    """Dropout as a function, in every place where it can be asked for."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.weight = kind, nn.Parameter(torch.randn(8, 8))

    def forward(self, x):
        x = x @ self.weight
        if self.kind == "attention":
            return F.scaled_dot_product_attention(x, x, x, dropout_p=0.5 if self.training else 0.0)
        if self.kind == "attention, by place":
            return F.scaled_dot_product_attention(x, x, x, None, 0.5 if self.training else 0.0)
        if self.kind == "torch":
            return torch.dropout(x, 0.5, self.training)
        if self.kind == "alpha":
            return F.alpha_dropout(x, 0.5, self.training)
        return F.dropout(input=x, p=0.5, training=self.training)


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(8, 6, num_layers=2, dropout=0.5, batch_first=True)

    def forward(self, x):
        return self.lstm(x)[0]


WRITTEN = ("function", "torch", "alpha", "attention", "attention, by place")
MODELS = {
    **{kind: lambda kind=kind: Written(kind) for kind in WRITTEN},
    "a layer": lambda: nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.5)),
    "PyTorch's attention": lambda: nn.TransformerEncoderLayer(8, 2, 16, dropout=0.5, batch_first=True),
    "recurrent": Recurrent,
}


@pytest.mark.parametrize("kind", MODELS)
def test_dropout_rests_and_gradients_are_those_of_evaluation(kind):
    torch.manual_seed(0)
    model, x = MODELS[kind]().eval(), torch.randn(5, 3, 8)
    before = {module: (module.training, dict(module.__dict__)) for module in model.modules()}

    def gradients() -> list[torch.Tensor]:
        with torch.enable_grad():
            return list(torch.autograd.grad(model(x).square().sum(), list(model.parameters())))

    expected = gradients()
    for seed in range(3):
        torch.manual_seed(seed)
        with still(model):
            assert model.training, "models that return something else while they train do so here"
            found = gradients()
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other)
    for module, (training, _) in before.items():
        assert module.training is training
    if kind == "recurrent":
        assert model.lstm.dropout == 0.5
    model.train()
    torch.manual_seed(0)
    drawn = gradients()
    assert any(not torch.allclose(one, other) for one, other in zip(drawn, expected, strict=True)), (
        "it draws again"
    )


def test_all_is_as_before_after_an_error():
    model = Recurrent().eval()
    with pytest.raises(RuntimeError), still(model):
        raise RuntimeError
    assert not model.training
    assert model.lstm.dropout == 0.5
    x = torch.ones(1000)
    assert F.dropout(x, 0.5).eq(0).any()
