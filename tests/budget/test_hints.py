"""What a target that is none was probably to be."""

from __future__ import annotations

import pytest

from snnprune.budget import read_target
from snnprune.budget.hints import hint, meant
from snnprune.cli import parse
from snnprune.errors import TargetError


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("macs=50%", "macs=0.5"),
        ("macs=50", "macs=0.5"),
        ("0.5", "macs=0.5"),
        ("50%", "macs=0.5"),
        (".3", "macs=0.3"),
        ("flops=0.5", "macs=0.5"),
        ("FLOPs=0.5", "macs=0.5"),
        ("mac=0.5", "macs=0.5"),
        ("--macs=0.5", "macs=0.5"),
        ("parameters=30%", "params=0.3"),
        ("param=0.3", "params=0.3"),
        ("drop=1%", "drop=0.01"),
        ("drop=1", "drop=0.01"),
        ("accuracy=0.005", "drop=0.005"),
        ("latency=3", "latency=3ms"),
        ("latency=50%", "latency=0.5"),
        ("time=3ms", "latency=3ms"),
        ("3ms", "latency=3ms"),
        ("speedup=2", "latency=0.5"),
        ("2x", "latency=0.5"),
        ("Free", "free"),
        ("fre", "free"),
    ],
)
def test_what_was_meant(text, wanted):
    assert meant(text) == wanted
    assert wanted == "free" or parse.target(wanted) is not None  # a target that is one


@pytest.mark.parametrize(
    "text",
    [
        "",
        "=",
        "macs=",
        "macs=half",
        "banana=0.5",
        "macs=0",
        "macs=-1",
        "macs=1e9",
        "params=3ms",
        "x" * 100,
        "0.5x",
    ],
)
def test_nothing_comes_to_mind(text):
    assert meant(text) is None
    assert hint(text) == ""


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("macs=50%", "macs=0.5"), ("0.5", "macs=0.5"), ("flops=0.5", "macs=0.5"), ("latency=3", "latency=3ms")],
)
def test_on_the_command_line(text, wanted):
    with pytest.raises(TargetError, match=rf" Did you mean {wanted}\?$"):
        parse.target(text)


@pytest.mark.parametrize(
    ("target", "wanted"),
    [
        ({"macs": 50}, "macs=0.5"),
        ({"flops": 0.5}, "macs=0.5"),
        ({"latency": 3}, "latency=3ms"),
    ],
)
def test_in_python(target, wanted):
    with pytest.raises(TargetError, match=rf" Did you mean {wanted}\?$"):
        read_target(target)
