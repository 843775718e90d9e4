"""Figures that are read one step late. The CPU stands in for a GPU: it is told that it runs ahead of itself."""

from __future__ import annotations

import math

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import snnprune
from learner.conftest import loaders, problem
from snnprune import late as numbers
from snnprune.errors import DataError, DivergedError
from snnprune.learner import PruneConfig, loop
from snnprune.learner.recovering import RecoverStage
from snnprune.learner.searching import SearchStage
from snnprune.learner.watch import Watch, figures_of
from snnprune.metrics import evaluate

CONFIG = PruneConfig(target={"params": 0.4}, epochs=4, search={"share": 0.4}, seed=3)


@pytest.fixture
def ahead(monkeypatch):
    monkeypatch.setattr(numbers, "_AHEAD", ("cpu", "cuda"))


@pytest.fixture
def often(monkeypatch):
    monkeypatch.setattr(loop, "_CHECKPOINT_SECONDS", 0.0)


def run(model, train=None, **options):
    return snnprune.optimize(model, train or loaders()[0], loaders()[1], CONFIG, **options)


def test_a_run_is_the_same_whether_it_reads_late_or_not(trained, monkeypatch):
    on_time = run(trained)
    monkeypatch.setattr(numbers, "_AHEAD", ("cpu", "cuda"))
    behind = run(trained)
    a, b = on_time.model.state_dict(), behind.model.state_dict()
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert behind.report.curve == on_time.report.curve
    assert behind.report.history == on_time.report.history
    assert behind.report.dense == on_time.report.dense
    assert behind.report.compact == on_time.report.compact


def test_figures_are_looked_at_one_step_late(ahead):
    watch = Watch("search", lambda _: None)
    watch.add(0, torch.tensor([1.5, 0.1]), None)
    assert math.isnan(watch.loss), "nobody has waited for it"
    watch.add(1, torch.tensor([torch.nan, 0.1]), torch.tensor([1.0, torch.nan]))
    assert watch.loss == 1.5
    with pytest.raises(DivergedError, match="nan at step 1 of the search, because 1 values of its batch"):
        watch.add(2, torch.tensor([0.5, 0.1]), None)


def test_figures_are_looked_at_at_once_where_nothing_is_waited_for():
    watch = Watch("search", lambda _: None)
    watch.add(0, torch.tensor([1.5, 0.1]), None)
    assert watch.loss == 1.5
    with pytest.raises(DivergedError, match="gradient is not finite"):
        watch.add(1, torch.tensor([1.0, torch.inf]), None)


def test_what_a_watch_has_refused_is_not_refused_twice(ahead):
    watch = Watch("search", lambda _: None)
    watch.add(0, torch.tensor([torch.inf]), None)
    with pytest.raises(DivergedError, match="learning rate"):
        watch.read()
    watch.read()


@pytest.mark.parametrize("stage", [SearchStage, RecoverStage])
@pytest.mark.parametrize("bad", ["loss", "gradient"])
@pytest.mark.parametrize("late", [False, True])
@pytest.mark.usefixtures("often")
def test_nothing_that_has_diverged_is_kept_or_shown(trained, tmp_path, monkeypatch, stage, bad, late):
    """The fourth step of a stage brings a loss or a gradient that is none; one epoch has six steps."""
    if late:
        monkeypatch.setattr(numbers, "_AHEAD", ("cpu", "cuda"))
    monkeypatch.setattr(loop, "_MARKS", 1)  # marks alone would have it read at every step
    monkeypatch.setattr(loop, "_CHECKPOINT_SECONDS", 1e9 if late else 0.0)
    steps, shown = [], []
    original = stage.train_step

    def train_step(self, batch):
        steps.append(self.step)
        if self.step == 3 and bad == "loss":
            batch = [batch[0].index_fill(0, torch.tensor([2]), torch.nan), batch[1]]
        if self.step == 3 and bad == "gradient":
            handle = next(p for p in self.model_parameters() if p.requires_grad).register_hook(
                lambda g: g * torch.nan
            )
            try:
                return original(self, batch)
            finally:
                handle.remove()
        return original(self, batch)

    def parameters(self):
        return (self.gated.model if isinstance(self, SearchStage) else self.model).parameters()

    def tell(event):
        if event.values and event.stage == stage.name:
            shown.append((event.step, event.values["loss"]))

    monkeypatch.setattr(stage, "model_parameters", parameters, raising=False)
    monkeypatch.setattr(stage, "train_step", train_step)
    words = "the loss became nan at step 3" if bad == "loss" else "a gradient is not finite"
    with pytest.raises(DivergedError, match=words):
        run(trained, checkpoint=tmp_path, callbacks=[tell])
    assert steps[-1] == (4 if late else 3), "at most one step later"
    assert all(math.isfinite(loss) for _, loss in shown)
    if (tmp_path / "state.pt").exists():
        saved = torch.load(tmp_path / "state.pt")
        assert saved["stage"] != stage.name or saved["state"]["step"] <= 3
        assert all(bool(t.isfinite().all()) for t in saved["state"]["model"].values())


