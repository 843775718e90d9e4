"""Precision, memory format and compiler by measurement; a CPU and a made-up clock stand in for a GPU."""

from __future__ import annotations

import copy
import itertools
import json
import math

import pytest
import torch

import snnprune
from learner.conftest import loaders, problem
from snnprune.errors import CompilerError
from snnprune.learner import Checkpoint, Interrupted, PruneConfig, Speed, loop, recovering, speed
from snnprune.learner.loss import TaskLoss
from snnprune.learner.recovering import RecoverStage
from snnprune.learner.speed import candidates, choose, seconds_of, speed_of
from snnprune.ranks import Ranks

PLAIN = Speed()
LAST = Speed(channels_last=True)
HALF = Speed("bfloat16")
BOTH = Speed("bfloat16", channels_last=True)
FOUR = [PLAIN, LAST, HALF, BOTH]
CONFIG = PruneConfig(target={"params": 0.4}, epochs=4, search={"share": 0.4}, seed=3)


def chosen(times, *, left=1, may_compile=False, found=FOUR):
    return choose(found, lambda s: times[s.name], left=left, may_compile=may_compile, ranks=Ranks())


def times(plain=1.0, last=1.0, half=1.0, both=1.0, **more):
    return dict(zip([s.name for s in FOUR], (plain, last, half, both), strict=True)) | more


@pytest.mark.parametrize(
    ("found", "wanted"),
    [
        (times(), PLAIN),
        (times(last=0.96, half=0.97, both=0.96), PLAIN),
        (times(last=0.9, half=0.95, both=0.9), LAST),
        (times(last=0.9, half=0.5, both=0.49), HALF),
        (times(last=2.0, half=0.5, both=0.3), BOTH),
        (times(last=0.5, half=math.inf, both=math.inf), LAST),
        (times(plain=math.inf, last=math.inf, half=math.inf, both=math.inf), PLAIN),
    ],
)
def test_the_fastest_is_taken_and_ties_keep_float32(found, wanted):
    speed = chosen(found)
    assert (speed.precision, speed.channels_last, speed.compile) == (wanted.precision, wanted.channels_last, False)
    assert speed.measured == {name: value for name, value in found.items() if value < math.inf}


@pytest.mark.parametrize(
    ("left", "compiled", "wanted"),
    [(599, 0.1, False), (601, 0.1, True), (601, 0.96, False), (601, math.inf, False)],
)
def test_the_compiler_is_tried_where_ten_minutes_are_left(left, compiled, wanted, caplog):
    found = chosen(times(**{"float32, compile": compiled}), left=left, may_compile=True)
    assert found.compile is wanted
    assert ("float32, compile" in found.measured) == (left > 600 and compiled < math.inf)
    assert ("goes on without it" in caplog.text) == (compiled == math.inf)
    assert not chosen(times(**{"float32, compile": compiled}), left=left).compile


def test_processes_agree_on_the_mean_of_their_times():
    class Two(Ranks):
        def total(self, *values):
            return tuple(v + {1.0: 1.0, 0.9: 1.1}[v] for v in values)  # the other one's

    found = choose(
        [PLAIN, LAST], lambda s: {"float32": 1.0}.get(s.name, 0.9), left=1, may_compile=False, ranks=Two(0, 2)
    )
    assert found == Speed(measured={"float32": 1.0, "float32, channels_last": 1.0})


def test_only_what_is_auto_is_measured(trained):
    def names(model=trained, **options):
        return [s.name for s in candidates(PruneConfig(**options), model)]

    assert names() == [s.name for s in FOUR]
    assert names(precision="float32") == [PLAIN.name, LAST.name]
    assert names(channels_last=True) == [LAST.name, BOTH.name]
    assert names(channels_last=False, precision="bfloat16") == [HALF.name]
    assert names(torch.nn.Linear(3, 3)) == [PLAIN.name, HALF.name]
    assert names(precision="float32", channels_last=False, compile=True) == ["float32, compile"]


