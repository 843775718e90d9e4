"""MobileNetV1 with a width factor, for 32x32 images (first stride 1)."""

from torch import Tensor, nn
from torch.nn import functional as F

_LAYOUT = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *((512, 1),) * 5, (1024, 2), (1024, 1))


class MobileNetV1(nn.Module):
    """Depthwise-separable convolutions (Howard et al. 2017, table 1).

    `last` is the width of the last layer, hence of the classifier's input. The width factor scales it
    too (256 at x0.25), but arXiv 2110.05954 reports 1024 inputs for its x0.25 network.
    """

    def __init__(self, num_classes: int = 10, width: float = 1.0, last: int | None = None):
        super().__init__()
        channels = max(8, int(32 * width))
        layers: list[nn.Module] = [
            nn.Conv2d(3, channels, 3, 1, 1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
        ]
        for i, (planes, stride) in enumerate(_LAYOUT):
            out = max(8, int(planes * width))
            if last is not None and i == len(_LAYOUT) - 1:
                out = last
            layers += [
                nn.Conv2d(channels, channels, 3, stride, 1, groups=channels, bias=False),
                nn.BatchNorm2d(channels),
                nn.ReLU(inplace=True),
                nn.Conv2d(channels, out, 1, bias=False),
                nn.BatchNorm2d(out),
                nn.ReLU(inplace=True),
            ]
            channels = out
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.adaptive_avg_pool2d(self.features(x), 1)
        return self.classifier(x.flatten(1))


def mobilenet_v1(num_classes: int = 10) -> MobileNetV1:
    """The full width."""
    return MobileNetV1(num_classes)


def mobilenet_v1_025(num_classes: int = 10) -> MobileNetV1:
    """A quarter of the width, with the 1024 classifier inputs of arXiv 2110.05954."""
    return MobileNetV1(num_classes, width=0.25, last=1024)
