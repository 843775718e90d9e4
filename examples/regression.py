"""A number per image: the mean absolute error decides, of which less is better."""

import sys
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

import snnprune

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "models"))
from digits_cnn import digits_cnn


def loss(model: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    return F.smooth_l1_loss(model(batch[0]).flatten(), batch[1].float())


class MeanError:
    """Batch by batch, in the form of `torchmetrics`, of which any object does in its place."""

    higher_is_better = False

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.total, self.count = 0.0, 0

    def update(self, outputs: torch.Tensor, targets: torch.Tensor) -> None:
        self.total += float((outputs.flatten() - targets).abs().sum())
        self.count += len(targets)

    def compute(self) -> float:
        return self.total / self.count


def main(data: str = "digits", epochs: float = 3, before: int = 8) -> snnprune.Result:
    torch.manual_seed(0)
    train, val, test = snnprune.load_data(data, augment=False)  # the number is the digit itself
    model = digits_cnn(1)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    for _ in range(before):
        for batch in train:
            optimizer.zero_grad()
            loss(model, batch).backward()
            optimizer.step()
    config = snnprune.PruneConfig(target={"drop": 0.3}, trials=2, epochs=epochs, lr=0.01)  # 0.3 more of an error
    metric = snnprune.Metric(MeanError(), name="mean error")
    result = snnprune.optimize(model, train, val, config, test=test, loss_fn=loss, metric=metric)
    print(result.report)
    return result


if __name__ == "__main__":
    main(*sys.argv[1:2])
