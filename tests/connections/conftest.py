"""Shared by the tests of connections: a small network with random norms, and its inputs."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from snnprune.learner import TaskLoss

HARD = TaskLoss(None, distill=0.0, temperature=1.0).hard
X = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(5))


class Net(nn.Module):
    """A convolution, flattened units, a residual of fully connected layers, batch norm between them."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.fc1 = nn.Linear(16, 12)
        self.bn = nn.BatchNorm1d(12)
        self.fc2 = nn.Linear(12, 9)
        self.fc3 = nn.Linear(9, 12)
        self.out = nn.Linear(12, 5)

    def forward(self, x):
        x = F.relu(self.bn(self.fc1(F.adaptive_avg_pool2d(F.relu(self.conv(x)), 2).flatten(1))))
        return self.out(x + F.relu(self.fc3(F.relu(self.fc2(x)))))


@pytest.fixture(params=[0, 1, 2])
def net(request):
    torch.manual_seed(request.param)
    model = Net().eval()
    with torch.no_grad():
        model.bn.running_mean.normal_()
        model.bn.running_var.uniform_(0.5, 2)
        model.bn.weight.uniform_(0.5, 1.5)
        model.bn.bias.normal_()
    return model


def values_of(scorer, network):
    """Layer -> (out, in) values."""
    flat = scorer.segments.split(scorer(network))
    return {name: part.view(network.get_submodule(name).weight.shape) for name, part in flat.items()}
