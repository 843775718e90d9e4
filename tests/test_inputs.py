"""How many examples the inputs of a forward hold, where not every tensor has an entry for each of them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from conftest import randomized
from torch import nn

import snnprune
from snnprune.errors import ConfigError, ExportError
from snnprune.feeds import OnnxModel, rows_in
from snnprune.inputs import batch_size, map_tensors, rows, tensors_in
from snnprune.metrics import count_macs
from snnprune.proof import relative_difference
from snnprune.runtime import open_session

IMAGES = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
ONE, SCALAR, CLASSES = torch.full((1,), 2.0), torch.tensor(2.0), torch.arange(1.0, 6.0)


class Pair(NamedTuple):
    scale: torch.Tensor
    images: torch.Tensor


class Scaled(nn.Module):
    """Answers divided by a temperature that stands before the images, and weighted by class."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 6, 3, padding=1)
        self.norm, self.out = nn.BatchNorm2d(8), nn.Linear(6, 5)

    def forward(self, scale, images, weights=None):
        hidden = self.second(self.norm(self.first(images)).relu()).relu().mean((2, 3))
        answer = self.out(hidden) / scale
        return answer if weights is None else answer * weights


class Listed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = Scaled()

    def forward(self, images):
        return self.net(ONE, torch.stack(images))


