"""What a contest refuses, and rivals that fail: a row or a line in words, and the others go on."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import snnprune
from contests.conftest import CONFIG, SHORT, hold
from snnprune.errors import ConfigError, RunError, TargetError


class Constant(nn.Module):
    """The number of channels stands in the code, where torch-pruning does not find it; no batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.hidden, self.head = nn.Conv2d(1, 8, 3, padding=1), nn.Linear(32, 20), nn.Linear(20, 3)

    def forward(self, x):
        x = F.adaptive_avg_pool2d(F.relu(self.conv(x)), 2)
        return self.head(F.relu(self.hidden(torch.reshape(x, (-1, 8 * 4)))))


class Padded(nn.Module):
    """A shortcut that is padded with zero channels, of which torch-pruning shifts no indices."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Conv2d(1, 8, 3), nn.Conv2d(8, 12, 3, padding=1), nn.Linear(12, 3)

    def forward(self, x):
        x = F.relu(self.first(x))
        x = F.relu(F.pad(x, (0, 0, 0, 0, 2, 2)) + self.second(x))
        return self.head(x.mean((2, 3)))


class Normed(nn.Module):
    """A layer norm reads the channels of a stream: torch-pruning cuts them all the same."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Linear(64, 12), nn.LayerNorm(12)
        self.hidden, self.head = nn.Linear(12, 20), nn.Linear(20, 3)

    def forward(self, x):
        return self.head(F.relu(self.hidden(self.norm(self.first(x.flatten(1))))))


def test_a_rival_that_cannot_build_or_judge_says_so_and_the_others_go_on(data):
    train, val, test = data
    torch.manual_seed(0)
    config = replace(CONFIG, target={"params": 0.6})
    found = snnprune.contest(
        Constant().eval(), train, val, config, methods=["ours", "l2", "bn-scale"], ways="both", seeds=2, test=test
    )
    rows = {row["method"]: row for row in found.rows}
    assert "leaves a network that does not run" in rows["l2, as it is, local"]["failed"]
    assert "says nothing of any group" in rows["bn-scale"]["failed"]
    assert rows["ours"]["failed"] is None
    assert rows["l2"]["failed"] is None
    assert rows["l2"]["params"] <= 0.6
    text = str(found)
    assert "bn-scale failed: scores=bn-scale says nothing" in text
    assert "l2" in found.verdict


def as_they_are(model, data, target):
    train, val, test = data
    config = replace(CONFIG, target=target)
    found = snnprune.contest(model, train, val, config, methods=["l2"], ways="both", seeds=1, test=test)
    return {row["method"]: row for row in found.rows}


def test_where_its_pruner_fails_the_row_has_its_words(data):
    torch.manual_seed(0)
    rows = as_they_are(Padded().eval(), data, {"macs": 0.5})
    assert rows["l2"]["exact"] < 1e-10
    for scope in ("local", "global"):
        why = rows[f"l2, as it is, {scope}"]["failed"]
        assert why.startswith("torch-pruning's pruner fails on this network (IndexError: ")


def test_a_removal_that_is_not_exact_is_told(data):
    torch.manual_seed(0)
    rows = as_they_are(Normed().eval(), data, {"params": 0.6})
    assert rows["l2"]["exact"] < 1e-10
    assert rows["l2"]["note"] == ""
    for scope in ("local", "global"):
        row = rows[f"l2, as it is, {scope}"]
        assert row["failed"] is None
        assert row["exact"] > 1e-3
        assert row["note"].startswith("its removal is not exact: the outputs differ by up to ")


