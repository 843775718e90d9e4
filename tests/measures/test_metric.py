"""What may be handed over as a metric, what it is given, and what it may return."""

from __future__ import annotations

import functools
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

import snnprune
from snnprune.errors import ConfigError, DataError, MetricError
from snnprune.measures import ACCURACY, LOSS, MetricInfo
from snnprune.measures.passes import count_inputs, whole
from snnprune.ranks import Ranks

X = torch.randn(10, 4, generator=torch.Generator().manual_seed(0))
Y = torch.arange(10) % 3
DATA = [(X[:6], Y[:6]), (X[6:], Y[6:])]


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Dropout(0.5))


def mean_output(model, loader):
    assert not torch.is_grad_enabled()
    assert not any(part.training for part in model.modules())
    return torch.cat([model(x) for x, _ in loader]).mean()


def expected(model: nn.Module) -> float:
    with torch.no_grad():
        found = float(model.eval()(X).mean())
    model.train()
    return found


class Summed:
    """An object in the form of torchmetrics: the share of right answers, by hand."""

    higher_is_better = True

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.right = self.seen = 0

    def reset(self) -> None:
        self.calls.append("reset")
        self.right = self.seen = 0

    def update(self, outputs, targets) -> None:
        self.calls.append("update")
        self.right += int((outputs.argmax(1) == targets).sum())
        self.seen += len(targets)

    def compute(self):
        self.calls.append("compute")
        return torch.tensor(self.right / self.seen)


def test_a_function_is_given_the_model_and_the_data_as_they_are():
    model = net().train()
    seen = []

    def metric(given, loader):
        seen.append((given, loader))
        torch.rand(1)
        return mean_output(given, loader)

    torch.manual_seed(5)
    found = snnprune.evaluate(model, DATA, metric=metric)
    drawn = torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(drawn, torch.rand(1)), "the program's random numbers are left alone"
    assert seen[0][0] is model
    assert seen[0][1] is DATA
    assert found.value == pytest.approx(expected(model), rel=1e-6)
    assert (found.count, found.loss, found.accuracy) == (10, None, None)
    assert found.metric == MetricInfo("metric", higher_is_better=True, percent=False)
    assert all(part.training for part in model.modules())
    told = {"metric": "metric", "value": found.value, "higher_is_better": True, "loss": None, "count": 10}
    assert found.to_dict() == told


def test_a_gated_model_is_measured_with_its_gates():
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).eval()

    def output(given, loader):
        assert isinstance(given, nn.Module)
        return sum(float(given(x).sum()) for x, _ in loader)

    with snnprune.attach(model, X[:2], switcher=None) as gated:
        gated.set_scales({"0": torch.tensor([0.0, 0.5] * 4)})
        found = snnprune.evaluate(gated, DATA, metric=output)
        small = gated.compact()
    with torch.no_grad():
        assert found.value == pytest.approx(float(small(X).sum()), rel=1e-5)
        assert abs(found.value - float(model(X).sum())) > 1e-3


def test_an_object_sees_every_batch_and_is_left_as_new():
    model, own = net(), Summed()
    found = snnprune.evaluate(model, DATA, metric=own)
    assert own.calls == ["reset", "update", "update", "compute", "reset"]
    assert own.seen == 0
    assert found.value == pytest.approx(snnprune.evaluate(model, DATA).accuracy, abs=1e-6)
    assert (found.metric.name, found.metric.higher_is_better, found.count) == ("Summed", True, 10)


def test_an_object_that_adds_up_over_processes_is_kept_from_it():
    class Syncing(Summed):
        sync_on_compute = True

        def compute(self):
            assert self.sync_on_compute is False, "every process has seen all the data"
            return super().compute()

    own = Syncing()
    snnprune.evaluate(net(), DATA, metric=own)
    assert own.sync_on_compute is True


