"""A checkpoint belongs to a model, its data and its options; whatever sets runs apart is told apart and named."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import snnprune
from pipeline.conftest import SHORT, optimize, stop_at, tree
from snnprune import PruneConfig
from snnprune.data import ArrayLoader, DataInfo
from snnprune.learner.identity import check_same_run, differences
from snnprune.learner.recovering import RecoverStage
from snnprune.learner.searching import SearchStage
from snnprune.pipeline.identity import data_identity, run_identity

INFO = DataInfo("a name", (1, 4, 4), ("a", "b", "c"), (0.5,), (0.5,), "arrays")


def network(act: type[nn.Module] = nn.ReLU, weight: float = 0.0) -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 12), act(), nn.Linear(12, 3))
    with torch.no_grad():
        model[1].weight[0, 0] += weight
    return model


def part(labels: torch.Tensor | None = None, image: int = -1, info: DataInfo = INFO, **options) -> ArrayLoader:
    images = torch.arange(12 * 16, dtype=torch.uint8).reshape(12, 1, 4, 4).clone()
    if image >= 0:
        images[image, 0, 3, 3] += 1
    return ArrayLoader(images, torch.arange(12) % 3 if labels is None else labels, info, batch_size=4, **options)


def identity(train=None, val=None, test=None, *, model=None, loss=None, per_epoch=3, **options):
    config = PruneConfig(target={"params": 0.6}, epochs=1, round_to=1, **options)
    data = data_identity(train or part(), val, test, loss)
    found = run_identity(model or network(), config, data, torch.rand(2, 1, 4, 4), per_epoch)
    return json.loads(json.dumps(found, allow_nan=False))  # as it comes out of a file


def test_the_same_again_is_the_same():
    assert not differences(identity(), identity())
    assert not differences(identity(val=part(), test=part()), identity(val=part(), test=part()))


class Functional(nn.Sequential):
    """Another function in layers of the same names and classes."""

    def forward(self, x):
        return torch.tanh(super().forward(x))


def functional() -> nn.Module:
    model = network()
    model.__class__ = Functional
    return model


class Switched(nn.Module):
    """A layer of one's own, with a switch that only the training knows, a counter, and words."""

    def __init__(self, noisy: bool = False, strength: float = 1.0, seen: int = 0) -> None:
        super().__init__()
        self.noisy, self.strength, self.seen, self.name, self._last = noisy, strength, seen, f"{seen}", 0.1 * seen

    def forward(self, x):
        return x + self.strength * torch.randn_like(x) if self.training and self.noisy else x


def switched(**options) -> nn.Module:
    model = network()
    model.insert(3, Switched(**options))
    return model


def with_dropout(p: float) -> nn.Module:
    model = network()
    model.insert(3, nn.Dropout(p))
    return model


def partly_frozen() -> nn.Module:
    model = network()
    model[1].requires_grad_(False)
    return model


CHANGES = {
    "label": ({"train": part(torch.tensor([0, 1, 2] * 3 + [0, 1, 1]))}, "training data: content has changed"),
    "last image": ({"train": part(image=11)}, "training data: content has changed"),
    "soft labels": ({"train": part(torch.eye(3)[torch.arange(12) % 3] * 0.7 + 0.1)}, "training data: content has"),
    "batch size": (
        {"train": dataclasses.replace},
        "training data: batch size was 4, now 6",
    ),
    "augmentation": ({"train": part(augment=True)}, "training data: augment was none, now light"),
    "normalisation": (
        {"train": part(info=dataclasses.replace(INFO, mean=(0.4,)))},
        "training data: description has changed",
    ),
    "validation": ({"val": part(image=7)}, "validation data: content has changed"),
    "test": ({"test": part(image=7)}, "test data: content has changed"),
    "no test": ({"test": None}, "test data has changed"),
    "weight": ({"model": network(weight=1e-3)}, "weights has changed"),
    "activation": ({"model": network(nn.Tanh)}, "layers has changed"),
    "function": ({"model": functional()}, "what the model computes has changed"),
    "frozen": ({"model": partly_frozen()}, "what learns has changed"),
    "option": ({"lr": 0.01}, "lr was"),
    "loss": ({"loss": lambda model, batch: model(batch[0]).sum()}, "loss was cross-entropy, now CHANGES"),
    "steps": ({"per_epoch": 4}, "steps per epoch was 3, now 4"),
}


def weighted(by):
    def loss(model, batch):
        return by * model(batch[0]).sum()

    return loss


def test_a_loss_of_the_same_name_is_another_where_it_computes_something_else():
    before = identity(loss=weighted(1))
    assert not differences(before, identity(loss=weighted(1)))
    assert differences(before, identity(loss=weighted(100))) == ["loss's code has changed"]
    smooth = [identity(loss=nn.CrossEntropyLoss(label_smoothing=by)) for by in (0.0, 0.1)]
    assert differences(*smooth) == ["loss's code has changed"]


