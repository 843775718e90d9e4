"""The multilayer perceptron of the papers: 784-300-100."""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn


class MLP(nn.Module):
    """Fully connected layers with ReLU between them; the input is flattened."""

    def __init__(self, sizes: Sequence[int] = (784, 300, 100), num_classes: int = 10):
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(sizes):
            layers += [nn.Linear(inputs, outputs), nn.ReLU(inplace=True)]
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(sizes[-1], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x.flatten(1)))


def mlp(num_classes: int = 10) -> MLP:
    """784-300-100 for 28x28 grey images."""
    return MLP((784, 300, 100), num_classes)
