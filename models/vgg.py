"""VGG-cov2 (two convolutions, three FC layers) and VGG16 for 32x32 images."""

from torch import Tensor, nn

_VGG16 = (64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512, "M")


class VGGCov2(nn.Module):
    """64-64-16384-256-256: one pooling after two convolutions, then 16384 flattened units."""

    def __init__(self, num_classes: int = 10, in_channels: int = 3):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(in_channels, 64, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(64, 64, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
        )
        self.classifier = nn.Sequential(
            nn.Linear(64 * 16 * 16, 256),
            nn.ReLU(inplace=True),
            nn.Linear(256, 256),
            nn.ReLU(inplace=True),
            nn.Linear(256, num_classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x).flatten(1))


class VGG16(nn.Module):
    """Thirteen convolutions with batch norm, then FC 512-4096-4096."""

    def __init__(self, num_classes: int = 10, in_channels: int = 3, hidden: int = 4096):
        super().__init__()
        layers: list[nn.Module] = []
        width = in_channels
        for item in _VGG16:
            if item == "M":
                layers.append(nn.MaxPool2d(2))
                continue
            layers += [
                nn.Conv2d(width, int(item), 3, padding=1, bias=False),
                nn.BatchNorm2d(int(item)),
                nn.ReLU(inplace=True),
            ]
            width = int(item)
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(
            nn.Linear(512, hidden),
            nn.ReLU(inplace=True),
            nn.Dropout(0.5),
            nn.Linear(hidden, hidden),
            nn.ReLU(inplace=True),
            nn.Dropout(0.5),
            nn.Linear(hidden, num_classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x).flatten(1))


def vgg_cov2(num_classes: int = 10) -> VGGCov2:
    """The small VGG of arXiv 2110.05954."""
    return VGGCov2(num_classes)


def vgg16(num_classes: int = 10) -> VGG16:
    """VGG16 with FC 512-4096-4096, as arXiv 2110.05954 uses it on CIFAR-10."""
    return VGG16(num_classes)
