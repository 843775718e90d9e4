"""Residual networks for 32x32 images.

ResNet-18/34 are the ImageNet ones with a 3x3 stem and no first pooling. ResNet-20/32/44/56 are the
CIFAR networks of He et al. 2015, section 4.2, with option-A shortcuts: stride-2 slicing and
zero-padded channels. Their parameter names are those of the widely used public checkpoints.
"""

from torch import Tensor, nn
from torch.nn import functional as F


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with a projection shortcut where the shape changes."""

    def __init__(self, inputs: int, planes: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, planes, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != planes:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, planes, 1, stride, bias=False), nn.BatchNorm2d(planes))

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(out)) + self.shortcut(x))


class ResNet(nn.Module):
    """Four stages of basic blocks, `base` to `8 * base` channels."""

    def __init__(self, blocks: tuple[int, ...], num_classes: int = 10, base: int = 64):
        super().__init__()
        self.conv1 = nn.Conv2d(3, base, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(base)
        stages, width = [], base
        for i, count in enumerate(blocks):
            planes = base * 2**i
            stage = []
            for j in range(count):
                stage.append(BasicBlock(width, planes, 2 if i > 0 and j == 0 else 1))
                width = planes
            stages.append(nn.Sequential(*stage))
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.linear = nn.Linear(8 * base, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.linear(F.adaptive_avg_pool2d(x, 1).flatten(1))


class OptionABlock(nn.Module):
    """Two 3x3 convolutions; the shortcut drops every second pixel and pads channels with zeros."""

    def __init__(self, inputs: int, planes: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, planes, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.stride = stride
        self.pad = (planes - inputs) // 2

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        if self.pad:
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.pad, self.pad))
        return F.relu(out + x)


class CifarResNet(nn.Module):
    """Three stages of 16, 32 and 64 channels with `blocks` blocks each."""

    def __init__(self, blocks: int, num_classes: int = 10):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        stages, width = [], 16
        for planes in (16, 32, 64):
            stage = []
            for j in range(blocks):
                stage.append(OptionABlock(width, planes, 2 if planes > 16 and j == 0 else 1))
                width = planes
            stages.append(nn.Sequential(*stage))
        self.layer1, self.layer2, self.layer3 = stages
        self.linear = nn.Linear(64, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(F.adaptive_avg_pool2d(x, 1).flatten(1))


def resnet18(num_classes: int = 10) -> ResNet:
    """ResNet-18 for 32x32 images."""
    return ResNet((2, 2, 2, 2), num_classes)


def resnet34(num_classes: int = 10) -> ResNet:
    """ResNet-34 for 32x32 images."""
    return ResNet((3, 4, 6, 3), num_classes)


def resnet20(num_classes: int = 10) -> CifarResNet:
    """ResNet-20: 0.27 M parameters."""
    return CifarResNet(3, num_classes)


def resnet32(num_classes: int = 10) -> CifarResNet:
    """ResNet-32: 0.46 M parameters."""
    return CifarResNet(5, num_classes)


def resnet44(num_classes: int = 10) -> CifarResNet:
    """ResNet-44: 0.66 M parameters."""
    return CifarResNet(7, num_classes)


def resnet56(num_classes: int = 10) -> CifarResNet:
    """ResNet-56: 0.85 M parameters."""
    return CifarResNet(9, num_classes)
