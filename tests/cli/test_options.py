"""Options and arguments that are refused in one line."""

from __future__ import annotations

import pytest

from cli.conftest import ARCH, command
from snnprune.cli.main import run
from snnprune.errors import ConfigError


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("macs=1.5", "macs=1.5 is no share"),
        ("macs=0", "macs=0.0 is no share"),
        ("macs=-0.5", "macs=-0.5 is no share"),
        ("macs=inf", "macs=inf is no share"),
        ("macs=nan", "'macs=nan' is not of the form"),
        ("macs=abc", "'macs=abc' is not of the form"),
        ("macs", "'macs' is not of the form"),
        ("0.5", "'0.5' is not of the form"),
        ("", "'' is not of the form"),
        ("drop=1", "drop=1.0 is no fraction"),
        ("drop=-0.1", "drop=-0.1 is no amount"),
        ("drop", "'drop' is not of the form"),
        ("foo=0.5", "'foo' is unknown"),
        ("macs=0.5,params=0.5", "not of the form"),
    ],
)
def test_a_target_that_is_none(refused, target, says):
    refused(*command("digits.pt", "digits", *ARCH, "--target", target), says=("target", says))


@pytest.mark.parametrize("target", ["params=0.0001", "macs=0.001"])
def test_a_target_below_the_floors_says_what_can_be_reached(refused, target):
    metric = target.split("=")[0]
    message = refused(*command("digits.pt", "digits", *ARCH, "--target", target), says=(target, "below what"))
    reachable = float(message.split(f"Ask for {metric}=")[1].split()[0])
    assert 0.001 < reachable < 0.1


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--epochs", "abc"], "--epochs"),
        (["--epochs", "0"], "epochs=0"),
        (["--epochs", "nan"], "epochs=nan"),
        (["--epochs", "inf"], "epochs=inf"),
        (["--lr", "-1"], "lr=-1"),
        (["--seed", "x"], "--seed"),
        (["--seed", "-1"], "seed=-1 must be a whole number from 0"),
        (["--seed", "9" * 40], "seed=999"),
        (["--batch-size", "0"], "batch_size=0"),
        (["--limit", "0"], "limit=0"),
        (["--image-size", "0"], "image_size=0"),
        (["--image-size", "1000000"], "image_size=1000000"),
        (["--round-to", "0"], "round_to=0"),
        (["--trials", "3"], "--trials 3 belongs to a target drop"),
        (["--trials", "0", "--target", "drop=0.01"], "trials=0"),
        (["--mean", "0.1,0.2"], "--mean has 2 values for images of 1 channel"),
        (["--std", "1 1 1"], "--std has 3 values for images of 1 channel"),
        (["--mean", "abc"], "--mean 'abc' is no list of numbers"),
        (["--mean", ""], "--mean '' is no list of numbers"),
        (["--mean", "nan"], "--mean [nan]"),
        (["--std", "0"], "--std [0.0] must be positive"),
        (["--device", "nonsense"], "--device 'nonsense' is not available here"),
        (["--device", ""], "--device ''"),
        (["--device", "meta"], "--device 'meta'"),
        (["--device", "cpu:x"], "--device 'cpu:x'"),
        (["--output"], "--output"),
        (["--keep", "*", "--target", "macs=0.5"], "nothing in this model can be pruned"),
    ],
    ids=lambda value: "".join(value) if isinstance(value, list) else "",
)
def test_a_bad_value_of_an_option(refused, options, says):
    refused(*command("digits.pt", "digits", *ARCH), *options, says=says)


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["optimize"], "argument"),
        (["optimize", "digits.pt"], "--data"),
        (["optimize", "digits.pt", "--data"], "--data"),
        (["optimize", "digits.pt", "more.pt", "--data", "digits"], "more.pt"),
        (["evaluate", "digits.pt"], "--data"),
        (["inspect"], "argument"),
        (["compare"], "argument"),
        (["export"], "--onnx"),
        (["compare", "absent"], "absent is no run folder (it has neither report.json nor structure.json)"),
    ],
    ids=" ".join,
)
def test_a_missing_or_extra_argument(refused, args, says):
    refused(*args, says=says)


@pytest.mark.parametrize(
    "args",
    [
        ["--bogus"],
        ["bogus"],
        ["optimise", "digits.pt", "--data", "digits"],
        ["optimize", "digits.pt", "--data", "digits", "--bogus", "3"],
        ["inspect", "digits.pt", "-x"],
        ["export", "--onx"],
        ["evaluate", "digits.pt", "--data", "digits", "--epochs", "3"],
    ],
    ids=" ".join,
)
def test_an_unknown_option_or_command_is_exit_code_2(refused, args):
    refused(*args, says="No such", code=2)


def test_every_option_of_the_learning_reaches_the_run(monkeypatch):
    """What each run would be given, taken from the first thing that is made with it."""
    given = []

    def stop(model, train, val, config, **_kwargs):
        given.append(config)
        raise ConfigError("that is enough")

    monkeypatch.setattr("snnprune.pipeline.optimize", stop)
    start = ["optimize", "digits.pt", *ARCH, "--data", "digits", "--output", "out"]
    options = {
        "--channels-last": ("channels_last", True),
        "--compile": ("compile", True),
        "--precision bfloat16": ("precision", "bfloat16"),
        "--floor 0.2": ("floor", 0.2),
        "--round-to 4": ("round_to", 4),
        "--epochs 3": ("epochs", 3.0),
        "--lr 0.5": ("lr", 0.5),
        "--seed 7": ("seed", 7),
        "--keep features.0": ("keep", ("features.0",)),
        "--target params=0.4": ("target", {"params": 0.4}),
        "--target drop=0.1 --trials 3": ("trials", 3),
        "--granularity connection": ("granularity", "connection"),
    }
    for text, (name, value) in options.items():
        assert run([*start, *text.split()]) == 1
        assert getattr(given[-1], name) == value, text
    assert run(start) == 1
    assert all(getattr(given[-1], name) != value for name, value in options.values() if name != "trials")
