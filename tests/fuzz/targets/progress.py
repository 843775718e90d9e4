"""What an interrupted run leaves: its checkpoint, and its books of trials and cuts."""

from __future__ import annotations

import functools
import hashlib
import json
from types import SimpleNamespace
from typing import Any

import torch

from snnprune.budget import Latency
from snnprune.learner import Checkpoint, PruneConfig
from snnprune.learner.checkpoint import _MARK, FORMAT
from snnprune.pipeline.drop import BOOK, DropSearch
from snnprune.pipeline.latency import LATENCY, LatencySearch
from snnprune.streams import rng_state

from .base import content_of, place, tiny, written


@functools.cache
def checkpoint_files() -> list[bytes]:
    model = tiny()
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.rand(2, 1, 4, 4)).sum().backward()
    optimizer.step()
    state = {"step": 3, "model": model.state_dict(), "optimizer": optimizer.state_dict(), "history": []}
    content = {
        "format": FORMAT,
        "identity": json.dumps({"weights": "f"}),
        "stage": "recover",
        "state": state,
        "rng": rng_state(),
    }
    return [content_of(lambda p: torch.save(content, p))]


def feed_checkpoint(data: bytes) -> Any:
    data += _MARK + hashlib.sha256(data).digest()  # damage is seen by this; what is fuzzed is a hostile file
    folder = written("checkpoint/state.pt", data).parent
    content = Checkpoint(folder, {"weights": "f"}).load()
    assert content is not None
    assert content["state"]["step"] >= 0
    return content


def setting(target: dict[str, float]) -> Any:
    """As much of a run's setting as its books look at."""
    return SimpleNamespace(config=PruneConfig(target=target), identity=lambda config: {"weights": "f"})


def drop_search() -> DropSearch:
    return DropSearch(setting({"drop": 0.01}), 0.01, place() / "books", resume=True)


@functools.cache
def trial_files() -> list[bytes]:
    search = drop_search()
    search.known()
    trials = [
        {"macs": 0.5, "val_accuracy": 0.9, "drop": 0.0, "passed": True},
        {"macs": 0.25, "val_accuracy": None, "drop": None, "passed": False, "why": "it collapsed"},
    ]
    return [json.dumps({"identity": search.identity, "trials": trials}).encode()]


def feed_trials(data: bytes) -> Any:
    written(f"books/{BOOK}", data)
    known = drop_search().known()
    assert all(type(share) is float and type(t["passed"]) is bool for share, t in known.items())
    return known


def latency_files() -> list[bytes]:
    return [
        json.dumps(
            {"identity": {"weights": "f"}, "share": 0.4, "trials": [{"macs": 0.4, "passed": True}]}
        ).encode()
    ]


def feed_latency(data: bytes) -> Any:
    path = written(f"books/{LATENCY}", data)
    search = LatencySearch(setting({"latency": 0.5}), Latency(0.5, None), path.parent, resume=True)
    search.identity = {"weights": "f"}
    share = search.known(path)
    assert 0 < share <= 1
    return share
