"""A detector of torchvision's: it learns from the losses that it gives itself; how well boxes fit is reported."""

import sys

import torch
from torch import nn
from torchvision.models import detection
from torchvision.ops import box_iou

import snnprune

SIDE = 64


def detector() -> nn.Module:
    """A small Faster R-CNN; with trained weights take any of `torchvision.models.detection`."""
    backbone = nn.Sequential(
        nn.Conv2d(3, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 24, 3, 2, 1), nn.BatchNorm2d(24), nn.ReLU(),
        nn.Conv2d(24, 24, 3, 2, 1), nn.ReLU(),
    )  # fmt: skip
    backbone.out_channels = 24
    return detection.FasterRCNN(
        backbone,
        min_size=SIDE,
        max_size=SIDE,
        image_mean=[0.2] * 3,
        image_std=[0.2] * 3,
        rpn_anchor_generator=detection.anchor_utils.AnchorGenerator(((16, 24),), ((1.0,),)),
        box_head=detection.faster_rcnn.TwoMLPHead(24 * 49, 32),
        box_predictor=detection.faster_rcnn.FastRCNNPredictor(32, 2),
    )


def scenes(batches: int, seed: int) -> list[tuple[list[torch.Tensor], list[dict[str, torch.Tensor]]]]:
    """Batches of four images with a bright square each, and its box, as torchvision's detectors take them."""
    random = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(batches):
        images, targets = [], []
        for _ in range(4):
            image = 0.3 * torch.rand(3, SIDE, SIDE, generator=random)
            x, y, size = (int(torch.randint(*r, (1,), generator=random)) for r in ((2, 36), (2, 36), (14, 26)))
            image[:, y : y + size, x : x + size] += 0.6
            images.append(image)
            box = torch.tensor([[x, y, x + size, y + size]], dtype=torch.float32)
            targets.append({"boxes": box, "labels": torch.tensor([1])})
        found.append((images, targets))
    return found


def loss(model: nn.Module, batch: tuple[list, list]) -> torch.Tensor:
    """The sum of the losses that the detector gives in training mode."""
    return sum(model(*batch).values())


def overlap(model: nn.Module, loader) -> float:
    """IoU of the box that the detector is surest of with the one that is there, the mean over all images."""
    found = []
    for images, targets in loader:
        for said, target in zip(model(images), targets, strict=True):  # boxes, the surest first
            best = box_iou(said["boxes"][:1], target["boxes"]).flatten()
            found.append(float(best[0]) if len(best) else 0.0)
    return sum(found) / len(found)


def main(batches: int = 24, epochs: float = 2, before: int = 6) -> snnprune.Result:
    torch.manual_seed(0)
    train, val, test = scenes(batches, 0), scenes(batches // 4, 1), scenes(batches // 4, 2)
    model = detector()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for _ in range(before):
        for batch in train:
            optimizer.zero_grad()
            loss(model.train(), batch).backward()
            optimizer.step()
    config = snnprune.PruneConfig(target={"macs": 0.6}, epochs=epochs, lr=0.01)
    result = snnprune.optimize(
        model,
        train,
        val,
        config,
        test=test,
        example_inputs=train[0],  # its forward takes two lists
        loss_fn=loss,
        metric=snnprune.Metric(overlap, name="IoU of the surest box", percent=True),
    )
    print(result.report)
    return result


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]))
