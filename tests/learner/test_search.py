"""The search: who moves when, what it starts from, and where it ends."""

from __future__ import annotations

import copy
import math
import sys

import pytest
import torch
from torch import nn

import snnprune
from learner.conftest import Net, loaders, problem
from snnprune.errors import CollapsedLayerError, DivergedError
from snnprune.learner import PruneConfig, SearchOptions, TaskLoss
from snnprune.learner.searching import SearchStage, scorer_pace
from snnprune.metrics import Evaluation
from snnprune.pipeline.attaching import switch
from snnprune.proof.tracing import trace
from snnprune.switching import Options, switch_neurons


def stage_for(model: nn.Module, config: PruneConfig, total: int = 12, per_epoch: int = 6) -> SearchStage:
    x = problem()[0][:4]
    groups = trace(model, x)
    gated = switch_neurons(model, groups, x, Options(scores=config.search.scores, start=config.search.start))
    loss = TaskLoss(copy.deepcopy(model), distill=config.distill, temperature=2.0)
    return SearchStage(gated, loss, config, total=total, per_epoch=per_epoch, val=None, extra={})


def snapshot(module: nn.Module) -> list[torch.Tensor]:
    return [p.detach().clone() for p in module.parameters()]


def moved(before: list[torch.Tensor], module: nn.Module) -> bool:
    return any(not torch.equal(a, b) for a, b in zip(before, module.parameters(), strict=True))


@pytest.mark.parametrize(("alternate", "pattern"), [(1, "SNSNSN"), (2, "SSNNSS"), ("epoch", "SSSNNN")])
@pytest.mark.parametrize("gradient", ["through", "held"])
def test_switcher_and_network_move_in_turn(trained, alternate, pattern, gradient):
    config = PruneConfig(target={"params": 0.5}, search=SearchOptions(alternate=alternate, gradient=gradient))
    stage = stage_for(copy.deepcopy(trained), config, total=6, per_epoch=3)
    batch = tuple(t[:16] for t in problem())
    done = ""
    for step in range(6):
        stage.step = step
        network, scorer = snapshot(stage.gated.model), snapshot(stage.gated.scorer)
        stage.train_step(batch)
        moved_network, moved_scorer = moved(network, stage.gated.model), moved(scorer, stage.gated.scorer)
        assert moved_network != moved_scorer
        done += "N" if moved_network else "S"
    assert done == pattern


@pytest.mark.parametrize("scores", ["switcher", "switcher+offset", "free"])
def test_together_moves_both_by_the_gradients_of_one_pass(trained, scores):
    config = PruneConfig(target={"params": 0.5}, optimizer="adamw", search=SearchOptions(scores=scores))
    stage = stage_for(copy.deepcopy(trained), config, total=6, per_epoch=3)
    batch = tuple(t[:16] for t in problem())
    calls = []
    loss = stage.loss

    class Counting:
        def __call__(self, model, batch):
            calls.append(1)
            return loss(model, batch)

    stage.loss = Counting()
    for step in range(6):
        stage.step = step
        network, scorer = snapshot(stage.gated.model), snapshot(stage.gated.scorer)
        stage.train_step(batch)
        assert moved(network, stage.gated.model)
        assert moved(scorer, stage.gated.scorer)
    assert len(calls) == 6


@pytest.mark.parametrize("granularity", ["neuron", "connection"])
def test_with_hold_the_switcher_runs_at_some_steps_and_its_scales_stand_between_them(trained, granularity):
    config = PruneConfig(search=SearchOptions(hold=3), target={"params": 0.5}, granularity=granularity)
    if granularity == "neuron":
        stage = stage_for(copy.deepcopy(trained), config, total=7, per_epoch=7)
    else:
        model, x = copy.deepcopy(trained), problem()[0][:4]
        loss = TaskLoss(None, distill=0.0, temperature=1.0)
        gated = switch(model, trace(model, x), lambda: None, config, loss, None)
        stage = SearchStage(gated, loss, config, total=7, per_epoch=7, val=None, extra={})
    batch = tuple(t[:16] for t in problem())
    calls = []
    stage.gated.scorer.register_forward_hook(lambda *_: calls.append(step))
    counts = []
    for step in range(7):
        stage.step = step
        network, scorer = snapshot(stage.gated.model), snapshot(stage.gated.scorer)
        stage.train_step(batch)
        assert moved(network, stage.gated.model)
        assert moved(scorer, stage.gated.scorer) == (step % 3 == 0)
        counts.append([c.kept for c in stage.gated.counts()])
    assert calls == [0, 3, 6]
    assert counts[0] == counts[1] == counts[2] != counts[3]
    stage.gated.set_phase("both")
    stage.gated.counts()
    assert calls == [0, 3, 6, 6], "afterwards the scales follow the scorer again"


