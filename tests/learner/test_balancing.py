"""Balancing: what a trial measures, what is kept, and that nothing else changes."""

from __future__ import annotations

import copy
import itertools
import math
from dataclasses import asdict, replace

import pytest
import torch
from contests.conftest import stop_at
from torch import nn

import snnprune
from learner.conftest import loaders, problem
from snnprune.learner import PruneConfig, SearchOptions, TaskLoss
from snnprune.learner.balancing import BalanceStage, balance
from snnprune.learner.recovering import RecoverStage
from snnprune.learner.searching import SearchStage
from snnprune.pipeline.setting import Setting
from snnprune.proof.tracing import trace
from snnprune.switching import GatedModel, Options, switch_neurons

BALANCED = SearchOptions(balance=60)
CONFIG = PruneConfig(target={"params": 0.5}, round_to=1, search=BALANCED)


def batches(count: int = 3) -> list[tuple[torch.Tensor, torch.Tensor]]:
    x, y = problem()
    return [(x[at * 16 : at * 16 + 16], y[at * 16 : at * 16 + 16]) for at in range(count)]


def gated_of(model: nn.Module, dtype: torch.dtype = torch.float32) -> GatedModel:
    model = copy.deepcopy(model).to(dtype)
    x = problem()[0][:4].to(dtype)
    return switch_neurons(model, trace(model, x), x, Options(metric="params"))


def loss_of(model: nn.Module) -> TaskLoss:
    return TaskLoss(copy.deepcopy(model), distill=0.9, temperature=2.0)


def told(
    gated: GatedModel, model: nn.Module, total: int = 20, config: PruneConfig = CONFIG, **more
) -> list[float]:
    """Balance a model; the least loss after every trial."""
    seen, step = [], BalanceStage.train_step

    def train_step(stage, batch):
        found = step(stage, batch)
        seen.append(stage.best)
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BalanceStage, "train_step", train_step)
        balance(gated, more.pop("looks", batches()), loss_of(model), config, total=total, **more)
    return seen


def test_a_trial_is_the_loss_of_the_cut_network_on_these_batches(trained):
    """Also batch norm takes its statistics from them; float64, so that nothing hides in rounding."""
    trained = copy.deepcopy(trained)
    trained.drop.p = 0.0
    dense = copy.deepcopy(trained).double()
    gated = gated_of(trained, torch.float64)
    looks = [(x.double(), y) for x, y in batches()]
    for total in (1, 20):
        best = told(gated, dense, total, looks=looks)[-1]
        gated.set_budget(CONFIG.target)
        cut = gated.compact().train()
        loss = loss_of(dense)
        with torch.no_grad():
            expected = sum(float(loss(cut, batch)) for batch in looks) / len(looks)
        assert best == pytest.approx(expected, rel=1e-12)
        assert snnprune.metrics.count_params(cut) <= 0.5 * snnprune.metrics.count_params(dense)


def test_the_best_is_kept_and_gets_better(trained):
    gated = gated_of(trained)
    gated.scorer.shifts[0] += 0.2  # a start that spares the first group and takes all from the others
    before = gated.scorer.shifts.clone()
    config = replace(CONFIG, target={"params": 0.15})
    seen = told(gated, trained, 40, config)
    assert len(seen) == 40
    assert all(later <= earlier for earlier, later in itertools.pairwise(seen))
    assert seen[-1] < seen[0]
    assert not torch.equal(gated.scorer.shifts, before)
    again = told(gated, trained, 1, config)
    assert again == [seen[-1]], "the shifts that stay are those of the least loss"


def test_without_a_gain_shifts_stay(trained):
    gated = gated_of(trained)
    before = gated.scorer.shifts.clone()
    told(gated, trained, 1)
    assert torch.equal(gated.scorer.shifts, before)


def test_nothing_else_changes(trained):
    gated = gated_of(trained)
    state = copy.deepcopy(gated.model.state_dict())
    values = gated.scorer(gated.model).detach().clone()
    told(gated, trained)
    assert all(torch.equal(value, state[name]) for name, value in gated.model.state_dict().items())
    assert torch.equal(gated.scorer(gated.model), values), "what neurons are worth beside each other in a group"
    assert all(p.grad is None for p in gated.model.parameters())
    assert not gated.model.training
    assert gated.budget is None


