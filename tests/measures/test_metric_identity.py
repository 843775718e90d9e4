"""By what a metric is known where a run goes on: its settings, and nothing that it has seen."""

from __future__ import annotations

import pytest
import torch

import snnprune


class Top:
    """Right within the first k; updated batch by batch."""

    higher_is_better = True

    def __init__(self, k):
        self.k, self.right, self.seen = k, 0, 0

    def update(self, outputs, targets):
        self.right += int((outputs.topk(self.k, 1).indices == targets[:, None]).sum())
        self.seen += len(targets)

    def compute(self):
        return self.right / self.seen

    def reset(self):
        self.right = self.seen = 0


def test_its_identity_is_its_settings_and_not_what_it_has_seen():
    one, used, other = Top(1), Top(1), Top(2)
    used.update(torch.eye(3), torch.arange(3))
    found = [snnprune.Metric(metric).identity() for metric in (one, used, other)]
    assert found[0] == found[1] != found[2]
    torchmetrics = pytest.importorskip("torchmetrics")
    made = [torchmetrics.classification.MulticlassAccuracy(3, top_k=k) for k in (1, 1, 2)]
    made[1].update(torch.eye(3), torch.arange(3))
    found = [snnprune.Metric(metric).identity() for metric in made]
    assert found[0] == found[1] != found[2]