@pytest.mark.parametrize("moment", ["checkpoint", "mark", "epoch", "Ctrl-C"])
def test_it_is_read_before_anything_is_written(trained, tmp_path, monkeypatch, ahead, moment):
    """The last step before each of these moments has diverged, and is not read a step later but at once."""
    bad = 5 if moment == "epoch" else 3
    monkeypatch.setattr(loop, "_MARKS", 10 if moment == "mark" else 1)
    monkeypatch.setattr(loop, "_CHECKPOINT_SECONDS", 0.0 if moment == "checkpoint" else 1e9)
    original, steps = SearchStage.train_step, []

    def train_step(self, batch):
        steps.append(self.step)
        figures = original(self, batch)
        if self.step == bad and moment == "Ctrl-C":
            import signal

            signal.raise_signal(signal.SIGINT)
        return figures * torch.nan if self.step == bad else figures

    monkeypatch.setattr(SearchStage, "train_step", train_step)
    monkeypatch.setattr(SearchStage, "after_epoch", lambda *_: pytest.fail("validated"))
    with pytest.raises(DivergedError, match=f"nan at step {bad} "):
        run(trained, checkpoint=tmp_path)
    assert steps[-1] == bad
    if (tmp_path / "state.pt").exists():
        assert torch.load(tmp_path / "state.pt")["state"]["step"] == bad
    else:
        assert moment != "checkpoint"


def test_what_fails_because_the_step_before_diverged_is_laid_on_that(trained, monkeypatch, ahead):
    monkeypatch.setattr(loop, "_MARKS", 1)
    original = SearchStage.train_step

    def train_step(self, batch):
        if self.step == 4:
            raise RuntimeError("probability tensor contains nan")
        figures = original(self, batch)
        return figures * torch.nan if self.step == 3 else figures

    monkeypatch.setattr(SearchStage, "train_step", train_step)
    with pytest.raises(DivergedError, match="nan at step 3"):
        run(trained)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda y: y + 10 * (y == 2), "labels up to 12, but the model has 3 outputs"),
        (lambda y: y - 1, "hold the label -1"),
        (lambda y: torch.nn.functional.one_hot(y, 3).float() * 0.7, "row 0 sums to 0.7"),
        (lambda y: torch.nn.functional.one_hot(y, 3) * torch.nan, "labels that are not finite"),
    ],
)
def test_labels_of_no_use_are_named_though_nobody_waited(trained, ahead, spoil, words):
    x, y = problem()
    good = torch.nn.functional.one_hot(y, 3).float() if spoil(y).dim() == 2 else y
    train = [(x[i : i + 16], (spoil(y) if i == 80 else good)[i : i + 16]) for i in range(0, 96, 16)]
    with pytest.raises(DataError, match=words):
        snnprune.optimize(trained, train, None, CONFIG)
    with pytest.raises(DataError, match=words):
        evaluate(trained, train)


def test_an_evaluation_reads_its_numbers_once(trained, monkeypatch):
    val = DataLoader(TensorDataset(*problem(50, 1)), batch_size=8)
    before = evaluate(trained, val)
    monkeypatch.setattr(numbers, "_AHEAD", ("cpu", "cuda"))
    read, original = [], torch.Tensor.tolist
    with monkeypatch.context() as patch:
        patch.setattr(torch.Tensor, "tolist", lambda self: (read.append(self.shape), original(self))[1])
        patch.setattr(torch.Tensor, "__float__", lambda _self: pytest.fail("a number is waited for"))
        patch.setattr(torch.Tensor, "__bool__", lambda _self: pytest.fail("a number is waited for"))
        assert evaluate(trained, val) == before
    assert read == [(7,)] * 2, (
        "all losses, and whether a label was none; which answers were right comes as one tensor"
    )


def test_a_step_reads_no_number(trained, monkeypatch, ahead):
    """Of a recovery step; those of the search are the switching core's as well."""
    stages = []
    original = RecoverStage.train_step

    def train_step(self, batch):
        stages.append(self)
        with monkeypatch.context() as patch:
            for name in ("tolist", "item", "__float__", "__bool__", "__int__"):
                patch.setattr(torch.Tensor, name, lambda *_a, **_k: pytest.fail("a number is waited for"))
            return original(self, batch)

    monkeypatch.setattr(RecoverStage, "train_step", train_step)
    run(trained)
    assert stages


def test_figures_keep_double_precision_and_no_graph():
    loss = torch.tensor(1 / 3, dtype=torch.float64, requires_grad=True)
    found = figures_of(loss * 1, [torch.tensor(2.0)])
    assert found.tolist() == [1 / 3, 2.0]
    assert not found.requires_grad