def test_a_long_search_takes_smaller_steps_of_the_scorer(trained):
    assert scorer_pace(PruneConfig(), 60) == 1.0
    assert scorer_pace(PruneConfig(), 240) == 0.25
    assert scorer_pace(PruneConfig(search=SearchOptions(hold=4)), 240) == 1.0
    assert scorer_pace(PruneConfig(search=SearchOptions(alternate=2)), 240) == 0.5
    assert scorer_pace(PruneConfig(target=None), 240) == 1.0, "the papers' rates are as published"
    assert scorer_pace(PruneConfig(search=SearchOptions(start="fresh")), 240) == 1.0, (
        "a fresh start has a long way to go"
    )
    stage = stage_for(
        copy.deepcopy(trained),
        PruneConfig(search=SearchOptions(switcher_lr=1e-3, offset_lr=2e-3), lr=0.04),
        total=120,
    )
    assert [group["lr"] for group in stage.scorer_optimizer.param_groups] == [0.5e-3, 1e-3]
    assert stage.optimizer.param_groups[0]["lr"] == 0.04


def changes_of_place(model: nn.Module, total: int, seed: int) -> int:
    """Neurons that come or go in the last 60 steps of a search, in which the budget stands still."""
    torch.manual_seed(seed)  # of the dropout
    stage = stage_for(copy.deepcopy(model), PruneConfig(target={"params": 0.2}, lr=0.05, distill=0.0), total=total)
    x, y = problem()
    last, changes = None, 0
    for step in range(total):
        stage.step = step
        at = torch.arange(32) + 32 * step
        stage.train_step((x[at % len(x)], y[at % len(x)]))
        if step >= total - 60:
            kept = torch.cat([scale > 0 for scale in stage.gated.scales.values()])
            changes += 0 if last is None else int((kept != last).sum())
            last = kept
    return changes


def test_neurons_settle_in_a_long_search(trained, monkeypatch):
    seeds = range(4)  # one search may be lucky
    settled = sum(changes_of_place(trained, 240, seed) for seed in seeds)
    monkeypatch.setattr(sys.modules[SearchStage.__module__], "STEPS_AT_FULL_RATE", 240)
    assert settled < 0.75 * sum(changes_of_place(trained, 240, seed) for seed in seeds)


def test_rates_fall_along_a_cosine_when_asked_to(trained):
    stage = stage_for(
        copy.deepcopy(trained), PruneConfig(search=SearchOptions(decay=True, switcher_lr=0.002), lr=0.04), total=4
    )
    batch = tuple(t[:16] for t in problem())
    seen = []
    for step in range(4):
        stage.step = step
        stage.train_step(batch)
        seen.append((stage.optimizer.param_groups[0]["lr"], stage.scorer_optimizer.param_groups[0]["lr"]))
    falls = [0.5 * (1 + math.cos(math.pi * k / 3)) if k else 1.0 for k in (0, 0, 1, 2)]
    assert seen == [pytest.approx((0.04 * f, 0.002 * f)) for f in falls]


def test_switcher_and_network_have_limits_of_their_own(trained):
    """Plain SGD moves by rate x gradient, so the limit shows in the length of the step."""
    config = PruneConfig.paper(lr=1.0, search={"switcher_lr": 1.0, "switcher_clip": 0.01}, recovery={"clip": 0.02})
    stage = stage_for(copy.deepcopy(trained), config)
    batch = tuple(t[:16] for t in problem())
    lengths = []
    for step, parameters in ((0, stage.gated.scorer_parameters()), (1, stage.gated.network_parameters())):
        before = [p.detach().clone() for p in parameters]
        stage.step = step
        stage.train_step(batch)
        lengths.append(
            math.sqrt(sum(float((a - b.detach()).square().sum()) for a, b in zip(before, parameters, strict=True)))
        )
    assert lengths == pytest.approx([0.01, 0.02], rel=1e-3)


def test_every_part_of_the_scorer_learns(trained):
    """Also the U-Net behind a head that starts at zero."""
    stage = stage_for(copy.deepcopy(trained), PruneConfig(search=SearchOptions(alternate=1)))
    before = {n: p.detach().clone() for n, p in stage.gated.scorer.named_parameters()}
    batch = tuple(t[:16] for t in problem())
    for step in range(0, 12, 2):
        stage.step = step
        stage.train_step(batch)
    still = [n for n, p in stage.gated.scorer.named_parameters() if torch.equal(p, before[n])]
    assert still == []


