"""Loaders that do not end, parts of no use, and code that ends the process: known before the learning."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch
from conftest import DIGITS
from learner.conftest import Net, loaders, problem
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

import snnprune
from snnprune import PruneConfig
from snnprune import loaders as module
from snnprune.cli.main import run
from snnprune.errors import DataError
from snnprune.loaders import bounded, length_of

CONFIG = PruneConfig(target={"params": 0.5}, epochs=1)


class Endless:
    """Batches for ever; a length only where it is given."""

    def __init__(self, length: int | None = None, size: int = 4) -> None:
        self.length, self.size, self.given = length, size, 0

    def __len__(self) -> int:
        if self.length is None:
            raise TypeError("no length")
        return self.length

    def __iter__(self):
        x, y = problem(self.size)
        for _ in itertools.count():
            self.given += 1
            yield x, y


class Stream(IterableDataset):
    def __iter__(self):
        x, y = problem(8)
        return itertools.cycle(zip(x, y, strict=True))


@pytest.fixture
def net(monkeypatch):
    monkeypatch.setattr(module, "MOST", 60)
    torch.manual_seed(0)
    return Net().eval()


@pytest.fixture
def untrained(monkeypatch):
    """Nothing is learned."""
    monkeypatch.setattr("snnprune.learner.loop._step", lambda *_: pytest.fail("it began to learn"))


@pytest.mark.parametrize("make", [Endless, lambda: DataLoader(Stream(), batch_size=4)])
@pytest.mark.parametrize("which", ["train", "val", "test"])
@pytest.mark.usefixtures("untrained")
def test_endless_loaders_are_noticed_before_the_learning(net, make, which):
    train, val = loaders()
    parts = {"train": train, "val": val, "test": val, which: make()}
    with pytest.raises(DataError, match="does not end") as error:
        snnprune.optimize(net, parts["train"], parts["val"], CONFIG, test=parts["test"])
    assert ("training loader" in str(error.value)) == (which == "train")


@pytest.mark.usefixtures("untrained")
def test_endless_validation_data_beside_a_test_part_are_noticed_too(net):
    train, val = loaders()
    with pytest.raises(DataError, match="does not end"):
        snnprune.optimize(net, train, Endless(), CONFIG, test=val)
    with pytest.raises(DataError, match="does not end"):
        snnprune.evaluate(net, Endless())


def test_a_length_may_be_off_by_what_workers_round_up():
    assert len(list(bounded([1, 2, 3], "it"))) == 3
    longer = Endless(length=10)
    with pytest.raises(DataError, match=r"it gave 1020 batches, though its length is 10"):
        list(bounded(longer, "it"))
    assert len(list(itertools.islice(bounded(longer, "it"), 15))) == 15
    assert length_of(iter([])) is None
    assert length_of(DataLoader(Stream())) is None


def test_an_endless_training_loader_with_a_length_is_used_up_to_it(net):
    train = Endless(length=5)
    result = snnprune.optimize(net, train, None, PruneConfig(target={"params": 0.6}, epochs=2))
    assert sum(result.report.steps.values()) <= 10


def parts_of_no_use():
    x, y = problem(12)
    return {
        "labels out of range, in the last batch": (
            DataLoader(TensorDataset(x, torch.tensor([0] * 11 + [3])), 4),
            "3",
        ),
        "other images": (DataLoader(TensorDataset(x[..., :6], y), 4), r"does not run on the .* data, of shape"),
        "no labels": (DataLoader(TensorDataset(x), 4), "no labels"),
        "empty": ([], "no batch"),
        "labels of several": (DataLoader(TensorDataset(x, torch.ones(12, 3)), 4), "probabilities"),
    }


@pytest.mark.parametrize("which", ["val", "test"])
@pytest.mark.parametrize("name", parts_of_no_use())
@pytest.mark.usefixtures("untrained")
def test_a_part_that_cannot_be_used_is_found_before_the_learning(net, which, name):
    part, said = parts_of_no_use()[name]
    train, val = loaders()
    parts = {"val": val, "test": None, which: part}
    with pytest.raises(snnprune.SnnPruneError, match=said):
        snnprune.optimize(net, train, parts["val"], CONFIG, test=parts["test"])


class Pair(Net):
    def forward(self, x):
        out = super().forward(x)
        return {"boxes": out, "scores": out}


@pytest.mark.usefixtures("untrained")
def test_outputs_that_cannot_be_used_are_found_before_the_learning():
    train, val = loaders()
    with pytest.raises(snnprune.SnnPruneError, match="loss_fn"):
        snnprune.optimize(Pair().eval(), train, val, CONFIG)


def test_a_batch_of_one_before_batch_norm_is_named():
    class Wide(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.norm, self.b = nn.Linear(64, 16), nn.BatchNorm1d(16), nn.Linear(16, 3)

        def forward(self, x):
            return self.b(torch.relu(self.norm(self.a(x.flatten(1)))))

    torch.manual_seed(0)
    x, y = problem(33)
    with pytest.raises(DataError, match=r"single input.*drop_last"):
        snnprune.optimize(Wide().eval(), DataLoader(TensorDataset(x, y), 16), None, PruneConfig(epochs=4))


DATA = """
import sys
import torch

class Stops:
    def __len__(self):
        return 4

    def __iter__(self):
        for at in range(4):
            if at == 2 and WHEN == "later":
                sys.exit(CODE)
            yield torch.rand(8, 1, 8, 8), torch.arange(8)

def loaders():
    if WHEN == "at once":
        sys.exit(CODE)
    return Stops(), Stops()

if WHEN == "import":
    sys.exit(CODE)
"""
NET = """
import sys
from digits_cnn import digits_cnn

def net():
    if WHEN == "at once":
        sys.exit(CODE)
    model = digits_cnn()
    if WHEN == "later":
        model.forward = lambda x: sys.exit(CODE)
    return model

if WHEN == "import":
    sys.exit(CODE)
"""


@pytest.mark.parametrize("code", ["0", "3", "None", "'farewell'"])
@pytest.mark.parametrize("when", ["import", "at once", "later"])
@pytest.mark.parametrize("which", ["data", "net"])
def test_code_that_ends_the_process_is_a_failure(here, capsys, which, when, code):
    import digits_cnn

    torch.save(digits_cnn.digits_cnn().state_dict(), "m.pt")
    for name, source in (("data", DATA), ("net", NET)):
        own = when if name == which else "never"
        Path(f"{name}.py").write_text(source.replace("WHEN", repr(own)).replace("CODE", code))
    data = "data.py:loaders" if which == "data" else "digits"
    arch = "net.py:net" if which == "net" else DIGITS
    for command in (["optimize", "--epochs", "0.5", "--output", "out"], ["evaluate"]):
        args = [command[0], "m.pt", *command[1:], "--data", data, "--arch", arch, "--device", "cpu"]
        assert run(args) == 1
        captured = capsys.readouterr()
        lines = [line for line in captured.err.splitlines() if line.strip()]
        assert len(lines) == 1, lines
        assert lines[0].startswith("error:")
        assert not Path("out").exists()


def test_a_command_that_ends_well_still_does(here, capsys):
    assert run(["--version"]) == 0
    assert run(["optimize", "--help"]) == 0