def test_without_torch_pruning_its_rows_say_what_is_missing(model, data, monkeypatch, tmp_path):
    train, val, test = data
    options = {"methods": ["norm", "l2"], "ways": "both", "seeds": 1, "test": test, "folder": tmp_path / "a"}
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "torch_pruning", None)
        found = snnprune.contest(model, train, val, CONFIG, **options)
    rows = {row["method"]: row["failed"] for row in found.rows}
    assert rows.pop("norm") is None
    assert len(rows) == 3
    assert all("torch-pruning cannot be imported" in why for why in rows.values())
    again = snnprune.contest(model, train, val, CONFIG, resume=True, **options)
    assert [row["failed"] for row in again.rows] == [None] * 4, "what has failed is tried again"
    assert again.rows[0] == found.rows[0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"target": {"drop": 0.01}}, "target drop"),
        ({"target": {"latency": 0.5}}, "target latency"),
        ({"target": None}, "target free"),
        ({"target": {"params": 0.5}, "granularity": "connection"}, "single connections"),
        ({"target": {"macs": 0.01}}, "macs=0.01"),
    ],
)
def test_targets_that_not_all_can_meet_are_refused(model, data, changes, message):
    train, val, test = data
    with pytest.raises(TargetError, match=message):
        snnprune.contest(model, train, val, replace(CONFIG, **changes), methods=["norm"], test=test)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seeds": 0}, "seeds=0"),
        ({"ways": "sideways"}, "ways='sideways'"),
        ({"methods": "nobody"}, "method 'nobody' is unknown"),
        ({"test": None, "val": None}, "give `test`, or `val`"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(model, data, options, message):
    train, val, test = data
    given = {"val": val, "test": test, **options}
    with pytest.raises(ConfigError, match=message):
        snnprune.contest(model, train, given.pop("val"), CONFIG, **given)


def test_a_metric_that_fails_for_one_network_costs_one_row(data, tmp_path):
    train, _, test = data
    whole = sum(p.numel() for p in Constant().parameters())
    calls = []

    def metric(model, loader):
        cut = sum(p.numel() for p in model.parameters()) < whole
        calls.append(cut)
        right = snnprune.evaluate(model, loader).accuracy
        return float("nan") if cut and calls.count(True) == 1 else right

    torch.manual_seed(0)
    judged = snnprune.Metric(metric, higher_is_better=True)
    options = {"methods": ["norm", "l2"], "seeds": 1, "metric": judged}
    found = snnprune.contest(Constant().eval(), train, None, CONFIG, test=test, folder=tmp_path / "a", **options)
    rows = {row["method"]: row for row in found.rows}
    assert rows["norm"]["failed"].startswith("metric metric is nan")
    assert rows["l2"]["failed"] is None
    assert "norm failed: metric metric is nan" in str(found)


def test_a_contest_goes_on_with_the_same_loss_alone(data, tmp_path):
    train, val, test = data

    def loss(by):
        return lambda model, batch: by * F.cross_entropy(model(batch[0]), batch[1])

    torch.manual_seed(0)
    model = Constant().eval()
    options = {"methods": ["norm"], "seeds": 1, "test": test, "folder": tmp_path / "held"}
    snnprune.contest(model, train, val, CONFIG, loss_fn=loss(1), **options)
    with pytest.raises(RunError, match="loss's code has changed"):
        snnprune.contest(model, train, val, CONFIG, loss_fn=loss(100), resume=True, **options)
    found = snnprune.contest(model, train, val, CONFIG, loss_fn=loss(1), resume=True, **options)
    assert len(found.rows) == 1


@pytest.mark.parametrize(
    "method", ["l2:local", "lamp:global", "bn-sparse:local", "group-sparse:local", "growing:local"]
)
def test_what_is_frozen_is_cut_by_theirs_as_by_ours(model, data, method):
    """Its graph is made of gradients' functions: frozen layers were passed over without a word."""
    config = replace(SHORT, epochs=3, target={"macs": 0.4})
    free = hold(model, data, [method], config).rows[0]
    for module in (model.conv, model.norm, model.inner):
        module.requires_grad_(False)
    before = {name: p.requires_grad for name, p in model.named_parameters()}
    frozen = hold(model, data, [method], config).rows[0]
    assert (free["failed"], frozen["failed"]) == (None, None)
    assert frozen["macs"] == pytest.approx(free["macs"], abs=0.05)
    assert frozen["exact"] < 1e-9
    assert {name: p.requires_grad for name, p in model.named_parameters()} == before


def test_a_seed_beyond_the_last_is_refused_before_anything_is_done(model, data, tmp_path):
    with pytest.raises(ConfigError, match="seed=18446744073709551616"):
        hold(model, data, ["norm"], replace(SHORT, seed=2**64 - 1), seeds=2, folder=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_values_that_no_axis_holds_are_not_drawn(model, data, tmp_path):
    train, _, test = data
    values = iter([1.0, *[1.5e308, 1.0] * 9])
    found = snnprune.contest(
        model, train, None, SHORT, methods=["l2", "norm"], seeds=1, test=test, folder=tmp_path,
        metric=lambda _model, _data: next(values),
    )  # fmt: skip
    assert "Values as large as 1.5e+308 are not drawn" in found.page.read_text()


def test_a_cut_that_unties_weights_says_so(data):
    class Tied(nn.Module):
        def __init__(self, tied: bool) -> None:
            super().__init__()
            self.first, self.second, self.head = nn.Linear(64, 32), nn.Linear(32, 32), nn.Linear(32, 3)
            self.third = nn.Linear(32, 32)
            if tied:
                self.third.weight = self.second.weight

        def forward(self, x):
            return self.head(F.relu(self.third(F.relu(self.second(F.relu(self.first(x.flatten(1))))))))

    train, val, test = data
    notes = []
    for tied in (True, False):
        torch.manual_seed(0)
        found = snnprune.contest(
            Tied(tied).eval(),
            train,
            val,
            replace(SHORT, target={"params": 0.8}),
            methods=["l2:local"],
            seeds=1,
            test=test,
        )
        (row,) = found.rows
        assert row["failed"] is None
        notes.append(row["note"] or "")
    assert "layers that share a weight one each" in notes[0]
    assert "share" not in notes[1]
