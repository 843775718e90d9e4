"""Alternating learning: who moves when, guards, resume, and the whole way through optimize()."""

from __future__ import annotations

import copy
import signal

import pytest
import torch
from conftest import make_network
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import snnprune
from snnprune.encoding import Scorer
from snnprune.errors import CollapsedLayerError, ConfigError, DataError, DivergedError, ModelFileError, TargetError
from snnprune.gates.gated import attach_groups
from snnprune.learner import Checkpoint, Interrupted, PruneConfig, TaskLoss
from snnprune.learner.optim import cosine
from snnprune.learner.search import SearchStage
from snnprune.tracing import trace


class Net(nn.Module):
    """Batch norm and dropout: everything that draws or keeps state."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 12, 3, padding=1)
        self.norm = nn.BatchNorm2d(12)
        self.hidden = nn.Linear(12 * 16, 24)
        self.drop = nn.Dropout(0.3)
        self.head = nn.Linear(24, 3)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.norm(self.conv(x))), 2)
        return self.head(self.drop(F.relu(self.hidden(x.flatten(1)))))


def problem(count: int = 96, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 3, (count,), generator=generator)
    images = torch.randn(count, 1, 8, 8, generator=generator) * 0.5
    images[torch.arange(count), 0, labels * 2 + 1] += 1.5
    return images, labels


class Noisy(TensorDataset):
    """Augmentation that draws from PyTorch's global random state."""

    def __getitem__(self, index):
        x, y = super().__getitem__(index)
        return x + 0.1 * torch.randn_like(x), y


def loaders(batch: int = 16):
    train = DataLoader(Noisy(*problem()), batch_size=batch, shuffle=True)
    val = DataLoader(TensorDataset(*problem(48, 1)), batch_size=48)
    return train, val


@pytest.fixture(scope="module")
def trained() -> Net:
    torch.manual_seed(0)
    model = Net()
    train, _ = loaders()
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
    for _ in range(8):
        for x, y in train:
            loss = F.cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return model.eval()


def stage_for(model: nn.Module, config: PruneConfig, total: int = 12, per_epoch: int = 6) -> SearchStage:
    x = problem()[0][:4]
    groups = trace(model, x)
    gated = attach_groups(model, groups, x, scorer=Scorer(model, groups, scores=config.scores, start=config.start))
    loss = TaskLoss(copy.deepcopy(model), distill=config.distill, temperature=2.0)
    return SearchStage(gated, loss, config, total=total, per_epoch=per_epoch, val=None, extra={})


def snapshot(module: nn.Module) -> list[torch.Tensor]:
    return [p.detach().clone() for p in module.parameters()]


def moved(before: list[torch.Tensor], module: nn.Module) -> bool:
    return any(not torch.equal(a, b) for a, b in zip(before, module.parameters(), strict=True))


@pytest.mark.parametrize(("alternate", "pattern"), [(1, "SNSNSN"), (2, "SSNNSS"), ("epoch", "SSSNNN")])
@pytest.mark.parametrize("gradient", ["through", "held"])
def test_switcher_and_network_move_in_turn(trained, alternate, pattern, gradient):
    config = PruneConfig(alternate=alternate, gradient=gradient, target={"params": 0.5})
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


def test_every_part_of_the_scorer_learns(trained):
    """Also the U-Net behind a head that starts at zero."""
    stage = stage_for(copy.deepcopy(trained), PruneConfig(alternate=1))
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
        after = snnprune.evaluate(gated.model, val)
    assert abs(before.accuracy - after.accuracy) <= 0.021
    assert before.accuracy > 0.9


@pytest.mark.parametrize("scores", ["switcher", "switcher+offset", "free"])
@pytest.mark.parametrize("metric", ["macs", "params"])
def test_optimize_meets_the_budget_and_keeps_accuracy(trained, scores, metric):
    train, val = loaders()
    state = copy.deepcopy(trained.state_dict())
    config = PruneConfig(target={metric: 0.4}, epochs=10, scores=scores)
    result = snnprune.optimize(trained, train, val, config, test=val)
    report = result.report
    kept = getattr(report.compact, metric) / getattr(report.dense, metric)
    assert kept <= 0.4
    assert kept > 0.36  # the smallest neuron is a few per cent of this toy
    assert report.compact.accuracy >= report.dense.accuracy - 0.05
    assert report.exactness["fold"] <= 1e-10
    assert report.exactness["remove"] <= 1e-10
    assert [g["id"] for g in report.groups] == ["conv", "hidden:in", "hidden"]
    assert all(torch.equal(state[k], v) for k, v in trained.state_dict().items()), "the caller's model is copied"
    assert isinstance(result.model, Net)
    assert not result.model.training