class Branches(nn.Module):
    """Takes a list of tensors, each of which runs over the examples."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.out = nn.Linear(6, 8), nn.Linear(7, 8), nn.Linear(16, 4)

    def forward(self, parts):
        return self.out(torch.cat([self.one(parts[0]).relu(), self.two(parts[1]).relu()], 1))


class Sequences(Branches):
    """Takes a list of (batch, length, channels)."""

    def forward(self, parts):
        means = self.one(parts[0]).relu().mean(1), self.two(parts[1]).relu().mean(1)
        return self.out(torch.cat(means, 1))


FORMS = {
    "scalar": (SCALAR, IMAGES),
    "vector": (ONE, IMAGES),
    "keywords": {"scale": ONE, "images": IMAGES},
    "classes after": (ONE, IMAGES, CLASSES),
    "classes before": {"weights": CLASSES, "scale": SCALAR, "images": IMAGES},
}


@pytest.mark.parametrize(
    ("inputs", "count"),
    [
        *((form, 4) for form in FORMS.values()),
        (IMAGES, 4),
        (torch.arange(3), 3),
        ((torch.arange(3), ONE), 3),
        ((list(IMAGES[:2]), [{"boxes": torch.ones(5, 4)}] * 2), 2),
        (([torch.ones(5, 4), torch.ones(2, 4), torch.ones(3, 4)],), 3),
        (([torch.ones(2, 6), torch.ones(2, 7)],), 2),
        (([torch.ones(8, 5, 16)] * 2,), 8),  # sequences, each of all examples
        (([torch.ones(2, 9, 16), torch.ones(2, 5, 16), torch.ones(2, 3, 16)],), 2),
        (([torch.ones(1, 9, 9), torch.ones(3, 9, 9)],), 2),
        (([torch.ones(4, 9, 9)] * 3,), 3),
        (([torch.ones(2, 8, 4, 4), torch.ones(2, 8, 2, 2), torch.ones(2, 8, 1, 1)],), 2),
        ((Pair(ONE, IMAGES),), 4),
        (([], IMAGES), 4),
        (([8, 16, 32], IMAGES), 4),
    ],
)  # fmt: skip
def test_the_first_that_speaks_for_the_batch_does(inputs, count):
    assert batch_size(inputs) == count


@pytest.mark.parametrize("inputs", [(), (SCALAR,), {"a": SCALAR}, ([],)])
def test_nothing_speaks(inputs):
    with pytest.raises(ConfigError, match="no tensor with a batch dimension"):
        batch_size(inputs)


@pytest.mark.parametrize("count", [1, 3, 6])
def test_rows_are_examples_again_from_the_beginning(count):
    places = [at % 4 for at in range(count)]
    scale, images, weights = rows((ONE, IMAGES, CLASSES), count)
    assert images.equal(IMAGES[places])
    assert scale is ONE
    assert weights is CLASSES
    found = rows((list(IMAGES),), count)[0]  # four images of three channels: the channels stay
    assert len(found) == count
    assert all(one.equal(IMAGES[at]) for one, at in zip(found, places, strict=True))
    found = rows(([*IMAGES[:3]],), 2)[0]  # as many images as channels
    assert [one.shape for one in found] == [(3, 8, 8)] * 2
    parts = rows({"parts": [IMAGES.flatten(1), IMAGES.flatten(1) + 1], "name": "a"}, count)
    assert parts["name"] == "a"
    assert parts["parts"][1].equal(parts["parts"][0] + 1)
    tokens = [torch.ones(4, 9, 2), torch.ones(4, 5, 2), torch.ones(1, 3, 2)]
    found = rows((IMAGES, tokens, [8, 16, 32, 64], [{"boxes": torch.ones(at, 4)} for at in range(4)]), count)
    assert [len(one) for one in found[1]] == [count, count, 1]
    assert found[2] == [8, 16, 32, 64]
    assert [len(one["boxes"]) for one in found[3]] == places
    found = rows((IMAGES, [*tokens[:2], *tokens[:2]]), count)[1]  # as many levels as examples
    assert [one.shape for one in found] == [(count, n, 2) for n in (9, 5, 9, 5)]
    pair = rows((Pair(SCALAR, IMAGES),), count)[0]
    assert isinstance(pair, Pair)
    assert len(pair.images) == count


@pytest.mark.parametrize("form", FORMS)
def test_macs_are_those_of_one_input(form):
    per_input = 64 * 9 * (3 * 8 + 8 * 6) + 6 * 5
    assert count_macs(Scaled().eval(), FORMS[form]) == per_input
    assert count_macs(Scaled().eval(), rows(FORMS[form], 2)) == per_input
    assert count_macs(Listed().eval(), ([*IMAGES[:3]],)) == per_input
    assert count_macs(Branches().eval(), ([torch.ones(3, 6), torch.ones(3, 7)],)) == 6 * 8 + 7 * 8 + 16 * 4
    for batch in (2, 8):
        tokens = [torch.ones(batch, 5, 6), torch.ones(batch, 5, 7)]
        assert count_macs(Sequences().eval(), (tokens,)) == 5 * (6 * 8 + 7 * 8) + 16 * 4


@pytest.mark.parametrize("form", FORMS)
def test_a_cut_network_is_exported_with_a_free_batch(form, tmp_path):
    torch.manual_seed(0)
    model = Scaled().eval()
    gated = snnprune.attach(model, FORMS[form])
    gated.set_budget({"macs": 0.5})
    small = gated.compact()
    assert count_macs(small, FORMS[form]) <= 0.5 * count_macs(Scaled().eval(), FORMS[form])
    check = snnprune.export_onnx(small, tmp_path / "small.onnx", FORMS[form])
    assert check.batch_sizes == (1, 2, 3, 4)
    file = OnnxModel("small", open_session(tmp_path / "small.onnx"))
    assert file.batch is None
    feed, labels = file.split((FORMS[form], torch.zeros(4)))
    assert labels is not None
    assert rows_in(feed) == 4
    given = FORMS[form]
    with torch.no_grad():
        expected = small(**given) if isinstance(given, dict) else small(*given)
    np.testing.assert_allclose(file(feed), expected.numpy(), rtol=1e-4, atol=1e-6)


def answer(model, given):
    with torch.no_grad():
        return model(**given) if isinstance(given, dict) else model(*given)


def chained(make: type[nn.Module], given: Any, folder: Path, seed: int, *, batch: int | None = None) -> None:
    """The same answers, to rounding in float64, gated, folded, cut and loaded; in float32 from the ONNX file."""
    given = map_tensors(lambda x: x.double(), given)
    gated = snnprune.attach(randomized(make, seed), given)
    gated.set_budget({"macs": 0.5})
    assert gated.scorer is not None
    with torch.no_grad():
        for parameter in gated.scorer.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(seed)))
    scales = gated.scales
    assert any(0 < (value == 0).sum() < len(value) for value in scales.values())
    expected = answer(gated, given)
    small = gated.compact()
    snnprune.save(small, folder)
    loaded = snnprune.load(folder, model=make().double())
    for model in (gated.fold(), small, loaded):
        assert relative_difference(expected, answer(model, given)) <= 1e-10
    single = map_tensors(lambda x: x.float(), given)
    snnprune.export_onnx(loaded.float(), folder / "small.onnx", single, batch=batch)
    session = open_session(folder / "small.onnx")
    names = list(single) if isinstance(single, dict) else [entry.name for entry in session.get_inputs()]
    feed = {name: x.numpy() for name, x in zip(names, tensors_in(single), strict=True)}
    np.testing.assert_allclose(session.run(None, feed)[0], expected.numpy(), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("form", FORMS)
def test_no_form_of_inputs_changes_what_is_exact(form, seed, tmp_path):
    chained(Scaled, FORMS[form], tmp_path, seed)


class Attends(nn.Module):
    """Minus infinity among the inputs hides what comes later; a batch norm reads the channels."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.second = nn.Linear(12, 24), nn.BatchNorm1d(24), nn.Linear(24, 20)
        self.last = nn.Linear(20, 3)

    def forward(self, x, mask):
        y = torch.relu(self.norm(self.first(x).transpose(1, 2))).transpose(1, 2)
        y = torch.relu(self.second((x @ x.transpose(1, 2) + mask).softmax(-1) @ y))
        return self.last(y[:, -2])


