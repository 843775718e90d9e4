"""Options, loaders and losses of the wrong type are told at once, by name, value and what is wanted."""

from __future__ import annotations

import dataclasses
import functools
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import snnprune
from snnprune import PruneConfig, RecoveryOptions, SearchOptions
from snnprune.errors import ConfigError, DataError, TargetError
from snnprune.options import Count, Names, Share, about, checked

X, Y = torch.randn(8, 6, generator=torch.Generator().manual_seed(1)), torch.arange(8) % 3
DATA = [(X, Y)] * 4
NAN, INF = float("nan"), float("inf")


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 3)).eval()


def run(**given):
    config = PruneConfig(target={"params": 0.6}, epochs=1, round_to=1)
    given = {"model": net(), "train": DATA, "val": DATA, "config": config, **given}
    return snnprune.optimize(**given)


GROUPS = {"search": SearchOptions, "recovery": RecoveryOptions}
FIELDS = {
    **{(PruneConfig, name): one.default for name, one in about(PruneConfig).items() if name not in GROUPS},
    **{(kind, name): one.default for kind in GROUPS.values() for name, one in about(kind).items()},
}
NEITHER = ["x", None, NAN, INF, -INF, 1j, [1], b"1", torch.tensor(1.0)]
NUMBERS = {place: v for place, v in FIELDS.items() if type(v) in (int, float)}


@pytest.mark.parametrize(("kind", "name"), FIELDS)
def test_every_option_is_checked_by_type(kind, name):
    """Also one that is added later: its type has to say what it must be."""
    allowed = {
        "target": [None],
        "patience": [None],
        "keep": ["x"],
        "uniform": ["x"],
        "outputs": ["x"],
        "profile": ["x", None],
    }.get(name, [])
    for value in NEITHER:
        if any(value is one or value == one for one in allowed if type(value) is type(one)):
            continue
        with pytest.raises(ConfigError, match=name) as caught:
            kind(**{name: value})
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("kind", "name"), NUMBERS)
def test_numbers_are_numbers(kind, name):
    """Not True, not text; those of NumPy and fractions are stored as Python's own."""
    default = NUMBERS[kind, name]
    for value in (True, np.True_, "0.5", str(default)):
        with pytest.raises(ConfigError, match=f"{name}=.* must be a"):
            kind(**{name: value})
    whole = type(default) is int
    for value in [np.int64(1), np.uint8(1)] if whole else [np.float64(0.5), np.float32(0.5), Fraction(1, 2)]:
        config = kind(**{name: value})
        found = getattr(config, name)
        assert type(found) is type(default)
        assert found == value
        assert config == kind(**{name: found})
        assert dataclasses.asdict(config)[name] == found


@pytest.mark.parametrize(("kind", "name"), [place for place, v in NUMBERS.items() if type(v) is int])
def test_whole_numbers_are_whole(kind, name):
    for value in (2.5, 1.0, -1, -3):
        with pytest.raises(ConfigError, match=f"{name}={value} must be a whole number"):
            kind(**{name: value})


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"round_to": 2.5}, "round_to=2.5 must be a whole number of at least 1"),
        ({"round_to": 0}, "at least 1"),
        ({"seed": 2**64}, "seed=18446744073709551616 must be a whole number from 0 to 2\\^64 - 1"),
        ({"seed": -1}, "seed=-1"),
        (
            {"search": {"patience": 0}, "target": None},
            r"search\.patience=0 must be a whole number of at least 1 or None",
        ),
        (
            {"search": {"alternate": "batch"}},
            r"search\.alternate='batch' must be a whole number of at least 1, 'epoch' or 'together'",
        ),
        ({"lr": 0}, "lr=0 must be a positive number"),
        ({"epochs": 10**400}, "epochs=1000.* must be a positive number"),
        ({"distill": 1.01}, r"distill=1.01 must be a number in \[0, 1\]"),
        (
            {"search": {"scores": "magic"}},
            r"search\.scores='magic' is unknown; use one of switcher, switcher.offset, free",
        ),
        ({"compile": 1}, "compile=1 must be True or False"),
        ({"keep": ("a", 1)}, "keep=.* must be a pattern of module names, or a sequence of them"),
        ({"keep": [""]}, "keep="),
        ({"keep": {"a": 1}}, "keep="),
        ({"search": {"share": 0}}, r"search\.share=0 leaves no step"),
        ({"recovery": {"clip": 0}}, r"recovery\.clip=0 must be a positive number"),
        ({"recovery": 0.1}, "recovery is float; give a RecoveryOptions, or a mapping of its options"),
    ],
)
def test_bad_values_name_themselves(options, said):
    with pytest.raises(ConfigError, match=said):
        PruneConfig(**options)


def test_good_values_at_their_bounds():
    assert PruneConfig(seed=2**64 - 1).seed == 2**64 - 1
    assert PruneConfig(distill=0, floor=1, epochs=1e-3).floor == 1
    assert SearchOptions(probe=0, trust=0, fresh_mean=-2, patience=1, alternate=3).alternate == 3
    assert RecoveryOptions(momentum=1.0, warmup=0).momentum == 1
    assert PruneConfig(freeze_norm=np.True_).freeze_norm is True


def test_patterns_are_one_or_several():
    for keep in ("features.0", ["features.0"], ("features.0",), {"features.0"}, (n for n in ["features.0"])):
        assert PruneConfig(keep=keep).keep == ("features.0",)
    assert checked("keep", {"b", "a"}, Names) == ("a", "b"), "sets have an order of their own in every process"