def test_dense_accuracy_is_kept_at_step_0(trained):
    _, val = loaders()
    before = snnprune.evaluate(trained, val)
    model = copy.deepcopy(trained)
    with snnprune.attach(model, problem()[0][:4]) as gated:
        after = snnprune.evaluate(gated, val)
    assert abs(before.accuracy - after.accuracy) <= 0.021
    assert before.accuracy > 0.9


def test_free_mode_that_collapses_names_the_layer(trained):
    """Trap 2: a learning rate that kills a layer ends in our error, not in a dead result."""
    train, val = loaders()
    config = PruneConfig.paper(lr=1e5, search={"switcher_lr": 1e5}, epochs=20)
    with pytest.raises((CollapsedLayerError, DivergedError)):
        snnprune.optimize(trained, train, val, config)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_trap_2_paper_preset_survives_its_learning_rate(seed):
    """Fresh weights, SGD 0.1 on both: finite, no dead layer, learns, and switches neurons off."""
    train, val = loaders()
    torch.manual_seed(seed)
    config = PruneConfig.paper(epochs=12, seed=seed)
    result = snnprune.optimize(Net(), train, val, config)
    assert result.report.compact.accuracy > 0.6
    assert all(g["kept"] > 0 for g in result.report.groups)
    assert any(g["kept"] < g["size"] for g in result.report.groups)


def test_patience_stops_the_free_mode(trained):
    train, val = loaders()
    config = PruneConfig.paper(epochs=60, lr=1e-6, search={"patience": 1, "switcher_lr": 1e-6})
    report = snnprune.optimize(trained, train, val, config).report
    assert len([h for h in report.history if h["stage"] == "search"]) < 10


@pytest.mark.parametrize(
    ("losses", "epochs"),
    [
        ([1.0, 0.9, 0.95, 0.92, 0.1], 4),
        ([1.0, 1.1, 0.9, 0.95, 0.94, 0.1], 5),
        ([1.0, 0.99995, 0.9999, 0.1], 3),  # less than 1e-4 is no fall
        ([5.0, 4.0, 3.0, 2.0, 1.0], None),
        ([1.0, 2.0, 0.5, 2.0, 0.4, 2.0], None),  # never twice in a row
    ],
)
@pytest.mark.parametrize("resumed", [False, True])
def test_patience_counts_epochs_without_a_fall_also_across_a_resume(trained, monkeypatch, losses, epochs, resumed):
    config = PruneConfig(target=None, search=SearchOptions(patience=2))
    stage = stage_for(copy.deepcopy(trained), config, total=1000)
    coming = iter(losses)
    monkeypatch.setattr(
        sys.modules[SearchStage.__module__], "evaluate", lambda *_, **__: Evaluation(0.5, next(coming), 1)
    )
    stopped = None
    for epoch in range(len(losses)):
        stage.step, stage.val = 7 * (epoch + 1), []
        stage.after_epoch(epoch)
        if stage.total == stage.step:
            stopped = epoch + 1
            break
        assert stage.total == 1000
        if resumed:
            saved = stage.state()
            stage = stage_for(copy.deepcopy(trained), config, total=1000)
            stage.load(saved)
    assert stopped == epochs


@pytest.mark.parametrize("granularity", ["neuron", "connection"])
def test_what_the_caller_froze_is_never_learned(trained, granularity):
    """Not in the search, whose phases freeze and thaw, nor in the recovery; and it is frozen in the result."""
    model = copy.deepcopy(trained)
    frozen = ("conv.weight", "norm.bias")
    for name in frozen:
        model.get_parameter(name).requires_grad_(False)
    train, val = loaders()
    for options in ({"alternate": 1}, {"hold": 2}):
        config = PruneConfig(
            target={"params": 0.6},
            epochs=2,
            search=SearchOptions(share=0.5, **options),
            keep="conv",
            granularity=granularity,
        )
        found = snnprune.optimize(model, train, val, config).model
        for name, parameter in found.named_parameters():
            assert parameter.requires_grad == (name not in frozen)
        assert all(torch.equal(found.get_parameter(n), model.get_parameter(n)) for n in frozen)
        assert not torch.equal(found.get_parameter("norm.weight"), model.get_parameter("norm.weight"))
