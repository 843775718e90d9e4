"""Train the digits network from scratch: `python models/train.py models/digits_cnn.pt`."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from digits_cnn import digits_cnn
from torch.nn import functional as F

import snnprune


def main(out: Path, epochs: int = 30, seed: int = 0) -> float:
    """Train, save the state dict, and return the test accuracy."""
    torch.manual_seed(seed)
    train, _, test = snnprune.load_data("digits", batch_size=64, seed=seed)
    model = digits_cnn()
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9, nesterov=True, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.05, total_steps=epochs * len(train))
    for _ in range(epochs):
        model.train()
        for images, labels in train:
            loss = F.cross_entropy(model(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    torch.save(model.state_dict(), out)
    return snnprune.evaluate(model, test).accuracy


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    print(f"test accuracy {main(args.out, args.epochs, args.seed):.2%}")
