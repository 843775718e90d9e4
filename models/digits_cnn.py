"""A small convolutional network for scikit-learn's 8x8 handwritten digits."""

from torch import Tensor, nn


class DigitsCNN(nn.Module):
    """Two convolutions with batch norm, one hidden layer: 54,362 parameters."""

    def __init__(self, num_classes: int = 10):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 24, 3, padding=1, bias=False),
            nn.BatchNorm2d(24),
            nn.ReLU(inplace=True),
            nn.Conv2d(24, 48, 3, padding=1, bias=False),
            nn.BatchNorm2d(48),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
        )
        self.hidden = nn.Sequential(nn.Linear(48 * 4 * 4, 56), nn.ReLU(inplace=True))
        self.classifier = nn.Linear(56, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.hidden(self.features(x).flatten(1)))


def digits_cnn(num_classes: int = 10) -> DigitsCNN:
    """For 1x8x8 images."""
    return DigitsCNN(num_classes)
