"""A network in float32 as a file, with data that it classifies as it should, for the tests of int8."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

import snnprune
from snnprune.runtime import open_session


class Small(nn.Module):
    """A convolution, a depthwise one, a residual addition, a gate and two products."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.d = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.b, self.fc, self.out = nn.Conv2d(8, 8, 1), nn.Linear(8, 16), nn.Linear(16, 5)

    def forward(self, x):
        y = torch.relu(self.a(x))
        y = y + self.b(torch.relu(self.d(y)))
        y = (y * torch.sigmoid(y)).mean((2, 3))
        return self.out(torch.relu(self.fc(y)))


def labelled(path: Path, inputs: Tensor, size: int = 16) -> list[tuple[Tensor, Tensor]]:
    """Batches whose labels are what the file says, so that its own accuracy is 1."""
    session = open_session(path)
    name = session.get_inputs()[0].name
    logits = session.run(None, {name: inputs.numpy()})[0]
    return list(zip(inputs.split(size), torch.from_numpy(logits.argmax(1)).split(size), strict=True))


def full_file(path: Path) -> tuple[Path, list, list]:
    """A file in float32, data to calibrate with and data to decide."""
    torch.manual_seed(3)
    model, x = Small(), torch.randn(112, 3, 8, 8)
    with torch.no_grad():
        model.out.bias -= model(x).mean(0)  # so that it is the inputs that decide on the class
    told = {"snnprune.classes": list("abcde"), "snnprune.accuracy": {"split": "test", "value": 1.0}}
    snnprune.export_onnx(model, path, x[:4], metadata=told)
    data = labelled(path, x)
    return path, data[:4], data[4:]
