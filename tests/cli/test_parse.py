"""Values of options, as they are read."""

from __future__ import annotations

import pytest
import torch

from snnprune.cli import parse
from snnprune.errors import ConfigError, TargetError


def test_targets_are_read():
    assert parse.target("macs=0.5") == {"macs": 0.5}
    assert parse.target("params=1") == {"params": 1.0}
    assert parse.target("drop=0.005") == {"drop": 0.005}
    assert parse.target("latency=0.5") == {"latency": 0.5}
    assert parse.target("latency=3ms") == parse.target("latency=3000 us") == {"latency": "3ms"}
    assert parse.target("free") is None
    for wrong in ("free=1", "latency=ms", "latency=3m", "macs=3ms", "latency", "latency=-1us"):
        with pytest.raises(TargetError):
            parse.target(wrong)


def test_numbers_are_read():
    assert parse.numbers(None, "--mean") is None
    assert parse.numbers("0.5", "--mean") == (0.5,)
    assert parse.numbers("0.1, 0.2,0.3", "--mean") == parse.numbers("0.1 0.2 0.3", "--mean") == (0.1, 0.2, 0.3)
    with pytest.raises(ConfigError):
        parse.numbers(",", "--mean")


def test_devices_are_read(monkeypatch):
    assert parse.device("cpu") == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert parse.device("auto") == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert parse.device("auto") == "cuda"
