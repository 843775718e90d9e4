"""What labels may be, and that accuracy and loss are those of the plain classes in every form."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import snnprune
from snnprune.errors import DataError
from snnprune.labels import classes_of, read_labels, targets_of

CLASSES = 4
LOGITS = torch.randn(12, CLASSES, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
PLAIN = torch.arange(12) % CLASSES
ONE_HOT = F.one_hot(PLAIN, CLASSES)
FORMS = {
    "int64": PLAIN,
    "int32": PLAIN.int(),
    "int16": PLAIN.short(),
    "uint8": PLAIN.to(torch.uint8),
    "uint16": PLAIN.to(torch.uint16),
    "a column": PLAIN[:, None],
    "a column of int32": PLAIN[:, None].int(),
    "one-hot float32": ONE_HOT.float(),
    "one-hot float64": ONE_HOT.double(),
    "one-hot float16": ONE_HOT.half(),
    "one-hot bfloat16": ONE_HOT.bfloat16(),
    "one-hot int64": ONE_HOT,
    "one-hot uint8": ONE_HOT.to(torch.uint8),
    "one-hot bool": ONE_HOT.bool(),
}


def batches(labels: torch.Tensor, size: int, logits: torch.Tensor = LOGITS) -> list[tuple[torch.Tensor, ...]]:
    return list(zip(logits.split(size), labels.split(size), strict=True))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("size", [1, CLASSES, 6])  # as many inputs as classes would broadcast
def test_every_form_of_classes_gives_the_same_figures(form, size):
    found = snnprune.evaluate(nn.Identity(), batches(FORMS[form], size))
    right = sum(row.argmax() == label for row, label in zip(LOGITS, PLAIN, strict=True))
    assert found.accuracy == int(right) / 12
    picked = LOGITS.log_softmax(1)[torch.arange(12), PLAIN]
    assert found.loss == pytest.approx(-float(picked.mean()), rel=1e-12)
    assert found.count == 12
    assert torch.equal(classes_of(targets_of(LOGITS, FORMS[form])), PLAIN)
    assert read_labels(FORMS[form]).dim() == (2 if FORMS[form].is_floating_point() else 1)


def test_two_classes_as_truth_values():
    logits = torch.tensor([[2.0, 0.0], [0.0, 1.0], [3.0, 0.0]])
    for labels in (torch.tensor([False, True, True]), torch.tensor([[False], [True], [True]])):
        assert snnprune.evaluate(nn.Identity(), [(logits, labels)]).accuracy == 2 / 3


def test_probabilities_are_a_target_and_their_likeliest_class_the_right_one():
    soft = torch.tensor([[0.7, 0.1, 0.1, 0.1], [0.25, 0.25, 0.1, 0.4], [0.0, 0.0, 0.5, 0.5]])
    logits = torch.tensor([[1.0, 0, 0, 0], [0, 0, 0, 2.0], [0, 0, 0, 3.0]])
    found = snnprune.evaluate(nn.Identity(), [(logits, soft)])
    assert found.accuracy == 2 / 3  # of classes that are as likely the first one counts
    expected = -(soft * logits.log_softmax(1)).sum(1).mean()
    assert found.loss == pytest.approx(float(expected), rel=1e-6)


def test_halves_and_rounded_probabilities_are_taken():
    spread = torch.full((2, 1000), 1e-3).bfloat16()
    assert read_labels(spread).dtype == torch.float32
    assert read_labels(torch.tensor([[0.333, 0.333, 0.333]])).shape == (1, 3)


BAD = {
    "several labels": (ONE_HOT + F.one_hot((PLAIN + 1) % CLASSES, CLASSES), "int64", "sums to 2"),
    "several labels as floats": ((ONE_HOT + F.one_hot((PLAIN + 1) % 4, 4)).float(), "float32", "sums to 2"),
    "no label at all": (torch.zeros(12, 4), "float32", "sums to 0"),
    "no label in one row": (ONE_HOT * (torch.arange(12) != 7)[:, None], "int64", "row 7 sums to 0"),
    "below zero": (torch.tensor([[1.5, -0.5, 0, 0]] * 12), "float32", "least is -0.5"),
    "logits": (LOGITS, "float64", "no class probabilities"),
    "half a sum": (ONE_HOT / 2, "float32", "sums to 0.5"),
    "floats": (PLAIN.float(), "float32", r"labels.long\(\)"),
    "a column of floats": (PLAIN[:, None].double(), "float64", "fractions"),
    "a regression": (torch.linspace(0, 1, 12), "float32", "fractions"),
    "another width": (F.one_hot(PLAIN, 5), "int64", "4 outputs"),
    "two columns": (torch.zeros(12, 2, dtype=torch.long), "int64", "4 outputs"),
    "maps": (torch.zeros(12, 5, 5, dtype=torch.long), "int64", "one class for each input"),
    "complex": (PLAIN * 1j, "complex64", "no classes"),
    "passed over": (torch.where(PLAIN == 2, -100, PLAIN), "int64", "the label -100"),
    "unlabelled": (torch.where(PLAIN == 2, -1, PLAIN).int(), "int32", "the label -1"),
}


@pytest.mark.parametrize("what", BAD)
def test_labels_that_are_neither_are_refused_by_shape_and_type(what):
    labels, dtype, says = BAD[what]
    with pytest.raises(DataError, match=says) as caught:
        snnprune.evaluate(nn.Identity(), [(LOGITS, labels)])
    assert f"{tuple(labels.shape)}" in str(caught.value)
    assert dtype in str(caught.value)
    assert "loss_fn" in str(caught.value)


def test_fewer_labels_than_outputs_and_single_outputs_are_refused():
    for labels in (PLAIN[:1], PLAIN[None], torch.tensor(3)):
        with pytest.raises(DataError, match=r"shape \(12, 4\) for labels of shape.*loss_fn"):
            snnprune.evaluate(nn.Identity(), [(LOGITS, labels)])
    for labels in (PLAIN % 2, (PLAIN % 2)[:, None], (PLAIN % 2)[:, None].float()):
        with pytest.raises(DataError, match=r"single output.*loss_fn"):
            snnprune.evaluate(nn.Identity(), [(LOGITS[:, :1], labels)])
    said = r"labels up to 3, but the model has 3 outputs, for classes from 0 to 2 \(the smallest label is 0\)"
    with pytest.raises(DataError, match=said):
        snnprune.evaluate(nn.Identity(), [(LOGITS[:, :3], PLAIN)])
    for low in (-1, -100):
        with pytest.raises(DataError, match=f"hold the label {low}, and go up to 3; classes count from 0"):
            snnprune.evaluate(nn.Identity(), [(LOGITS, torch.cat([torch.tensor([low]), PLAIN[1:]]))])
    with pytest.raises(DataError, match="not finite"):
        snnprune.evaluate(nn.Identity(), [(LOGITS, ONE_HOT * math.nan)])


class Mlp(nn.Module):
    def __init__(self, outputs: int = 3) -> None:
        super().__init__()
        self.hidden, self.head = nn.Linear(6, 20), nn.Linear(20, outputs)

    def forward(self, x):
        return self.head(F.relu(self.hidden(x)))


def learned(labels: torch.Tensor, val: torch.Tensor, **options):
    torch.manual_seed(0)
    model = Mlp()
    x = torch.randn(24, 6)
    data, checks = batches(labels, 3, x), batches(val, 3, x)
    config = snnprune.PruneConfig(target={"params": 0.6}, epochs=2, round_to=1, **options)
    return snnprune.optimize(model, data, checks, config)


@pytest.mark.parametrize("distill", [0.0, 0.5])
def test_a_run_is_the_same_with_classes_one_hot_rows_and_columns(distill):
    plain = torch.arange(24) % 3
    one_hot = F.one_hot(plain, 3)
    wanted = learned(plain, plain, distill=distill)
    for labels, val in ((one_hot, plain), (plain[:, None].int(), one_hot), (one_hot.float(), one_hot.double())):
        found = learned(labels, val, distill=distill)
        assert found.report.dense.accuracy == wanted.report.dense.accuracy
        assert found.report.compact.accuracy == wanted.report.compact.accuracy
        for a, b in zip(found.model.parameters(), wanted.model.parameters(), strict=True):
            assert torch.allclose(a, b, atol=1e-5)
    soft = 0.9 * one_hot + 0.1 / 3
    assert learned(soft, plain, distill=distill).report.compact.loss != wanted.report.compact.loss


def test_unfit_labels_stop_a_run_before_it_learns_and_a_loss_of_its_own_is_the_way_out():
    several = torch.ones(24, 3)
    plain = torch.arange(24) % 3
    for labels, val in ((several, plain), (plain, several)):
        with pytest.raises(DataError, match="sums to 3"):
            learned(labels, val)
    x = torch.randn(24, 6)
    data = batches((plain > 1)[:, None].float(), 6, x)
    config = snnprune.PruneConfig(target={"params": 0.6}, epochs=2, round_to=1)
    with pytest.raises(DataError, match="single output"):
        snnprune.optimize(Mlp(1), data, None, config)

    def loss(model, batch):
        return F.binary_cross_entropy_with_logits(model(batch[0]), batch[1])

    result = snnprune.optimize(Mlp(1), data, None, config, loss_fn=loss)
    assert result.report.compact.params < result.report.dense.params


def test_a_batch_of_one_that_batch_norm_cannot_take_is_named():
    model = nn.Sequential(nn.Linear(6, 20), nn.BatchNorm1d(20), nn.ReLU(), nn.Linear(20, 3))
    data = batches(torch.arange(13) % 3, 4, torch.randn(13, 6))
    with pytest.raises(DataError, match=r"a single input.*drop_last=True"):
        snnprune.optimize(model, data, None, snnprune.PruneConfig(target={"params": 0.6}, epochs=2, round_to=1))
