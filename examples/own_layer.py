"""Layers and an operation of your own: three rules, and they are pruned like PyTorch's."""

import copy
import sys

import torch
from torch import nn
from torch.nn import functional as F

import snnprune


class ChannelScale(nn.Module):
    """A factor per channel."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma, self.width = nn.Parameter(torch.ones(width)), width

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.gamma.view(1, self.width, 1, 1)


class PointConv(nn.Module):
    """A 1x1 convolution whose kernel is (in, out)."""

    def __init__(self, fan_in: int, fan_out: int) -> None:
        super().__init__()
        self.kernel, self.shift = nn.Parameter(torch.empty(fan_in, fan_out)), nn.Parameter(torch.zeros(fan_out))
        nn.init.kaiming_normal_(self.kernel, mode="fan_out")  # of (out, in), as PyTorch's kernels are
        self.fan_in, self.fan_out = fan_in, fan_out

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.einsum("bihw,io->bohw", x, self.kernel) + self.shift.view(1, -1, 1, 1)


@torch.library.custom_op("examples::soft_clip", mutates_args=())
def soft_clip(x: torch.Tensor) -> torch.Tensor:  # say, a kernel of your own in C++ or Triton
    return 6 * torch.tanh(x.clamp(min=0) / 6)


@soft_clip.register_fake
def _(x: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(x)


def _backward(ctx, grad):
    (x,) = ctx.saved_tensors
    return torch.where(x > 0, grad * (1 - torch.tanh(x / 6) ** 2), 0.0)


soft_clip.register_autograd(_backward, setup_context=lambda ctx, inputs, output: ctx.save_for_backward(*inputs))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.scale = nn.Conv2d(1, 32, 3, padding=1), ChannelScale(32)
        self.second, self.head = PointConv(32, 48), nn.Linear(4 * 48, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.max_pool2d(soft_clip(self.scale(self.first(x))), 2)
        return self.head(F.adaptive_avg_pool2d(soft_clip(self.second(x)), 2).flatten(1))


def register() -> None:
    snnprune.register_layer(ChannelScale, channels={"gamma": 0}, sizes=["width"])
    snnprune.register_layer(
        PointConv,
        inputs={"kernel": 0},  # scales are folded into what reads: it must be linear in them
        outputs={"kernel": 1, "shift": 0},
        sizes={"fan_in": "inputs", "fan_out": "outputs"},
        axis=1,  # channels are the second dimension of what comes in and goes out
    )
    snnprune.register_operation(soft_clip, "elementwise")


def main(data: str = "digits", epochs: float = 4, out: str = "runs/own-layer") -> snnprune.Result:
    register()
    torch.manual_seed(0)
    train, val, test = snnprune.load_data(data)
    model = Net()
    adam = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(6):  # or load your trained weights
        for images, labels in train:
            adam.zero_grad()
            F.cross_entropy(model(images), labels).backward()
            adam.step()

    for group in snnprune.trace(model, images[:2], input_neurons=False):
        print(group, group.rules)  # which of your rules it rests on
    config = snnprune.PruneConfig(target={"macs": 0.4}, epochs=epochs, input_neurons=False)
    result = snnprune.optimize(model, train, val, config, test=test)
    print(result.report)
    result.save(out, onnx=False)  # ONNX has no soft_clip; for a file give PyTorch's exporter a translation
    again = snnprune.load(out, model=copy.deepcopy(model))  # the same rules must be there
    assert torch.equal(again(images), result.model.eval()(images))
    return result


if __name__ == "__main__":
    main(*sys.argv[1:2])
