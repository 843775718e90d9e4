"""What makes a network's outputs is left alone by torch-pruning's own pruner, whatever lies behind it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchvision import models

from contests.conftest import SHORT, arrays, hold
from snnprune.errors import CriterionError
from snnprune.rivals import bout
from snnprune.rivals.ends import last_layers
from snnprune.rivals.inexact import inexactness

X = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))


class Base(nn.Module):
    """Six outputs, of which what follows may leave some."""

    def __init__(self, outputs: int = 3) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 12, 3, padding=1), nn.BatchNorm2d(12)
        self.inner, self.head = nn.Conv2d(12, 12, 3, padding=1), nn.Linear(12, outputs)

    def maps(self, x):
        return F.relu(self.inner(F.relu(self.norm(self.conv(x)))))

    def logits(self, x):
        return self.head(self.maps(x).mean((2, 3)))

    def forward(self, x):
        return self.logits(x)


class Summed(Base):
    def forward(self, x):
        return self.logits(x).cumsum(1)


class Unit(Base):
    def forward(self, x):
        return 10 * F.normalize(self.logits(x), dim=1)


class Picked(Base):
    def __init__(self) -> None:
        super().__init__(6)

    def forward(self, x):
        return self.logits(x)[:, [0, 2, 4]]


class Keyword(Base):
    def forward(self, x):
        x = F.relu(self.inner(input=F.relu(self.norm(self.conv(input=x)))))
        return self.head(input=x.mean((2, 3)))


class Noisy(Base):
    def forward(self, x):
        return self.logits(F.dropout(x, 0.5, True) + 0.3 * torch.randn_like(x))


class Two(Base):
    """An output that nobody asks for, whose channels the other one reads."""

    def forward(self, x):
        maps = self.maps(x)
        return maps, self.head(maps.mean((2, 3)))


class Sum(Base):
    def __init__(self) -> None:
        super().__init__()
        self.other = nn.Linear(64, 3)
        self.scale = nn.Parameter(torch.ones(1, 3))

    def forward(self, x):
        out = self.logits(x)
        out[:, 0] *= 2
        return {"sum": out * self.scale + self.other(x.flatten(1)), "class": out.argmax(1)}


class Attention(Base):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(12, 2, batch_first=True)

    def forward(self, x):
        tokens = self.maps(x).flatten(2).transpose(1, 2)
        return self.attention(tokens, tokens, tokens, need_weights=False)[0].mean(1)


@pytest.mark.parametrize(
    ("make", "wanted"),
    [
        (Base, {"head"}), (Summed, {"head"}), (Unit, {"head"}), (Picked, {"head"}), (Keyword, {"head"}),
        (Two, {"inner", "head"}), (Sum, {"head", "other"}), (Attention, {"attention"}),
        (lambda: nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.PReLU(4), nn.Flatten()), {"0"}),
        (lambda: nn.utils.parametrizations.weight_norm(nn.Linear(8, 3)), {""}),
    ],
)  # fmt: skip
def test_layers_with_no_other_behind_them(make, wanted):
    model = make().requires_grad_(False).train()
    assert set(last_layers(model, X)) == wanted
    assert model.training
    assert not any(p.requires_grad or p.grad is not None for p in model.parameters())


@pytest.mark.parametrize(("name", "wanted"), [("resnet18", "fc"), ("vit_b_32", "heads.head"), ("swin_t", "head")])
def test_those_of_torchvision(name, wanted):
    size = 224 if name.startswith("vit") else 64
    assert last_layers(getattr(models, name)(), torch.randn(1, 3, size, size)) == [wanted]


@pytest.mark.parametrize("make", [Summed, Unit, Picked, Keyword])
@pytest.mark.parametrize("keep", [(), ("head",)])
def test_its_pruner_leaves_what_makes_the_outputs(data, make, keep):
    torch.manual_seed(0)
    found = hold(make().eval(), data, ["norm", "l2"], replace(SHORT, keep=keep), ways="as-they-are")
    rows = {row["method"]: row for row in found.rows}
    for scope in ("local", "global"):
        row = rows[f"l2, as it is, {scope}"]
        assert row["failed"] is None
        assert row["exact"] < 1e-10
        assert row["note"] == ""
        assert 0.3 < row["macs"] <= 0.5


def test_what_is_kept_by_request_is_kept_whatever_else_is_said_of_it(data, monkeypatch):
    """The hidden layer's channels are summed up, so its group has a reason of its own."""

    class Counted(Base):
        def maps(self, x):
            return super().maps(x).cumsum(1)

    torch.manual_seed(0)
    cuts = []
    monkeypatch.setattr(bout, "inexactness", lambda _dense, pruned, *_rest: cuts.append(pruned) or 0.0)
    for keep in ((), ("inner",)):
        row = hold(Counted().eval(), data, ["norm", "l2:local"], replace(SHORT, keep=keep)).rows[-1]
        assert row["failed"] is None
    assert [cut.inner.out_channels == 12 for cut in cuts] == [False, True]
    assert all(cut.conv.out_channels < 12 for cut in cuts)


def test_what_is_drawn_at_random_is_no_inexactness(data):
    torch.manual_seed(0)
    for row in hold(Noisy().eval(), data, ["norm", "l2:local"]).rows:
        assert row["exact"] < 1e-10
        assert row["note"] == ""


def test_an_output_that_does_not_matter_to_us_stays_for_its_pruner(data):
    def loss(model, batch):
        return F.cross_entropy(model(batch[0])[1], batch[1])

    torch.manual_seed(0)
    config = replace(SHORT, outputs=("1",), distill=0.0)
    train = arrays(96, 0, shuffle=True, seed=3)
    found = hold(Two().eval(), (train, *data[1:]), ["ours", "l2"], config, ways="both", loss_fn=loss)
    rows = {row["method"]: row["failed"] for row in found.rows}
    assert rows["ours"] is None
    assert rows["l2"] is None


def test_outputs_of_another_form_are_refused():
    dense, small = Base(4), Base(2)
    with pytest.raises(
        CriterionError, match=r"changes the form of an input's outputs, from \[\(4,\)\] to \[\(2,\)\]"
    ):
        inexactness(dense, small, {}, X)


def test_how_many_boxes_are_found_is_no_form():
    class Boxes(Base):
        def forward(self, x):
            return self.logits(x)[: self.head.in_features]

    fewer = Boxes()
    fewer.head = nn.Linear(12, 3)
    fewer.head.in_features = 2
    assert inexactness(Boxes(), fewer, {}, X) == float("inf")
