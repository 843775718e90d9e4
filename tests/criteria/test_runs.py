"""Criteria in a run: every kind of target, resuming, the options that go with them, functions of one's own."""

from __future__ import annotations

import copy
import signal
from dataclasses import replace

import pytest
import torch
import torch_pruning as tp
from torch import nn

import snnprune
from snnprune.criteria import judge, needs, words_of
from snnprune.errors import ConfigError, CriterionError
from snnprune.learner import PruneConfig, SearchOptions
from snnprune.learner.recovering import RecoverStage


def model_of(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.AvgPool2d(4), nn.Flatten(),
        nn.Linear(64, 24), nn.ReLU(), nn.Linear(24, 3),
    ).eval()  # fmt: skip


@pytest.fixture
def batches():
    generator = torch.Generator().manual_seed(0)
    made = torch.randn(6, 8, 1, 8, 8, generator=generator)
    return [(x, torch.randint(0, 3, (8,), generator=generator)) for x in made]


def by(scores, **changes):
    return PruneConfig(
        **{"target": {"macs": 0.5}, "epochs": 2, "round_to": 1, **changes}, search=SearchOptions(scores=scores)
    )


def first(model, groups):
    """The first neurons of every group are the best."""
    return {g.id: -torch.arange(g.size) for g in groups}


def test_the_order_decides_who_stays_and_what_stays_has_scale_one(batches):
    model = model_of()
    result = snnprune.optimize(model, batches, batches, by(first, input_neurons=False))
    assert result.report.steps == {"probe": 0, "search": 0, "recover": 12}
    for name, scales in result.scales.items():
        kept = int((scales > 0).sum())
        assert scales.tolist() == [1.0] * kept + [0.0] * (len(scales) - kept), name
    assert result.report.exactness["fold"] == 0
    assert 0.4 < result.report.compact.macs / result.report.dense.macs <= 0.5


def test_scores_many_orders_of_magnitude_apart_keep_their_order(batches):
    def steep(model, groups):
        return {g.id: 10.0 ** -(5 * torch.arange(g.size, dtype=torch.float64)) for g in groups}

    one, other = (
        snnprune.optimize(model_of(), batches, batches, by(scores, input_neurons=False))
        for scores in (first, steep)
    )
    assert {n: s.tolist() for n, s in one.scales.items()} == {n: s.tolist() for n, s in other.scales.items()}


def test_norm_is_the_order_with_which_our_search_begins(batches):
    model = model_of()
    with snnprune.attach(model, batches[0][0][:2], switcher="free", round_to=1) as gated:
        gated.set_budget({"macs": 0.5})
        wanted = {name: scales > 0 for name, scales in gated.scales.items()}
    result = snnprune.optimize(model, batches, batches, by("norm", floor=0.1))
    assert all(torch.equal(result.scales[name] > 0, mask) for name, mask in wanted.items())


def test_a_target_of_loss(batches):
    result = snnprune.optimize(model_of(), batches, batches, by("l2", target={"drop": 0.5}, trials=2))
    assert len(result.report.trials) == 2
    assert result.report.steps["search"] == 0


def test_a_target_of_time(batches, layer_times, timed):
    result = snnprune.optimize(model_of(), batches, batches, by("l2", target={"latency": 0.6}))
    assert result.report.trials[0]["share"] <= 1
    assert result.report.compact.macs < result.report.dense.macs
    assert set(torch.cat(list(result.scales.values())).tolist()) == {0.0, 1.0}


@pytest.mark.parametrize("scores", ["random", "taylor", first])
def test_stopped_and_gone_on_with(batches, tmp_path, monkeypatch, scores):
    whole = snnprune.optimize(model_of(), batches, batches, by(scores))
    original, count = RecoverStage.train_step, [0]

    def stopping(self, batch):
        count[0] += 1
        if count[0] == 4:
            signal.raise_signal(signal.SIGINT)
        return original(self, batch)

    with monkeypatch.context() as patch:
        handler = signal.signal(signal.SIGINT, signal.default_int_handler)
        patch.setattr(RecoverStage, "train_step", stopping)
        with pytest.raises(KeyboardInterrupt):
            snnprune.optimize(model_of(), batches, batches, by(scores), checkpoint=tmp_path / "c")
        signal.signal(signal.SIGINT, handler)
    again = snnprune.optimize(model_of(), batches, batches, by(scores), checkpoint=tmp_path / "c", resume=True)
    a, b = whole.model.state_dict(), again.model.state_dict()
    assert all(torch.equal(a[k], b[k]) for k in a)
    with pytest.raises(snnprune.SnnPruneError, match="another model, data set or options"):
        snnprune.optimize(model_of(), batches, batches, by("l1"), checkpoint=tmp_path / "c", resume=True)