def test_torchmetrics_are_taken_as_they_are():
    torchmetrics = pytest.importorskip("torchmetrics")
    own = torchmetrics.classification.MulticlassAccuracy(3, average="micro")
    found = snnprune.evaluate(net(), DATA, metric=own)
    assert found.value == pytest.approx(snnprune.evaluate(net(), DATA).accuracy, abs=1e-6)
    assert found.metric.higher_is_better is True
    assert not int(own.tp), "it is reset"
    error = torchmetrics.MeanSquaredError()
    assert snnprune.Metric(error).info.higher_is_better is False
    with pytest.raises(ConfigError, match="does not say which way is better"):
        snnprune.Metric(torchmetrics.classification.MulticlassConfusionMatrix(3))


def test_direction_and_name_come_from_the_function_unless_given():
    def error(model, loader):
        return 1.0

    assert snnprune.Metric(error).info == MetricInfo("error", True, False)
    error.higher_is_better = False
    error.percent = True
    assert snnprune.Metric(error).info == MetricInfo("error", False, True)
    assert snnprune.Metric(error, "MAE", higher_is_better=True, percent=False).info == MetricInfo(
        "MAE", True, False
    )
    assert snnprune.Metric(functools.partial(error)).info.name == "error"
    error.higher_is_better = None
    with pytest.raises(ConfigError, match=r"metric error does not say which way is better.*higher_is_better=True"):
        snnprune.Metric(error)
    assert snnprune.Metric(error, higher_is_better=False).info.higher_is_better is False


@pytest.mark.parametrize(
    "value", [0.25, 1, np.float32(0.25), np.array([0.25]), torch.tensor(0.25), torch.tensor([[3]])], ids=repr
)
def test_every_kind_of_number_is_one(value):
    found = snnprune.evaluate(net(), DATA, metric=lambda m, d: value).value
    assert type(found) is float
    assert found == pytest.approx(float(torch.as_tensor(value)))


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (math.nan, "metric odd is nan"),
        (torch.tensor(math.inf), "metric odd is inf"),
        (None, "metric odd returned NoneType"),
        ({"map": 0.5}, "metric odd returned dict"),
        ("0.5", "metric odd returned str"),
        (True, "metric odd returned bool"),
        (torch.tensor([0.5, 0.25]), r"metric odd returned values of shape \(2,\)"),
        (0.5 + 1j, "metric odd returned complex"),
    ],
    ids=repr,
)
def test_what_is_no_finite_number_is_refused_by_the_metrics_name(value, why):
    def odd(model, loader):
        return value

    with pytest.raises(MetricError, match=why):
        snnprune.evaluate(net(), DATA, metric=odd)


def test_a_metric_that_fails_is_named():
    def odd(model, loader):
        return {}["IoU"]

    with pytest.raises(MetricError, match=r"metric odd failed \(KeyError: 'IoU'\)") as caught:
        snnprune.evaluate(net(), DATA, metric=odd)
    assert isinstance(caught.value.__cause__, KeyError)


@pytest.mark.parametrize(
    ("metric", "why"),
    [
        (3, "metric is 3"),
        ("macs", "metric is 'macs'"),
        (Summed, "metric is the class Summed"),
        (lambda model: 1.0, "cannot be called with two arguments"),
        (lambda a, b, c: 1.0, "cannot be called with two arguments"),
    ],
)
def test_what_is_no_metric_is_refused_before_anything_is_done(metric, why):
    for use in (
        lambda: snnprune.Metric(metric),
        lambda: snnprune.evaluate(net(), DATA, metric=metric),
        lambda: snnprune.optimize(net(), DATA, DATA, metric=metric),
    ):
        with pytest.raises(ConfigError, match=why):
            use()


def test_empty_data_and_batches_of_another_form():
    with pytest.raises(DataError, match="yields no batch"):
        snnprune.evaluate(net(), [], metric=mean_output)
    with pytest.raises(DataError, match="no pair of"):
        snnprune.evaluate(net(), [{"x": X}], metric=Summed())