@pytest.mark.parametrize("name", CHANGES)
def test_what_has_changed_is_named(name):
    change, said = CHANGES[name]
    if name == "batch size":
        other = part()
        other.batch_size = 6
        change = {"train": other}
    if name == "loss":
        said = "loss was cross-entropy, now "
    before = identity(val=part(), test=part())
    found = differences(before, identity(**{"val": part(), "test": part(), **change}))
    assert any(said in text for text in found), found
    with pytest.raises(snnprune.SnnPruneError) as error:
        check_same_run(Path("state.pt"), before, identity(**{"val": part(), "test": part(), **change}))
    assert said in str(error.value) or len(found) > 4


def test_last_bits_of_the_outputs_do_not_set_runs_apart():
    now = identity()
    before = {**now, "outputs": [value * (1 + 1e-6) for value in now["outputs"]]}
    assert not differences(before, now)
    for other in (None, [1.0], ["x"] * len(now["outputs"]), [v + 1 for v in now["outputs"]], {}):
        assert differences({**now, "outputs": other}, now) == ["what the model computes has changed"]


def test_what_only_shows_in_training_is_another_model():
    assert differences(identity(model=with_dropout(0.1)), identity(model=with_dropout(0.11))) == [
        "settings of layers has changed"
    ]
    before = identity(model=switched())
    for options in ({"noisy": True}, {"strength": 0.5}):
        assert differences(before, identity(model=switched(**options))) == ["settings of layers has changed"]
    assert not differences(before, identity(model=switched(seen=5).train())), "what counts is no setting"


def test_files_of_before_hold_less():
    now = identity(model=with_dropout(0.1))
    before = {name: value for name, value in now.items() if name not in ("settings of layers", "what learns")}
    check_same_run(Path("state.pt"), before, now)
    with pytest.raises(snnprune.SnnPruneError, match="weights has changed"):
        check_same_run(Path("state.pt"), {**before, "weights": "others"}, now)


def stopped(model, said, monkeypatch, *command, stage=RecoverStage, call=3):
    with monkeypatch.context() as patch:
        stop_at(patch, stage, call)
        said(optimize(model, *command, "--output", "out"), 130)
    return tree(Path("out.partial"))


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("stage", [SearchStage, RecoverStage])
def test_another_batch_size_with_as_many_steps(model, said, monkeypatch, stage):
    limit = ["--limit", "90", "--epochs", "16"]
    before = stopped(model, said, monkeypatch, *SHORT, *limit, "--batch-size", "40", stage=stage, call=2)
    message = said(optimize(model, *SHORT, *limit, "--batch-size", "45", "--output", "out", "--resume"))
    assert "training data: batch size was 40, now 45" in message
    assert tree(Path("out.partial")) == before, "nothing is lost"


def arrays(change: str = "") -> None:
    random = np.random.default_rng(0)
    content = {
        "x_train": random.integers(0, 256, (300, 8, 8), np.uint8),
        "y_train": np.arange(300) % 10,
        "x_test": random.integers(0, 256, (50, 8, 8), np.uint8),
        "y_test": np.arange(50) % 10,
    }
    if change:
        content[change][-1] = (content[change][-1] + 1) % 10
    np.savez("set.npz", **content)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("change", "named"),
    [("x_train", "training data"), ("x_test", "test data: content"), ("y_test", "test data: content")],
)
def test_a_changed_file_of_arrays(model, said, monkeypatch, change, named):
    arrays()
    command = ["--data", "set.npz", *SHORT[2:]]
    stopped(model, said, monkeypatch, *command)
    arrays(change)
    message = said(optimize(model, *command, "--output", "out", "--resume"))
    assert named in message
    assert "content has changed" in message
    arrays()
    assert optimize(model, *command, "--output", "out", "--resume") == 0


DATA = """
import torch
from torch.utils.data import DataLoader, TensorDataset

def loaders():
    torch.manual_seed(0)
    x, y = torch.rand(120, 1, 8, 8), torch.arange(120) % 10
    x[110] += SHIFT
    train = DataLoader(TensorDataset(x, y), 30, shuffle=True, generator=torch.Generator().manual_seed(3))
    return train, DataLoader(TensorDataset(x[:30], y[:30]), 30)
"""
NET = """
from torch import nn

def net():
    return nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 10))
"""


@pytest.mark.usefixtures("quick")
def test_changed_code_of_data_and_of_the_network(here, said, monkeypatch):
    Path("data.py").write_text(DATA.replace("SHIFT", "0"))
    Path("net.py").write_text(NET)
    net = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 10))
    torch.save(net.state_dict(), "net.pt")
    command = ["net.pt", "--data", "data.py:loaders", "--arch", "net.py:net", "--device", "cpu", "--epochs", "4"]
    assert optimize(*command, "--output", "whole") == 0
    stopped(command[0], said, monkeypatch, *command[1:], call=5)
    for file, old, new, named in (
        ("data.py", "x[110] += 0", "x[110] += 1", "training data: content has changed"),
        ("net.py", "nn.ReLU", "nn.Tanh", "layers has changed; what the model computes has changed"),
    ):
        before = Path(file).read_text()
        Path(file).write_text(before.replace(old, new))
        assert named in said(optimize(*command, "--output", "out", "--resume"))
        Path(file).write_text(before)
    assert optimize(*command, "--output", "out", "--resume") == 0
    one, two = (snnprune.load(Path(name), model=net) for name in ("whole", "out"))
    assert all(
        torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True)
    )
