"""LeNet5-Caffe, 20-50-800-500: two 5x5 convolutions, then 800 flattened units and 500 neurons."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class LeNet5Caffe(nn.Module):
    """For 28x28 grey images."""

    def __init__(self, num_classes: int = 10):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 20, 5)
        self.conv2 = nn.Conv2d(20, 50, 5)
        self.fc1 = nn.Linear(800, 500)
        self.fc2 = nn.Linear(500, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        x = torch.flatten(x, 1)
        return self.fc2(F.relu(self.fc1(x)))


def lenet5_caffe(num_classes: int = 10) -> LeNet5Caffe:
    """The 431,080-parameter network of arXiv 2110.05954, table 1."""
    return LeNet5Caffe(num_classes)