class Patient(nn.Module):
    """NaN stands for a missing value."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.second = nn.Linear(12, 24), nn.BatchNorm1d(24), nn.Linear(24, 20)
        self.last = nn.Linear(20, 3)

    def forward(self, x):
        x = torch.where(x.isnan(), torch.zeros_like(x), x)
        return self.last(torch.relu(self.second(torch.relu(self.norm(self.first(x))))))


class TimeFirst(nn.Module):
    """Takes (time, inputs, channels)."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.layer = nn.Linear(12, 24), nn.BatchNorm1d(24), nn.GRU(24, 8)
        self.hidden, self.last = nn.Linear(8, 20), nn.Linear(20, 3)

    def forward(self, x):
        y = self.norm(self.first(x).flatten(0, 1)).unflatten(0, x.shape[:2])
        return self.last(torch.relu(self.hidden(self.layer(torch.relu(y))[0][-1])))


TOKENS = torch.randn(4, 5, 12, generator=torch.Generator().manual_seed(2))
MASK = torch.full((5, 5), -math.inf).triu(1)
MISSING = torch.where(torch.arange(48).view(4, 12) % 7 == 0, math.nan, torch.arange(48).view(4, 12) / 48)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("make", "given"), [(Attends, (torch.arange(240).view(4, 5, 12) / 240, MASK)), (Patient, (MISSING,))]
)
def test_inputs_that_are_not_finite_are_cut_exactly(make, given, seed, tmp_path):
    chained(make, given, tmp_path, seed)


@pytest.mark.parametrize("seed", range(3))
def test_what_comes_time_first_is_cut_exactly(seed, tmp_path):
    chained(TimeFirst, (torch.randn(7, 4, 12),), tmp_path, seed, batch=7)  # its first dimension is the time


@pytest.mark.parametrize("seed", range(3))
def test_lists_are_cut_exactly(seed, tmp_path):
    chained(Listed, ([*IMAGES[:3]],), tmp_path / "images", seed, batch=3)
    parts = torch.randn(2, 5, 7, generator=torch.Generator().manual_seed(seed))
    chained(Branches, ([parts[0, :, :6], parts[1]],), tmp_path / "parts", seed)
    tokens = torch.randn(2, 5, 9, 7, generator=torch.Generator().manual_seed(seed))
    chained(Sequences, ([tokens[0, :, :, :6], tokens[1]],), tmp_path / "tokens", seed)


def test_a_file_of_a_fixed_batch_takes_what_is_no_row_whole(tmp_path):
    torch.manual_seed(0)
    model = Scaled().eval()
    snnprune.export_onnx(model, tmp_path / "fixed.onnx", (CLASSES[1:2], IMAGES), batch=3)
    file = OnnxModel("fixed", open_session(tmp_path / "fixed.onnx"))
    assert file.batch == 3
    feed, _ = file.split((CLASSES[1:2], IMAGES))
    with torch.no_grad():
        expected = model(CLASSES[1:2], IMAGES)
    np.testing.assert_allclose(file(feed), expected.numpy(), rtol=1e-4, atol=1e-6)


def test_of_a_list_a_file_takes_so_many_as_it_is_made_for(tmp_path):
    torch.manual_seed(0)
    model = Listed().eval()
    with pytest.raises(ExportError, match=r"a list with an entry for each example.*--fixed-batch"):
        snnprune.export_onnx(model, tmp_path / "list.onnx", (list(IMAGES),))
    assert not list(tmp_path.iterdir())
    check = snnprune.export_onnx(model, tmp_path / "list.onnx", ([*IMAGES[:3]],), batch=2)
    assert check.batch_sizes == (2,)
    session = open_session(tmp_path / "list.onnx")
    assert [entry.shape for entry in session.get_inputs()] == [[3, 8, 8]] * 2