def test_gradients_are_there_for_functions_that_ask(batches):
    seen = {}

    def asking(model, groups):
        seen.update({name: p.grad.clone() for name, p in model.named_parameters()})
        return first(model, groups)

    asking.needs = "gradients"
    model = model_of()
    frozen = copy.deepcopy(model)
    frozen[0].weight.requires_grad_(False)
    result = snnprune.optimize(frozen, batches, batches, by(asking))
    assert result.report.steps == {"probe": 3, "search": 0, "recover": 9}
    assert seen["0.weight"].abs().sum() > 0, "also of what the caller has frozen"
    total = torch.zeros_like(model[7].weight)
    for x, y in batches[:3]:
        loss = nn.functional.cross_entropy(model(x), y)
        total += torch.autograd.grad(loss, model[7].weight)[0] / 3
    torch.testing.assert_close(seen["7.weight"], total, rtol=1e-4, atol=1e-7)


class Doubled:
    """A function as an object."""

    def __call__(self, model, groups):
        return {}


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ("lmap", r"scores='lmap' is unknown; use one of switcher.*Did you mean lamp\?"),
        ("magnitude", r"Did you mean l2\?"),
        ("BN", r"Did you mean bn-scale\?"),
        ("qqqqqq", r"bn-scale\.$"),
        (tp.importance.LAMPImportance, r"is the class LAMPImportance. Make an instance of it"),
        (7, "scores is 7. Give a name"),
        (lambda model: {}, "cannot be called with a model and its groups"),
    ],
)
def test_what_is_no_criterion_is_refused_at_once(scores, message):
    with pytest.raises(ConfigError, match=message):
        SearchOptions(scores=scores)


def test_options_that_make_no_sense_with_a_criterion():
    with pytest.raises(ConfigError, match="not how many; give a target"):
        by("lamp", target=None)
    with pytest.raises(ConfigError, match="judges neurons, not connections"):
        by("lamp", target={"params": 0.5}, granularity="connection")
    with pytest.raises(ConfigError, match="judges trained weights"):
        SearchOptions(scores="lamp", start="fresh")
    with pytest.raises(ConfigError, match=r"search\.probe=0 leaves scores=taylor no step"):
        SearchOptions(scores="taylor", probe=0)
    wrong = Doubled()
    wrong.needs = "everything"
    with pytest.raises(ConfigError, match="use weights, gradients or squares"):
        SearchOptions(scores=wrong)


def test_a_run_of_three_steps_has_none_to_look_in(batches):
    with pytest.raises(ConfigError, match="there is no step to look in"):
        snnprune.optimize(model_of(), batches[:3], batches, by("taylor", epochs=1))


@pytest.mark.parametrize(
    ("function", "kind", "message"),
    [
        (lambda model, groups: [1], ConfigError, "returned list; a dict"),
        (lambda model, groups: {"nowhere": torch.ones(2)}, ConfigError, "'nowhere', which is no"),
        (lambda model, groups: {groups[0].id: torch.ones(2)}, ConfigError, r"of shape \(2,\)"),
        (lambda model, groups: {}[3], CriterionError, "failed .KeyError"),
        (
            lambda model, groups: {},
            CriterionError,
            "says nothing of any group of this model: it returned no scores",
        ),
    ],
)
def test_functions_that_return_no_scores(batches, function, kind, message):
    model = model_of()
    with pytest.raises(kind, match=message):
        judge(function, model, snnprune.trace(model, batches[0][0]))


def test_words_and_needs():
    assert words_of("lamp") == "lamp"
    assert words_of(tp.importance.GroupMagnitudeImportance(p=1)).startswith(
        "GroupMagnitudeImportance(bias=False, "
    )
    assert words_of(first).endswith("test_runs.first")
    assert [needs(s) for s in ("l1", "taylor", "hessian", first)] == ["weights", "gradients", "squares", "weights"]
    assert needs(tp.importance.GroupTaylorImportance()) == "gradients"
    assert needs(tp.importance.GroupHessianImportance()) == "squares"
    config = by(first)
    assert config.to_dict()["search"]["scores"] == words_of(first)
    assert len(config.identity()["search"]["code of scores"]) == 64
    assert replace(config, lr=0.1).search.scores is first
