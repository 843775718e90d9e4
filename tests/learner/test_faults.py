"""Bad batches, loaders that fail, signals and clocks: what was learned before stays good."""

from __future__ import annotations

import signal
import time

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import snnprune
from learner.conftest import loaders, problem
from snnprune.errors import DataError, DivergedError
from snnprune.learner import Checkpoint, Interrupted, PruneConfig, SearchOptions, loop
from snnprune.learner.recovering import RecoverStage
from snnprune.learner.searching import SearchStage

CONFIG = PruneConfig(target={"params": 0.4}, epochs=4, search=SearchOptions(share=0.4), seed=3)


class Batches(list):
    """A loader that makes something of one of its batches, counted from the end of the run's preparations."""

    def __init__(self, act) -> None:
        super().__init__(DataLoader(TensorDataset(*problem()), batch_size=16))
        self.act, self.seen = act, 0

    def begin(self, event) -> None:
        if event.stage == "probe":
            self.seen = -CONFIG.search.probe

    def __iter__(self):
        for batch in super().__iter__():
            self.seen += 1
            yield self.act(batch) if self.seen == 15 else batch


def run(train, checkpoint=None, callbacks=(), **options):
    if isinstance(train, Batches):
        train.seen, callbacks = -(10**9), [train.begin, *callbacks]
    return lambda model: snnprune.optimize(
        model, train, loaders()[1], CONFIG, checkpoint=checkpoint, callbacks=callbacks, **options
    )


def equal(a, b) -> bool:
    x, y = a.model.state_dict(), b.model.state_dict()
    return x.keys() == y.keys() and all(torch.equal(x[k], y[k]) for k in x)


@pytest.fixture
def often(monkeypatch):
    monkeypatch.setattr(loop, "_CHECKPOINT_SECONDS", 0.0)


def untouched(batch):
    return batch


def nan_images(batch):
    return batch[0].index_fill(0, torch.tensor([3]), torch.nan), batch[1]


def broken(batch):
    raise OSError("the network share is gone")


@pytest.mark.parametrize("act", [nan_images, broken])
@pytest.mark.usefixtures("often")
def test_a_bad_batch_leaves_the_checkpoint_before_it(trained, tmp_path, act):
    """The 15th batch is the 5th of an epoch of the search."""
    whole = run(Batches(untouched))(trained)
    error, words = (
        (DivergedError, "because 64 values of its batch are not finite")
        if act is nan_images
        else (
            OSError,
            "^the network share is gone$",
        )
    )
    with pytest.raises(error, match=words) as caught:
        run(Batches(act), tmp_path)(trained)
    assert type(caught.value) is error
    saved = torch.load(tmp_path / "state.pt")
    assert saved["stage"] == "recover" or saved["state"]["step"] == 14
    assert all(bool(t.isfinite().all()) for t in saved["state"]["model"].values())
    assert equal(run(Batches(untouched), tmp_path, resume=True)(trained), whole)


def test_targets_that_are_not_finite_are_named(trained):
    x, y = problem()
    targets = torch.nn.functional.one_hot(y, 3).float()
    targets[90, 1] = torch.inf  # not among the first batches, at which the run looks before it learns

    def loss(model, batch):
        return torch.nn.functional.mse_loss(model(batch[0]), batch[1])

    train = [(x[i : i + 16], targets[i : i + 16]) for i in range(0, 96, 16)]
    with pytest.raises(DivergedError, match="because 1 values of its batch are not finite"):
        snnprune.optimize(trained, train, None, CONFIG, loss_fn=loss)


def test_a_loss_that_diverges_on_good_data_is_laid_on_the_learning_rate(trained):
    with pytest.raises(DivergedError, match="learning rate"):
        snnprune.optimize(trained, loaders()[0], None, PruneConfig(target={"params": 0.4}, epochs=4, lr=1e30))


def test_validation_data_that_are_not_finite_do_not_cost_the_report(trained, tmp_path):
    x, y = problem(48, 1)
    x[40] = torch.nan
    val = DataLoader(TensorDataset(x, y), batch_size=24)
    result = snnprune.optimize(trained, loaders()[0], val, CONFIG)
    result.report.to_json(tmp_path / "report.json")
    report = snnprune.Report.read(tmp_path / "report.json")
    assert report.compact.loss is None
    assert report.compact.accuracy > 0.5


