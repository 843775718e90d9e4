"""A checkpoint belongs to a model, its data and its options; what sets them apart enters the fingerprint."""

from __future__ import annotations

import torch
from torch import nn

from snnprune import PruneConfig
from snnprune.data import ArrayLoader, DataInfo
from snnprune.pipeline.job import Job

INFO = DataInfo("a name", (1, 4, 4), ("a", "b", "c"), (0.5,), (0.5,), "arrays")


def fingerprint(labels: torch.Tensor, image: int = 0, weight: float = 0.0, **options) -> str:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 3))
    with torch.no_grad():
        model[1].weight[0, 0] += weight
    images = torch.arange(12 * 16, dtype=torch.uint8).reshape(12, 1, 4, 4).clone()
    images[0, 0, 0, 0] = image
    train = ArrayLoader(images, labels, INFO, batch_size=4)
    config = PruneConfig(target={"params": 0.6}, epochs=1, round_to=1, **options)
    return Job(model, train, None, config, None, torch.device("cpu"), [], None).fingerprint()


def test_labels_images_weights_and_options_set_runs_apart():
    labels = torch.arange(12) % 3
    moved = labels.clone()
    moved[-1] = 0
    soft = 0.9 * nn.functional.one_hot(labels, 3) + 0.1 / 3
    one = fingerprint(labels)
    assert one == fingerprint(labels.clone())
    others = [
        fingerprint(moved),
        fingerprint(labels.flip(0)),
        fingerprint(soft),
        fingerprint(soft.flip(0)),
        fingerprint(labels, image=1),
        fingerprint(labels, weight=1e-3),
        fingerprint(labels, lr=0.01),
    ]
    assert len({one, *others}) == 1 + len(others)