def test_seeds_reproduce_and_differ(trained):
    train, val = loaders()

    def run(seed):
        config = PruneConfig(target={"params": 0.5}, epochs=2, seed=seed)
        return snnprune.optimize(trained, train, val, config).model.state_dict()

    torch.manual_seed(1)
    one = run(0)
    torch.manual_seed(2)
    again, other = run(0), run(1)
    assert all(torch.equal(one[k], again[k]) for k in one)
    assert any(one[k].shape != other[k].shape or not torch.equal(one[k], other[k]) for k in one)


def test_the_callers_random_state_is_left_alone(trained):
    train, val = loaders()
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    snnprune.optimize(trained, train, val, PruneConfig(target={"params": 0.5}, epochs=1))
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("stop_at", [3, 7, 9, 14, 25])
def test_interrupted_and_resumed_is_uninterrupted(trained, tmp_path, stop_at):
    """Bit-equal, with shuffling, augmentation and dropout, in the search and in the recovery."""
    train, val = loaders()
    config = PruneConfig(target={"params": 0.4}, epochs=6, search=0.4, seed=3)
    whole = snnprune.optimize(trained, train, val, config)
    steps = 0

    def interrupt(event):
        nonlocal steps

    class Stopping(DataLoader):
        def __iter__(self):
            nonlocal steps
            for batch in super().__iter__():
                steps += 1
                if steps == stop_at:
                    raise KeyboardInterrupt
                yield batch

    stopping = Stopping(train.dataset, batch_size=16, sampler=train.sampler)
    steps = -(10**9)  # the first look at the inputs does not count
    job_began = False

    def begin(event):
        nonlocal steps, job_began
        if event.stage == "trace" and not job_began:
            steps, job_began = 0, True

    with pytest.raises(Interrupted):
        snnprune.optimize(trained, stopping, val, config, checkpoint=tmp_path, callbacks=[begin])
    assert (tmp_path / "state.pt").exists()
    resumed = snnprune.optimize(trained, train, val, config, checkpoint=tmp_path, resume=True)
    a, b = whole.model.state_dict(), resumed.model.state_dict()
    assert a.keys() == b.keys()
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert whole.report.groups == resumed.report.groups


@pytest.mark.parametrize("stop_at", [6, 8, 14, 18])
def test_ctrl_c_inside_a_step_waits_for_its_end(trained, tmp_path, stop_at):
    """A real signal, also in the last step of an epoch and of the search; dropout draws on afterwards."""
    train, val = loaders()
    config = PruneConfig(target={"params": 0.4}, epochs=6, search=0.4, seed=3, distill=0.0)
    whole = snnprune.optimize(trained, train, val, config)
    calls = 0

    class Pressing(Net):
        def forward(self, x):
            nonlocal calls
            calls += self.training
            if calls == stop_at and self.training:
                signal.raise_signal(signal.SIGINT)
            return super().forward(x)

    pressing = copy.deepcopy(trained)
    pressing.__class__ = Pressing
    with pytest.raises(Interrupted):
        snnprune.optimize(pressing, train, val, config, checkpoint=tmp_path)
    assert Checkpoint(tmp_path, "").path.exists()
    calls = 10**6
    resumed = snnprune.optimize(pressing, train, val, config, checkpoint=tmp_path, resume=True)
    a, b = whole.model.state_dict(), resumed.model.state_dict()
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert whole.report.history == resumed.report.history


def test_nan_in_the_loss_ends_the_run(trained):
    train, val = loaders()
    bad = [(x.clone().fill_(float("nan")) if i == 3 else x, y) for i, (x, y) in enumerate(train)]
    with pytest.raises(DivergedError, match="loss became nan"):
        snnprune.optimize(trained, bad, val, PruneConfig(target={"params": 0.5}, epochs=2))


def test_nan_in_the_weights_is_refused(trained):
    model = copy.deepcopy(trained)
    with torch.no_grad():
        model.conv.weight[0, 0, 0, 0] = float("nan")
    with pytest.raises(ModelFileError, match=r"conv\.weight"):
        snnprune.optimize(model, loaders()[0])


def test_a_target_below_the_floors_fails_before_training(trained):
    seen = []
    with pytest.raises(TargetError, match="floor"):
        snnprune.optimize(
            trained, loaders()[0], None, PruneConfig(target={"params": 0.001}), callbacks=[seen.append]
        )
    assert {e.stage for e in seen} <= {"trace"}


def test_labels_out_of_range_are_refused(trained):
    x, y = problem()
    with pytest.raises(DataError, match="labels up to 12"):
        snnprune.optimize(trained, [(x[:8], y[:8] + 10 * (y[:8] == 2))] * 2, None, PruneConfig(epochs=1))


