"""A model of timm's: fine-tune, prune, fine-tune on with a plain loop, export."""

import sys

import torch
from torch import nn
from torch.nn import functional as F

import snnprune

try:
    import timm
except ImportError:
    timm = None


def fine_tune(model: nn.Module, train, epochs: int, lr: float) -> None:
    """Your own training script, as it is: it need not know whether the model was pruned."""
    optimizer = torch.optim.SGD(model.parameters(), lr, momentum=0.9, weight_decay=5e-4)
    model.train()
    for _ in range(epochs):
        for images, labels in train:
            loss = F.cross_entropy(model(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def main(
    data: str = "digits", name: str = "resnet10t", out: str = "timm-small.onnx", epochs: int = 4
) -> nn.Module | None:
    if timm is None:
        print("timm is not installed: pip install timm")
        return None
    torch.manual_seed(0)
    train, val, test = snnprune.load_data(data, image_size=16, batch_size=64)
    images, _ = next(iter(train))
    # with pretrained=True timm downloads weights; load_data takes other --mean and --std by mean=, std=
    model = timm.create_model(name, num_classes=10, in_chans=images.shape[1])
    fine_tune(model, train, epochs, lr=0.02)

    config = snnprune.PruneConfig(target={"macs": 0.5}, epochs=epochs / 2, lr=0.02)
    result = snnprune.optimize(model, train, val, config, test=test)
    print(result.report)
    small = result.model  # of timm's own class, with narrower layers
    fine_tune(small, train, epochs=1, lr=0.002)
    print(f"fine-tuned on: {snnprune.evaluate(small, test).accuracy:.2%}")
    print(snnprune.export_onnx(small, out, images[:8]))
    return small


if __name__ == "__main__":
    main(*sys.argv[1:2])