@pytest.mark.parametrize("stage", [SearchStage, RecoverStage])
@pytest.mark.usefixtures("often")
def test_a_stop_in_a_validation_makes_up_for_it(trained, tmp_path, monkeypatch, stage):
    """Whether Ctrl-C in it or a kill: the checkpoint of the epoch's last step is from before."""
    train = loaders()[0]
    whole = run(train)(trained)

    def stop(self, epoch):
        raise KeyboardInterrupt if stage is SearchStage else SystemError("as a kill")

    with monkeypatch.context() as patch:
        patch.setattr(stage, "after_epoch", stop)
        with pytest.raises((Interrupted, SystemError)):
            run(train, tmp_path)(trained)
    assert torch.load(tmp_path / "state.pt")["due"]
    resumed = run(train, tmp_path, resume=True)(trained)
    assert equal(resumed, whole)
    assert resumed.report.history == whole.report.history


@pytest.mark.parametrize("call", [9, 15])
def test_ctrl_c_right_after_a_step_does_not_count_it_half(trained, tmp_path, monkeypatch, call):
    """When the weights have moved and the number of the step has not."""
    whole = run(loaders()[0])(trained)
    original, calls = loop.rng_state, []

    def rng_state(**options):
        calls.extend([] if options else [1])  # those with options look at the data's stream, before the step
        if len(calls) == call and not options:
            signal.raise_signal(signal.SIGINT)
        return original(**options)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "rng_state", rng_state)
        with pytest.raises(Interrupted):
            run(loaders()[0], tmp_path)(trained)
    resumed = run(loaders()[0], tmp_path, resume=True)(trained)
    assert equal(resumed, whole)
    assert resumed.report.history == whole.report.history


@pytest.fixture
def sigterm():
    """The program's own handler; keeps what it was called for."""
    caught = []
    before = signal.signal(signal.SIGTERM, lambda number, _frame: caught.append(number))
    yield caught
    signal.signal(signal.SIGTERM, before)


def test_a_programs_own_handler_of_sigterm_decides(trained, sigterm, monkeypatch):
    original, inside = RecoverStage.train_step, []

    def train_step(self, batch):
        if self.step == 3:
            signal.raise_signal(signal.SIGTERM)
        loss = original(self, batch)
        if self.step == 3:
            inside.append(list(sigterm))
        return loss

    whole = run(loaders()[0])(trained)
    monkeypatch.setattr(RecoverStage, "train_step", train_step)
    assert equal(run(loaders()[0])(trained), whole)
    assert inside == [[]], "called after the step"
    assert sigterm == [signal.SIGTERM]


def test_a_clock_that_goes_back_changes_nothing(trained, tmp_path, monkeypatch):
    whole = run(loaders()[0])(trained)
    now = [2e9]

    def back() -> float:
        now[0] -= 3600
        return now[0]

    saves, original, ticks = [], Checkpoint.save, [0.0]

    def tick() -> float:
        ticks[0] += 10.0
        return ticks[0]

    def save(self, *args, **kwargs):
        saves.append((args[0], args[1]["step"]))
        original(self, *args, **kwargs)

    monkeypatch.setattr(Checkpoint, "save", save)
    monkeypatch.setattr(time, "time", back)
    monkeypatch.setattr(loop.time, "monotonic", tick)  # 10 s a step, 10 steps a stage
    result = run(loaders()[0], tmp_path)(trained)
    assert saves == [("search", 7), ("search", 10), ("recover", 7), ("recover", 11)]
    assert result.report.seconds >= 0
    assert equal(result, whole)


def test_labels_that_are_not_finite_are_refused(trained):
    images, _ = problem()
    train = [(images[:16], torch.full((16,), torch.nan))] * 2
    with pytest.raises(DataError, match="labels that are not finite"):
        snnprune.optimize(trained, train, None, CONFIG)
