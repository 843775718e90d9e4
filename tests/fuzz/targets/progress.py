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
from snnprune.timing.answers import answers_in, read_answers

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


def drop_search(*, resume: bool = True) -> DropSearch:
    return DropSearch(setting({"drop": 0.01}), 0.01, place() / "books", resume=resume)


@functools.cache
def trial_files() -> list[bytes]:
    search = drop_search(resume=False)  # what was fed before is not read: a test may be the first to ask
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
    key = {"engine": "cpu", "batch": 1, "precision": "fp32", "threads": 1}
    kept = {
        "identity": latency_identity(),
        "share": 0.4,
        "settled": 0.45,
        "dense_ms": 2.5,
        "trials": [{"share": 0.4}],
    }
    return [json.dumps({**answers_in({"a": 1.5, "b": None}, key), **kept}).encode()]


def latency_identity() -> dict[str, Any]:
    return {"weights": "f", "latency": 0.5}


def feed_latency(data: bytes) -> Any:
    path = written(f"books/{LATENCY}", data)
    search = LatencySearch(setting({"latency": 0.5}), Latency(0.5, None), path.parent, resume=True)
    assert search.identity == latency_identity()
    assert 0 < search.share <= 1
    answers = read_answers(path)[1]
    assert all(ms is None or ms >= 0 for ms in answers.values())
    return search.share, answers
