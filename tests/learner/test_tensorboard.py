"""TensorBoard's files, read back by its own reader."""

from __future__ import annotations

import sys

import pytest

import snnprune
from learner.conftest import loaders
from snnprune.errors import ConfigError
from snnprune.learner import PruneConfig, SearchOptions
from snnprune.learner.tensorboard import TensorBoard


def test_scalars_of_both_stages_are_on_file(trained, tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    train, val = loaders()
    board = TensorBoard(tmp_path / "board")
    config = PruneConfig(target={"params": 0.5}, epochs=4, search=SearchOptions(share=0.5))
    result = snnprune.optimize(trained, train, val, config, callbacks=[board])
    board.close()
    read = accumulator.EventAccumulator(str(tmp_path / "board"))
    read.Reload()
    tags = set(read.Tags()["scalars"])
    assert {"search/loss", "search/budget", "search/val_accuracy", "search/kept/conv", "recover/loss"} <= tags
    last = [h for h in result.report.history if h["stage"] == "search"][-1]
    event = read.Scalars("search/kept/conv")[-1]
    assert (event.step, event.value) == (last["step"], last["counts"]["conv"][0])


def test_without_the_package_the_cure_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ConfigError, match=r"pip install 'snnprune\[tensorboard\]'"):
        TensorBoard(tmp_path)
    assert list(tmp_path.iterdir()) == []
