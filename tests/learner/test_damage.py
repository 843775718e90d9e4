"""Damaged checkpoints: what is loaded is what was saved, or the one before."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from snnprune.errors import RunError
from snnprune.learner import Checkpoint
from snnprune.learner.checkpoint import FORMAT


def state(number: int) -> dict:
    generator = torch.Generator().manual_seed(number)
    return {"step": number, "model": {"weight": torch.randn(40, 30, generator=generator)}, "held": None}


@pytest.fixture
def store(tmp_path) -> Checkpoint:
    """Two checkpoints, of steps 1 and 2."""
    store = Checkpoint(tmp_path, {"weights": "a"})
    for number in (1, 2):
        store.save("search", state(number), {"cpu": torch.arange(5)})
    return store


def loaded(folder: Path) -> int:
    """Which of the two comes back, whole."""
    content = Checkpoint(folder, {"weights": "a"}).load()
    assert content is not None
    wanted = state(content["state"]["step"])
    assert torch.equal(content["state"]["model"]["weight"], wanted["model"]["weight"])
    assert (content["stage"], content["state"]["held"]) == ("search", None)
    assert torch.equal(content["rng"]["cpu"], torch.arange(5))
    return content["state"]["step"]


def test_no_flipped_bit_comes_through(store, tmp_path):
    good = store.path.read_bytes()
    for at in range(0, len(good), 7):
        store.path.write_bytes(good[:at] + bytes([good[at] ^ (1 << at % 8)]) + good[at + 1 :])
        assert loaded(tmp_path) == 1, at
    store.path.write_bytes(good)
    assert loaded(tmp_path) == 2


def test_a_flip_that_pytorch_would_not_see_is_told(store, tmp_path, caplog):
    good = bytearray(store.path.read_bytes())
    good[good.index(state(2)["model"]["weight"].numpy().tobytes()) + 77] ^= 1
    store.path.write_bytes(good)
    assert not torch.equal(torch.load(store.path)["state"]["model"]["weight"], state(2)["model"]["weight"])
    with caplog.at_level("WARNING"):
        assert loaded(tmp_path) == 1
    assert "state.pt cannot be read (ValueError: its checksum is wrong)" in caplog.text
    assert "going on from the checkpoint before it" in caplog.text
    assert "state.previous.pt" in caplog.text


def test_no_truncated_file_comes_through(store, tmp_path):
    good = store.path.read_bytes()
    for length in range(0, len(good), 97):
        store.path.write_bytes(good[:length])
        assert loaded(tmp_path) == 1, length


def test_two_damaged_files_are_both_named(store, tmp_path):
    for path in (store.path, store.previous):
        path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(RunError, match=r"state\.pt cannot be read .*state\.previous\.pt cannot be read .*Remove"):
        Checkpoint(tmp_path, {"weights": "a"}).load()


def test_a_file_without_a_checksum_is_damage(store, tmp_path):
    torch.save(
        {"format": FORMAT, "identity": json.dumps({"weights": "a"}), "stage": "search", "state": state(2)},
        store.path,
    )
    assert loaded(tmp_path) == 1
