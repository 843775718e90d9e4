"""What is fuzzed: every reader of files, with a valid file to start from and a way to damage it."""

from __future__ import annotations

from random import Random

from fuzz.mutate import mutate_bytes, mutate_json, mutate_onnx, mutate_safetensors, mutate_zip, zipped_pickle
from snnprune.errors import SnnPruneError

from .base import Target, written
from .data import array_files, feed_arrays, feed_image, image_files
from .models import feed_match, read, state_files, weight_files, whole_files
from .progress import checkpoint_files, feed_checkpoint, feed_latency, feed_trials, latency_files, trial_files
from .runs import (
    feed_delivery,
    feed_onnx,
    feed_probe,
    feed_report,
    feed_run_weights,
    feed_structure,
    onnx_files,
    probe_files,
    report_files,
    run_weights,
    structure_files,
)

TARGETS: dict[str, Target] = {
    "state-dict": Target(lambda: state_files(True), zipped_pickle, lambda d: read(written("m.pt", d))),
    "state-dict-old": Target(lambda: state_files(False), mutate_bytes, lambda d: read(written("o.pt", d))),
    "whole-model": Target(whole_files, zipped_pickle, lambda d: read(written("w.pt", d))),
    "safetensors": Target(weight_files, mutate_safetensors, lambda d: read(written("w.safetensors", d))),
    "match": Target(weight_files, mutate_safetensors, feed_match),
    "structure": Target(structure_files, mutate_json, feed_structure),
    "run-weights": Target(run_weights, mutate_safetensors, feed_run_weights),
    "onnx": Target(onnx_files, mutate_onnx, feed_onnx),
    "delivery": Target(onnx_files, mutate_onnx, feed_delivery),
    "probe": Target(probe_files, mutate_safetensors, feed_probe),
    "report": Target(report_files, mutate_json, feed_report),
    "arrays": Target(array_files, mutate_zip, feed_arrays),
    "image": Target(image_files, mutate_bytes, feed_image),
    "checkpoint": Target(checkpoint_files, zipped_pickle, feed_checkpoint),
    "trials": Target(trial_files, mutate_json, feed_trials),
    "latency": Target(latency_files, mutate_json, feed_latency),
}


def draw(target: Target, random: Random) -> bytes:
    """A damaged file."""
    return target.mutate(random, random.choice(target.valid()))


def loads(target: Target, data: bytes) -> bool:
    """Whether the reader takes it; False where it says so, and everything else passes through."""
    try:
        target.feed(data)
    except SnnPruneError:
        return False
    return True


__all__ = ["TARGETS", "Target", "draw", "loads"]
