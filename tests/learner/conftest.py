"""Shared by the tests of learning: a small trained network and its data."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset


class Net(nn.Module):
    """Batch norm and dropout: everything that draws or keeps state."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 12, 3, padding=1)
        self.norm = nn.BatchNorm2d(12)
        self.hidden = nn.Linear(12 * 16, 24)
        self.drop = nn.Dropout(0.3)
        self.head = nn.Linear(24, 3)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.norm(self.conv(x))), 2)
        return self.head(self.drop(F.relu(self.hidden(x.flatten(1)))))


def problem(count: int = 96, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 3, (count,), generator=generator)
    images = torch.randn(count, 1, 8, 8, generator=generator) * 0.5
    images[torch.arange(count), 0, labels * 2 + 1] += 1.5
    return images, labels


class Noisy(TensorDataset):
    """Augmentation that draws from PyTorch's global random state."""

    def __getitem__(self, index):
        x, y = super().__getitem__(index)
        return x + 0.1 * torch.randn_like(x), y


def loaders(batch: int = 16):
    train = DataLoader(Noisy(*problem()), batch_size=batch, shuffle=True)
    val = DataLoader(TensorDataset(*problem(48, 1)), batch_size=48)
    return train, val


@pytest.fixture(scope="module")
def trained() -> Net:
    torch.manual_seed(0)
    model = Net()
    train, _ = loaders()
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
    for _ in range(8):
        for x, y in train:
            loss = F.cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return model.eval()