def test_auto_is_plain_on_a_cpu(trained):
    assert speed_of(PruneConfig()) == PLAIN
    result = snnprune.optimize(trained, *loaders(), CONFIG)
    assert result.report.speed == PLAIN.to_dict()
    plain = PruneConfig(**{**CONFIG.to_dict(), "precision": "float32", "channels_last": False, "compile": False})
    same = snnprune.optimize(trained, *loaders(), plain)
    a, b = (r.model.state_dict() for r in (result, same))
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_seconds_are_those_of_the_better_look():
    ticks = itertools.chain([0.0, 8.0], [20.0, 24.0])
    calls = []

    def make():
        return lambda: (calls.append(1), torch.ones(2))[1]

    assert seconds_of(make, lambda: next(ticks), "it") == 1.0
    assert len(calls) == 3 + 2 * 4


@pytest.mark.parametrize("how", ["raises", "diverges", "cannot be made"])
def test_what_fails_takes_for_ever(how):
    def step():
        if how == "raises":
            raise RuntimeError("view size is not compatible")
        return torch.tensor([torch.nan])

    def make():
        if how == "cannot be made":
            raise torch.OutOfMemoryError
        return step

    assert seconds_of(make, iter(range(99)).__next__, "it") == math.inf


class Clock:
    """Every measured candidate takes the time that it is said to take."""

    def __init__(self, *seconds: float) -> None:
        self.seconds, self.reads, self.now = list(seconds), 0, 0.0

    def __call__(self) -> float:
        at, odd = divmod(self.reads, 2)
        if odd:
            self.now += 4 * self.seconds[at // 2 % len(self.seconds)]
        self.reads += 1
        return self.now


@pytest.fixture
def measured(monkeypatch):
    """`auto` measures here, too; gives the runs' clock."""

    def on(*seconds: float) -> Clock:
        clock = Clock(*seconds)
        monkeypatch.setattr(speed, "_MEASURED", ("cpu",))
        monkeypatch.setitem(recovering.RecoverStage.__init__.__kwdefaults__, "clock", clock)
        monkeypatch.setitem(recovering.recover.__kwdefaults__, "clock", clock)
        return clock

    return on


def run(trained, train=None, **options):
    result = snnprune.optimize(trained, train or loaders()[0], loaders()[1], CONFIG, **options)
    return result, result.model.state_dict()


def test_measuring_changes_nothing_of_the_run(trained, measured):
    plain, before = run(trained)
    clock = measured(1.0, 1.0, 1.0, 1.0)
    result, after = run(trained)
    assert clock.reads == 16, "four candidates, two looks each"
    assert result.report.speed == Speed(measured=times()).to_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert result.report.curve == plain.report.curve


@pytest.mark.parametrize(("seconds", "wanted"), [((1, 0.5, 0.9, 0.6), LAST), ((1, 1, 0.5, 0.4), BOTH)])
def test_the_recovery_goes_on_in_what_was_fastest(trained, measured, seconds, wanted, monkeypatch, tmp_path):
    dtypes, clock = [], measured(*map(float, seconds))
    result, _ = run(trained)
    assert clock.reads == 16
    assert result.report.speed["precision"] == wanted.precision
    assert result.report.speed["channels_last"] is wanted.channels_last
    assert result.model.conv.weight.dtype == torch.float32
    explicit = {"precision": wanted.precision, "channels_last": wanted.channels_last, "compile": False}
    stage = RecoverStage(
        copy.deepcopy(trained),
        TaskLoss(None, distill=0.0, temperature=1.0),
        PruneConfig(**explicit),
        total=2,
        val=None,
        extra={},
        sparse=(),
    )
    assert stage.speed == Speed(**explicit)
    stage.model.hidden.register_forward_hook(lambda _m, _x, y: dtypes.append(y.dtype))
    stage.train_step(problem())
    assert dtypes == [getattr(torch, wanted.precision)]
    result.report.to_json(tmp_path / "report.json")
    assert snnprune.Report.read(tmp_path / "report.json").speed == result.report.speed
    assert json.loads((tmp_path / "report.json").read_text())["speed"]["measured"]


@pytest.mark.parametrize("seconds", [(1.0, 1.0, 1.0, 1.0), (1.0, 1.0, 0.5, 0.4)])
def test_a_run_that_goes_on_does_not_measure_again(trained, measured, monkeypatch, tmp_path, seconds):
    clock = measured(*seconds)
    whole, before = run(trained)
    reads = clock.reads
    monkeypatch.setattr(loop, "_CHECKPOINT_SECONDS", 0.0)

    def stop(event):
        if event.stage == "recover" and event.step == 4:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted):
        run(trained, checkpoint=tmp_path, callbacks=[stop])
    assert clock.reads == 2 * reads
    assert torch.load(tmp_path / "state.pt")["state"]["speed"] == whole.report.speed
    clock.seconds = [1.0, 0.1, 0.1, 0.1]
    resumed, after = run(trained, checkpoint=tmp_path, resume=True)
    assert clock.reads == 2 * reads
    assert resumed.report.speed == whole.report.speed
    assert all(torch.equal(before[name], after[name]) for name in before)