def test_an_iterator_is_read_once():
    assert snnprune.evaluate(net(), iter(DATA), metric=mean_output).count == 10


def test_the_mean_of_a_loss_counts_every_input_once():
    def loss(model, batch):
        return (model(batch[0]) ** 2).mean()

    model = net()
    found = snnprune.evaluate(model, DATA, loss_fn=loss)
    with torch.no_grad():
        mean = float((model.eval()(X).double() ** 2).mean())
    assert found.value == found.loss == pytest.approx(mean, rel=1e-6)
    assert (found.metric, found.count, found.accuracy) == (LOSS, 10, None)
    assert snnprune.evaluate(model, DATA, loss_fn=loss, metric=lambda m, d: 2.0).value == 2.0


class Shy(nn.Module):
    """Gives a loss in training mode alone, and draws for it, as torchvision's detectors do."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.drop, self.head = nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 3)

    def forward(self, x, y=None):
        out = self.head(self.drop(self.norm(x)))
        if not self.training:
            return [out]
        return {"loss": ((out - 1) ** 2).mean() + torch.rand(())}


def test_a_loss_of_training_mode_alone_leaves_norms_and_dropout_at_rest():
    model = Shy().eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}

    def loss(given, batch):
        return sum(given(*batch).values())

    first, second = (snnprune.evaluate(model, DATA, loss_fn=loss) for _ in range(2))
    assert first == second, "what is drawn is the same every time"
    with torch.no_grad():
        out = model(X)[0]
    base = sum(len(part) * float(((part - 1) ** 2).mean()) for part in (out[:6], out[6:])) / 10
    assert base < first.value < base + 1
    assert not any(part.training for part in model.modules())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    with pytest.raises(RuntimeError, match="broken in eval mode"):
        snnprune.evaluate(model, DATA, loss_fn=_broken)


def _broken(model, batch):
    raise RuntimeError("broken in eval mode" if not model.training else "broken in training mode")


def test_inputs_are_counted_by_what_a_loader_says_or_by_reading():
    data = TensorDataset(X, Y)
    assert count_inputs(DATA) == 10
    assert count_inputs(DataLoader(data, batch_size=4)) == 10
    assert count_inputs(DataLoader(data, batch_size=4, drop_last=True)) == 8
    assert count_inputs(DataLoader(data, batch_sampler=[[0, 1], [2]])) == 3
    assert count_inputs(snnprune.load_data("digits").val) == 144
    assert count_inputs([{"x": X}, {"x": X[:3]}]) == 13


def test_of_several_processes_all_see_all_the_data():
    data = TensorDataset(X, Y)
    shared = DataLoader(data, batch_size=4, sampler=DistributedSampler(data, num_replicas=2, rank=1))
    found = torch.cat([x for x, _ in whole(shared, Ranks(1, 2))])
    assert torch.equal(found, X)
    assert whole(shared, Ranks()) is shared
    assert whole(DATA, Ranks(1, 2)) is DATA


def test_values_and_their_changes_in_words():
    assert (ACCURACY.text(0.875), ACCURACY.change(0.9, 0.875), ACCURACY.unit) == (
        "87.50%",
        "-2.50 points",
        "points",
    )
    error = MetricInfo("error", higher_is_better=False, percent=False)
    assert (error.text(1234.5678), error.change(2.0, 2.5), error.unit) == ("1235", "+0.5", "change")
    assert (error.lost(2.0, 2.5), ACCURACY.lost(0.75, 0.5)) == (0.5, 0.25)
    assert (error.worse(2.0, 0.5), ACCURACY.worse(0.75, 0.25)) == (2.5, 0.5)
    assert MetricInfo.read(error.to_dict()) == error
    for wrong in (None, {}, {**error.to_dict(), "name": 3}, {**error.to_dict(), "percent": 1}):
        with pytest.raises(TypeError):
            MetricInfo.read(wrong)