def test_trials_of_a_network_with_dropout_differ_by_shifts_alone(trained):
    assert trained.drop.p > 0
    gated = gated_of(trained)
    assert told(gated, trained, 1) == told(gated, trained, 1)


def test_a_loss_that_is_not_finite_is_never_kept(trained):
    gated = gated_of(trained)
    calls = []

    def broken(network, batch):
        calls.append(1)
        value = network(batch[0]).square().mean()
        return value if len(calls) <= 3 else value * math.nan  # all but the first trial

    loss = TaskLoss(None, distill=0.0, temperature=1.0, loss_fn=broken)
    before = gated.scorer.shifts.clone()
    balance(gated, batches(), loss, CONFIG, total=10)
    assert torch.equal(gated.scorer.shifts, before)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, 10),  # a twentieth of 200
        ({"search": SearchOptions()}, 0),
        ({"epochs": 100}, 30),
        ({"epochs": 8}, 0),  # 48 steps: two trials are not worth it
        ({"search": {"balance": 0}}, 0),
        ({"search": {"balance": 7}}, 7),
        ({"target": None}, 0),
        ({"target": {"params": 0.5}, "granularity": "connection"}, 0),
        ({"search": {"balance": 60, "start": "fresh"}}, 0),
        ({"search": {"balance": 60, "scores": "norm"}}, 0),
        ({"search": {"balance": 60, "scores": "free"}}, 10),
        ({"target": {"drop": 0.01}}, 10),
    ],
)
def test_how_many_trials(trained, changes, expected):
    config = PruneConfig(**{"target": {"macs": 0.5}, "epochs": 200 / 6, "search": BALANCED, **changes})
    train, val = loaders()
    assert len(train) == 6
    if config.epochs == 100:
        config = replace(config, search=replace(config.search, balance=30))
    setting = Setting(trained, train, val, None, config, torch.device("cpu"))
    steps = setting.steps(config)
    assert steps.balance == expected
    assert steps.total == sum(asdict(steps).values()) == round(config.epochs * 6)


def test_what_is_on_file_goes_on_to_the_same_shifts(trained):
    def begun():
        gated = gated_of(trained)
        gated.scorer.shifts[0] += 0.2
        gated.set_budget({"params": 0.15})
        config = replace(CONFIG, target={"params": 0.15})
        return BalanceStage(gated, loss_of(trained), config, total=30, extra={"more": 1})

    def go(stage, until):
        while stage.step < until:
            stage.train_step(batches())
            stage.step += 1

    whole, first, second = begun(), begun(), begun()
    go(whole, 30)
    go(first, 2)
    state = first.state()
    assert state["more"] == 1
    second.load(state)
    go(second, 30)
    assert torch.equal(second.shifts, whole.shifts)
    assert (second.best, second.width, second.unit) == (whole.best, whole.width, whole.unit)
    assert whole.best < first.best, "there was something to find after the stop"


def test_stopped_in_it_a_run_goes_on_to_the_same_bits(trained, tmp_path, monkeypatch):
    train, val = loaders()
    config = PruneConfig(target={"params": 0.4}, epochs=25, lr=0.02, round_to=1, search=BALANCED)

    def run(**more):
        return snnprune.optimize(trained, train, val, config, **more)

    whole = run()
    assert whole.report.steps["balance"] == 7
    assert sum(whole.report.steps.values()) == 150
    unbalanced = replace(config, search=replace(config.search, balance=0))
    other = snnprune.optimize(trained, train, val, unbalanced)
    assert whole.report.groups != other.report.groups
    for stage, call in ((BalanceStage, 1), (BalanceStage, 4), (SearchStage, 2), (RecoverStage, 3)):
        folder = tmp_path / f"{stage.name}-{call}"
        with monkeypatch.context() as patch:
            stop_at(patch, stage, call)
            with pytest.raises(KeyboardInterrupt):
                run(checkpoint=folder)
        taken, step = [], BalanceStage.train_step
        with monkeypatch.context() as patch:
            patch.setattr(BalanceStage, "train_step", lambda s, b, t=taken, f=step: (t.append(1), f(s, b))[1])
            again = run(checkpoint=folder, resume=True)
        assert len(taken) == (7 - call if stage is BalanceStage else 0)
        state = again.model.state_dict()
        assert all(torch.equal(value, state[name]) for name, value in whole.model.state_dict().items())