def test_targets_take_numbers_of_numpy():
    mine = {"macs": np.float32(0.5)}
    config = PruneConfig(target=mine)
    assert config.target == {"macs": 0.5}
    assert type(config.to_dict()["target"]["macs"]) is float
    mine["macs"] = 2
    assert config.target == {"macs": 0.5}, "it is the caller's dict"
    for value in (True, "0.5", NAN, INF, None, 0, -0.5, 1.5, np.float64("nan")):
        with pytest.raises(TargetError):
            PruneConfig(target={"params": value})


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"floor": -0.1}, "floor=-0.1"),
        ({"floor": NAN}, "floor=nan"),
        ({"round_to": True}, "round_to=True"),
        ({"seed": "a"}, "seed='a'"),
        ({"metric": "flops"}, "metric='flops' is unknown; use one of macs, params"),
        ({"input_neurons": 1}, "input_neurons=1"),
        ({"keep": 3}, "keep=3"),
        ({"keep": "nothing"}, "keep pattern 'nothing' matches no group"),
        ({"switcher": "magic"}, "scores='magic'"),
        ({"batches": DATA, "loss": F.cross_entropy}, "loss is cross_entropy, which takes outputs and labels"),
    ],
)
def test_options_of_gates_are_checked(options, said):
    model = net()
    with pytest.raises(ConfigError, match=said):
        snnprune.attach(model, X, **options)
    snnprune.attach(model, X, round_to=np.int64(2), floor=np.float32(0.5), keep="0").detach()


def test_shares_are_checked():
    for options in ({"shares": [1.0]}, {"shares": ["x"]}, {"targets": [True]}, {"metric": "x"}, {"floor": 2}):
        with pytest.raises(ConfigError):
            snnprune.sensitivity(net(), DATA, **options)
    assert checked("share", np.float32(0.5), Share) == 0.5
    assert type(checked("n", np.int32(3), Count)) is int


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"train": (b for b in DATA)}, "train: generator is an iterator, which is empty after one pass"),
        ({"val": iter(DATA)}, "val: list_iterator is an iterator"),
        ({"test": map(tuple, DATA)}, "test: map is an iterator"),
        ({"train": None}, "train: NoneType is no loader"),
        ({"train": "digits"}, "train: str is no loader"),
        ({"train": X}, "train: Tensor is no loader"),
        ({"val": PruneConfig()}, "val: PruneConfig is no loader"),
    ],
)
def test_what_gives_no_batches_twice_is_told_at_once(given, said):
    with pytest.raises(DataError, match=said):
        run(**given)


def test_figures_need_data_that_can_be_read_again():
    assert snnprune.evaluate(net(), iter(DATA)).count == 32, "one pass is enough"
    with pytest.raises(DataError, match="iterator"):
        snnprune.compare(net(), net(), iter(DATA), example_inputs=X)
    with pytest.raises(DataError, match="iterator"):
        snnprune.sensitivity(net(), iter(DATA))
    with pytest.raises(DataError, match="str is no loader"):
        snnprune.evaluate(net(), "digits")


@pytest.mark.parametrize(
    ("loss", "said"),
    [
        (F.cross_entropy, "loss_fn is cross_entropy, which takes outputs and labels. A function of"),
        (nn.CrossEntropyLoss(), "loss_fn is CrossEntropyLoss, which takes outputs and labels"),
        (nn.CrossEntropyLoss, "loss_fn is CrossEntropyLoss. A function of"),
        ("ce", "loss_fn is str"),
        (lambda batch: batch, "cannot be called with two arguments"),
        (lambda outputs, labels: F.cross_entropy(outputs, labels), r"failed \(TypeError"),
        (functools.partial(F.mse_loss), "failed"),
        (lambda model, batch: 1.0, "returned float; the mean loss as a tensor"),
        (lambda model, batch: F.cross_entropy(model(batch[0]), batch[1]).item(), "returned float"),
        (lambda model, batch: F.cross_entropy(model(batch[0]), batch[1], reduction="none"), r"shape \(8,\)"),
        (lambda model, batch: F.cross_entropy(model(batch[0]), batch[1]).detach(), "the loss has no gradient"),
    ],
)
@pytest.mark.filterwarnings("ignore:no gradient")
def test_losses_of_another_form_say_what_is_wanted(loss, said):
    for probe in (0, 1):
        config = PruneConfig(target={"params": 0.6}, epochs=2, round_to=1, search=SearchOptions(probe=probe))
        with pytest.raises(ConfigError, match=said):
            run(loss_fn=loss, config=config)


def test_a_loss_of_one_element_is_a_number():
    def loss(model, batch):
        return F.cross_entropy(model(batch[0]), batch[1])[None]

    assert run(loss_fn=loss).report.compact.params < run().report.dense.params


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"config": {"target": {"macs": 0.5}}}, "config is dict; give a PruneConfig"),
        ({"callbacks": print}, "callbacks=.* must be a list of functions"),
        ({"callbacks": [1]}, "callbacks="),
        ({"device": "warp"}, "device='warp' cannot be used here"),
        ({"device": "meta"}, "device='meta' cannot be used here"),
        ({"device": 1.5}, "device=1.5 cannot be used here"),
    ],
)
def test_other_arguments_of_a_run_are_checked(given, said):
    with pytest.raises(ConfigError, match=said):
        run(**given)
