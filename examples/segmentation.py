"""Semantic segmentation: cross-entropy of every pixel is learned from, the mean IoU over classes is reported."""

import sys

import torch
from torch import nn
from torch.nn import functional as F

import snnprune

CLASSES = ("ground", "square", "disc")


class Net(nn.Module):
    """An encoder, a decoder, and a connection past both."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU())
        self.down = nn.Sequential(nn.Conv2d(width, 2 * width, 3, 2, 1), nn.BatchNorm2d(2 * width), nn.ReLU())
        self.up = nn.ConvTranspose2d(2 * width, width, 2, 2)
        self.head = nn.Conv2d(2 * width, len(CLASSES), 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        fine = self.stem(x)
        return self.head(torch.cat([fine, self.up(self.down(fine))], 1))


def scenes(count: int, seed: int, side: int = 24) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Batches of 16 images with a square and a disc each, and the class of every pixel."""
    random = torch.Generator().manual_seed(seed)
    images = 0.3 * torch.rand(count, 3, side, side, generator=random)
    masks = torch.zeros(count, side, side, dtype=torch.long)
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    for image, mask in zip(images, masks, strict=True):
        for kind, colour in ((1, 0), (2, 1)):
            y, x = torch.randint(5, side - 5, (2,), generator=random)
            down, right = (rows - y).abs(), (columns - x).abs()
            inside = (down.maximum(right) <= 3) if kind == 1 else (down**2 + right**2 <= 16)
            mask[inside] = kind
            image[colour][inside] += 0.5
            image[1 - colour][inside] *= 0.5
    return list(zip(images.split(16), masks.split(16), strict=True))


def loss(model: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    return F.cross_entropy(model(batch[0]), batch[1])  # of torchvision's models model(batch[0])["out"]


def mean_iou(model: nn.Module, loader) -> float:
    """Intersection over union of every class, over the pixels of all images, then their mean."""
    table = torch.zeros(len(CLASSES), len(CLASSES))
    for images, masks in loader:
        pairs = len(CLASSES) * masks + model(images).argmax(1)
        table += torch.bincount(pairs.flatten(), minlength=len(CLASSES) ** 2).reshape(table.shape)
    return float((table.diag() / (table.sum(0) + table.sum(1) - table.diag()).clamp(min=1)).mean())


def main(count: int = 160, epochs: float = 4, before: int = 6) -> snnprune.Result:
    torch.manual_seed(0)
    train, val, test = scenes(count, 0), scenes(count // 4, 1), scenes(count // 4, 2)
    model = Net()
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for _ in range(before):
        for batch in train:
            optimizer.zero_grad()
            loss(model, batch).backward()
            optimizer.step()
    config = snnprune.PruneConfig(target={"macs": 0.5}, epochs=epochs)
    metric = snnprune.Metric(mean_iou, name="mIoU", percent=True)
    result = snnprune.optimize(model, train, val, config, test=test, loss_fn=loss, metric=metric)
    print(result.report)
    return result


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]))