def test_free_mode_that_collapses_names_the_layer(trained):
    """Trap 2: a learning rate that kills a layer ends in our error, not in a dead result."""
    train, val = loaders()
    config = PruneConfig.paper(lr=1e5, switcher_lr=1e5, epochs=20)
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
    config = PruneConfig.paper(epochs=60, patience=1, lr=1e-6, switcher_lr=1e-6)
    report = snnprune.optimize(trained, train, val, config).report
    assert len([h for h in report.history if h["stage"] == "search"]) < 10


def test_distillation_alone_needs_no_labels(trained):
    x, _ = problem()
    data = [x[i : i + 16] for i in range(0, 96, 16)]
    result = snnprune.optimize(trained, data, data, PruneConfig(target={"params": 0.6}, epochs=6), loss_fn=None)
    assert result.report.compact.params < 0.6 * result.report.dense.params + 1
    agree = (result.model(x).argmax(1) == trained(x).argmax(1)).float().mean()
    assert float(agree) > 0.9


def test_a_loss_of_the_users_own(trained):
    train, val = loaders()
    calls = []

    def loss_fn(model, batch):
        calls.append(len(batch))
        return F.cross_entropy(model(batch[0]), batch[1], label_smoothing=0.1)

    result = snnprune.optimize(trained, train, val, PruneConfig(target={"params": 0.5}, epochs=2), loss_fn=loss_fn)
    assert len(calls) == 12
    assert result.report.compact.accuracy is None


def test_teacher_pulls_towards_the_original(trained):
    x, y = problem()
    student = copy.deepcopy(trained)
    loss = TaskLoss(trained, distill=1.0, temperature=2.0)
    assert float(loss(student, (x, y)).detach()) == pytest.approx(0.0, abs=1e-6)
    with torch.no_grad():
        student.head.weight.mul_(0.5)
    assert float(loss(student, (x, y)).detach()) > 1e-3


def test_cosine_rises_and_falls():
    curve = [cosine(s, 100, 0.05) for s in range(100)]
    assert curve[0] == pytest.approx(0.2)
    assert max(curve) == 1.0
    assert curve[5:] == sorted(curve[5:], reverse=True)
    assert curve[-1] < 1e-3


def test_frozen_batch_norm_keeps_its_statistics(trained):
    train, val = loaders()
    config = PruneConfig(target={"params": 0.5}, epochs=2, freeze_norm=True)
    result = snnprune.optimize(trained, train, val, config)
    ours = result.model.norm.running_mean
    theirs = trained.norm.running_mean
    assert all(bool((theirs == v).any()) for v in ours)


@pytest.mark.parametrize(
    "options",
    [
        {"epochs": 0},
        {"epochs": float("nan")},
        {"lr": -1.0},
        {"search": 0.0},
        {"search": 1.5},
        {"alternate": 0},
        {"alternate": "batch"},
        {"scores": "magic"},
        {"gradient": "none"},
        {"floor": -0.1},
        {"round_to": 0},
        {"target": {"macs": 2}},
        {"optimizer": "lion"},
    ],
)
def test_bad_options_name_themselves(options):
    with pytest.raises(ConfigError, match=next(iter(options)).split("_")[0]):
        PruneConfig(**options)


def test_checkpoint_of_another_run_is_refused(tmp_path):
    Checkpoint(tmp_path, "a").save("search", {"step": 1}, {})
    assert Checkpoint(tmp_path, "a").load()["state"] == {"step": 1}
    with pytest.raises(snnprune.SnnPruneError, match="another"):
        Checkpoint(tmp_path, "b").load()


def test_a_damaged_checkpoint_never_pushes_out_a_good_one(tmp_path):
    first = Checkpoint(tmp_path, "a")
    first.save("search", {"step": 1}, {})
    first.save("search", {"step": 2}, {})
    first.path.write_bytes(b"cut off")
    second = Checkpoint(tmp_path, "a")
    assert second.load()["state"] == {"step": 1}
    second.save("search", {"step": 3}, {})
    second.path.write_bytes(b"again")
    assert Checkpoint(tmp_path, "a").load()["state"] == {"step": 1}


def test_gated_proof_notices_a_wrong_compaction(monkeypatch):
    """The run's own check can fail: break the folding and see."""
    from snnprune.errors import ExactnessError
    from snnprune.pipeline import proof

    _, model, x = make_network("digits_cnn")
    with snnprune.attach(model, x) as gated:
        gated.set_budget({"params": 0.5})
        assert proof.prove_compaction(gated, x)["remove"] <= 1e-10
        monkeypatch.setattr(proof, "fold_", lambda m, groups, scales: m)
        with pytest.raises(ExactnessError, match="fold"):
            proof.prove_compaction(gated, x)
