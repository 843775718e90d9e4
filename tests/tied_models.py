"""Networks in which layers or names hold one parameter together."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from snnprune.proof import randomize_norms_


def share(here: nn.Module, there: nn.Module) -> None:
    for p, q in zip(here.modules(), there.modules(), strict=True):
        if isinstance(p, nn.Linear):
            q.weight, q.bias = p.weight, p.bias


def three(a: int, b: int, c: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(a, b), nn.ReLU(), nn.Linear(b, b), nn.ReLU(), nn.Linear(b, c))


class Heads(nn.Module):
    """Two heads that hold the same parameters; `second` says whether the other one is called."""

    def __init__(self, second: bool) -> None:
        super().__init__()
        self.stem, self.a, self.b = nn.Linear(6, 8), three(8, 40, 4), three(8, 40, 4)
        share(self.a, self.b)
        self.second = second

    def forward(self, x):
        x = torch.relu(self.stem(x))
        return (self.a(x), self.b(2 * x)) if self.second else self.a(x)


class Chain(nn.Module):
    """One square weight twice in a row: its columns are pixels and neurons at once."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.f = nn.Linear(24, 24), nn.Linear(24, 24), nn.Linear(24, 5)
        self.b.weight = self.a.weight

    def forward(self, x):
        return self.f(torch.relu(self.b(torch.relu(self.a(x)))))


class Twice(nn.Module):
    """One layer under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(30, 24)
        self.net = nn.Sequential(nn.Flatten(), self.fc, nn.ReLU(), nn.Linear(24, 4))

    def forward(self, x):
        return self.net(x)


class Named(nn.Module):
    """A layer's weight under a further name of the model, used by that name or not."""

    def __init__(self, used: bool) -> None:
        super().__init__()
        self.fc1 = nn.Linear(8, 32)
        self.w, self.used = self.fc1.weight, used
        self.fc2, self.o = nn.Linear(32, 16), nn.Linear(16, 3)

    def forward(self, x):
        return self.o(torch.relu(self.fc2(torch.relu(F.linear(x, self.w) if self.used else self.fc1(x)))))


class Convs(nn.Module):
    """One kernel for two convolutions with norms of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.i, self.o = nn.Conv2d(3, 12, 3, padding=1), nn.Conv2d(12, 4, 1)
        self.a, self.b = (nn.Conv2d(12, 12, 3, padding=1) for _ in range(2))
        self.b.weight = self.a.weight
        self.n, self.m = nn.BatchNorm2d(12), nn.BatchNorm2d(12)

    def forward(self, x):
        x = torch.relu(self.n(self.a(torch.relu(self.i(x)))))
        return self.o(torch.relu(self.m(self.b(x))))


class Norms(nn.Module):
    """Two branches whose norms share weight and bias."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.o, self.p = (nn.Conv2d(*io, 1) for io in ((3, 12), (3, 12), (12, 4), (12, 4)))
        self.n, self.m = nn.BatchNorm2d(12), nn.BatchNorm2d(12)
        self.m.weight, self.m.bias = self.n.weight, self.n.bias

    def forward(self, x):
        return self.o(torch.relu(self.n(self.a(x)))) + self.p(torch.relu(self.m(self.b(x))))


class Depthwise(nn.Module):
    """One depthwise kernel for two branches."""

    def __init__(self) -> None:
        super().__init__()
        self.i, self.j, self.o = nn.Conv2d(3, 12, 1), nn.Conv2d(3, 12, 1), nn.Conv2d(24, 4, 1)
        self.a, self.b = (nn.Conv2d(12, 12, 3, groups=12) for _ in range(2))
        self.b.weight = self.a.weight

    def forward(self, x):
        return self.o(torch.cat([torch.relu(self.a(self.i(x))), torch.relu(self.b(self.j(x)))], 1))


class Words(nn.Module):
    """An embedding that is the output layer's weight too."""

    def __init__(self) -> None:
        super().__init__()
        self.e, self.f, self.g = nn.Embedding(20, 16), nn.Linear(16, 32), nn.Linear(32, 16)
        self.h = nn.Linear(16, 20, bias=False)
        self.h.weight = self.e.weight

    def forward(self, x):
        return self.h(torch.relu(self.g(torch.relu(self.f(self.e(x))))))


class Biases(nn.Module):
    """Two layers that share a bias alone."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.o, self.p = (nn.Linear(*io) for io in ((8, 12), (8, 12), (12, 3), (12, 3)))
        self.b.bias = self.a.bias

    def forward(self, x):
        return self.o(torch.relu(self.a(x))) + self.p(torch.relu(self.b(x)))


MODELS = {
    "both called": (lambda: Heads(True), (4, 6)),
    "one called": (lambda: Heads(False), (4, 6)),
    "chain": (Chain, (4, 24)),
    "twice": (Twice, (4, 30)),
    "named": (lambda: Named(False), (4, 8)),
    "used by name": (lambda: Named(True), (4, 8)),
    "convolutions": (Convs, (2, 3, 6, 6)),
    "norms": (Norms, (2, 3, 6, 6)),
    "depthwise": (Depthwise, (2, 3, 6, 6)),
    "embedding": (Words, None),
    "biases": (Biases, (4, 8)),
}


def made(name: str) -> tuple[nn.Module, torch.Tensor]:
    factory, shape = MODELS[name]
    torch.manual_seed(0)
    model = randomize_norms_(factory().double().eval(), torch.Generator().manual_seed(1))
    return model, torch.randint(0, 20, (2, 5)) if shape is None else torch.randn(shape).double()