def compiler(monkeypatch, *, fails_at=None):
    """A stand-in for `torch.compile`; from some call on it may fail, by an error of the compiler's own kind."""
    made, calls = [], []

    class Broken(RuntimeError):
        pass

    Broken.__module__ = "torch._dynamo.exc"

    def compile(model, **_options):
        made.append(model)

        def forward(*args):
            calls.append(1)
            if fails_at is not None and len(calls) >= fails_at:
                raise Broken("no compiler here")
            return model(*args)

        return forward

    monkeypatch.setattr(torch, "compile", compile)
    monkeypatch.setattr(speed, "_COMPILING_PAYS", 0.0)
    return made


def test_a_long_run_is_compiled(trained, measured, monkeypatch):
    _, before = run(trained)
    measured(1.0, 1.0, 1.0, 1.0, 0.5)
    made = compiler(monkeypatch)
    result, after = run(trained)
    assert len(made) == 4, "network and teacher, of the copies and of the run"
    assert result.report.speed["compile"]
    assert result.report.speed["measured"]["float32, compile"] == 0.5
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("fails_at", [1, 40])
def test_a_compiler_that_fails_is_left_out(trained, measured, monkeypatch, caplog, fails_at):
    """In its trial, or later at some step of the run, which is then done again without it."""
    _, before = run(trained)
    measured(1.0, 1.0, 1.0, 1.0, 0.5)
    compiler(monkeypatch, fails_at=fails_at)
    result, after = run(trained)
    assert not result.report.speed["compile"]
    assert "without it" in caplog.text
    assert before.keys() == after.keys()
    if fails_at == 1:
        assert all(torch.equal(before[name], after[name]) for name in before)


def test_an_explicit_compiler_that_fails_ends_the_run(trained, monkeypatch):
    compiler(monkeypatch, fails_at=1)
    with pytest.raises(CompilerError, match="no compiler here"):
        snnprune.optimize(trained, *loaders(), PruneConfig(target={"params": 0.4}, compile=True))


@pytest.mark.parametrize("before", [True, False, "auto"])
@pytest.mark.parametrize("now", [True, False, "auto"])
def test_a_run_that_goes_on_compiles_as_it_is_told_now(trained, monkeypatch, tmp_path, before, now):
    compiler(monkeypatch)
    stage = [
        RecoverStage(
            copy.deepcopy(trained),
            TaskLoss(None, distill=0.0, temperature=1.0),
            PruneConfig(compile=option),
            total=2,
            val=None,
            extra={},
            sparse=(),
        )
        for option in (before, now)
    ]
    Checkpoint(tmp_path, {}).save("recover", stage[0].state(), {})
    saved = Checkpoint(tmp_path, {}).load()
    assert saved is not None
    stage[1].load(saved["state"])
    assert stage[1].speed.compile is (now is True)
