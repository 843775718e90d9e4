"""Several labels per image: a loss of one's own is learned from, and the mean F1 over the labels decides."""

import sys
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

import snnprune

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "models"))
from digits_cnn import digits_cnn

LABELS = {"even": (0, 2, 4, 6, 8), "prime": (2, 3, 5, 7), "has a loop": (0, 6, 8, 9)}


def labelled(digits: torch.Tensor) -> torch.Tensor:
    """(batch, labels) of 0 and 1: what is true of each digit."""
    return torch.stack([torch.isin(digits, torch.tensor(d)) for d in LABELS.values()], 1).float()


def loss(model: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    return F.binary_cross_entropy_with_logits(model(batch[0]), batch[1])


def mean_f1(model: nn.Module, loader) -> float:
    """F1 of every label over all images, then their mean."""
    hits, said, there = (torch.zeros(len(LABELS)) for _ in range(3))
    for images, labels in loader:
        found = (model(images) > 0).float()
        hits += (found * labels).sum(0)
        said += found.sum(0)
        there += labels.sum(0)
    return float((2 * hits / (said + there).clamp(min=1)).mean())


def main(data: str = "digits", epochs: float = 3, before: int = 5) -> snnprune.Result:
    torch.manual_seed(0)
    train, val, test = ([(x, labelled(y)) for x, y in part] for part in snnprune.load_data(data, augment=False))
    model = digits_cnn(len(LABELS))
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    for _ in range(before):
        for batch in train:
            optimizer.zero_grad()
            loss(model, batch).backward()
            optimizer.step()
    metric = snnprune.Metric(mean_f1, name="mean F1", percent=True)  # in [0, 1], higher is better
    config = snnprune.PruneConfig(target={"drop": 0.02}, trials=2, epochs=epochs)  # two points of F1
    result = snnprune.optimize(model, train, val, config, test=test, loss_fn=loss, metric=metric)
    print(result.report)
    return result


if __name__ == "__main__":
    main(*sys.argv[1:2])
