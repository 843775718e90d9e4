"""Integers in attributes follow what they count."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import snnprune
from own_numbers.conftest import Around, cut

X = torch.randn(2, 3, 8, 8)


class Fusion(nn.Module):
    """The split of YOLO's C2f, whose halves go through further blocks and are joined again."""

    def __init__(self, width: int = 24, blocks: int = 2) -> None:
        super().__init__()
        self.c = width // 2
        self.into = nn.Conv2d(width, 2 * self.c, 1)
        self.blocks = nn.ModuleList(nn.Conv2d(self.c, self.c, 3, padding=1) for _ in range(blocks))
        self.out = nn.Conv2d((2 + blocks) * self.c, width, 1)

    def forward(self, x):
        found = list(self.into(x).split((self.c, self.c), 1))
        found.extend(torch.relu(block(found[-1])) for block in self.blocks)
        return self.out(torch.cat(found, 1))


def test_equal_halves_follow_one_attribute(tmp_path):
    groups, small = cut(lambda: Around(Fusion(), 24), tmp_path, 2, 3, 8, 8)
    assert groups["middle.into"].size == 12
    assert small.middle.c == 8
    assert small.middle.into.out_channels == 16
    assert type(small.middle) is Fusion


class Partial(nn.Module):
    """A convolution over some of the channels (FasterNet): two attributes count the parts."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.dim_conv, self.dim_rest = width // 4, width - width // 4
        self.conv = nn.Conv2d(self.dim_conv, self.dim_conv, 3, padding=1)

    def forward(self, x):
        one, rest = torch.split(x, [self.dim_conv, self.dim_rest], dim=1)
        return torch.cat((self.conv(one), rest), 1)


class Halves(Partial):
    """The same with two attributes of one value."""

    def __init__(self, width: int = 24) -> None:
        super().__init__(width)
        self.dim_conv = self.dim_rest = width // 2
        self.conv = nn.Conv2d(self.dim_conv, self.dim_conv, 3, padding=1)


@pytest.mark.parametrize("kind", [Partial, Halves])
def test_parts_follow_attributes_of_their_own(kind, tmp_path):
    groups, small = cut(lambda: Around(kind(), 24), tmp_path, 2, 3, 8, 8, seed=3)
    assert groups["first"].prunable
    middle = small.middle
    assert middle.dim_conv + middle.dim_rest == small.first.out_channels < 24
    assert middle.dim_conv == middle.conv.in_channels
    groups_of_first = [m for m in groups["first"].members if m.role == "size"]
    assert {m.place: m.width for m in groups_of_first} == {
        "dim_conv": kind().dim_conv,
        "dim_rest": kind().dim_rest,
    }
    assert type(middle) is kind


def decoder(unflatten: nn.Module) -> nn.Module:
    return nn.Sequential(
        nn.Linear(6, 12 * 9), nn.ReLU(), unflatten, nn.ConvTranspose2d(12, 8, 2, 2), nn.ReLU(), nn.Conv2d(8, 2, 1)
    )


class View(nn.Module):
    def __init__(self, shape) -> None:
        super().__init__()
        self.shape = shape

    def forward(self, x):
        return x.view(-1, *self.shape)


class Described(nn.Module):
    """Sizes in a plain object, a dict, a list: wherever."""

    def __init__(self, config, read) -> None:
        super().__init__()
        self.config, self.read = config, read

    def forward(self, x):
        return x.reshape((x.size(0), self.read(self.config), 3, 3))


@dataclass(frozen=True)
class Config:
    width: int = 12
    depth: int = 12


def by_name(config):
    return config.width


def by_key(config):
    return config["decoder"]["widths"][1]


@pytest.mark.parametrize(
    ("made", "path", "read"),
    [
        (lambda: nn.Unflatten(1, (12, 3, 3)), "unflattened_size.0", lambda m: m.unflattened_size[0]),
        (lambda: nn.Unflatten(1, torch.Size([12, 3, 3])), "unflattened_size.0", lambda m: m.unflattened_size[0]),
        (lambda: View((12, 3, 3)), "shape.0", lambda m: m.shape[0]),
        (lambda: View([12, 3, 3]), "shape.0", lambda m: m.shape[0]),
        (lambda: Described(Config(), by_name), "config.width", lambda m: m.config.width),
        (
            lambda: Described(SimpleNamespace(width=12, depth=12), by_name),
            "config.width",
            lambda m: m.config.width,
        ),
        (
            lambda: Described({"decoder": {"widths": [7, 12]}, "depth": 12}, by_key),
            "config.decoder.widths.1",
            lambda m: by_key(m.config),
        ),
    ],
)
def test_decoders_follow_wherever_their_sizes_stand(made, path, read, tmp_path):
    groups, small = cut(lambda: decoder(made()), tmp_path, 2, 6)
    assert groups["0"].size == 12
    assert read(small[2]) == 8
    numbers = [m for m in groups["0"].members if m.role == "size"]
    assert [(m.module, m.place, m.width) for m in numbers] == [("2", path, 12)]
    config = getattr(small[2], "config", None)
    if config is not None:
        depth = config["depth"] if isinstance(config, dict) else config.depth
        assert depth == 12  # of the same value, but it counts nothing


class Both(nn.Module):
    """Two decoders with one description."""

    def __init__(self) -> None:
        super().__init__()
        config = SimpleNamespace(width=12)
        self.a, self.b = (decoder(Described(config, by_name)) for _ in range(2))

    def forward(self, x):
        return self.a(x) + self.b(x.flip(1))


def test_a_config_that_modules_share_is_no_longer_shared_where_they_differ(tmp_path):
    _, small = cut(Both, tmp_path, 2, 6)
    assert small.a[2].config.width == small.a[3].in_channels == 8
    model = Both()
    x = torch.randn(2, 6)
    with snnprune.attach(model, x, switcher=None) as gated:
        gated.set_scales({"a.0": torch.arange(12.0)})
        part = gated.compact()
    assert (part.a[2].config.width, part.b[2].config.width) == (11, 12)
    assert model.a[2].config.width == 12


class Expressions(nn.Module):
    """Sizes that are computed from attributes, and asserted."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.side, self.both = 10, 2, 20
        self.up = nn.Conv2d(16, 2 * self.hidden, 1)
        self.down = nn.Linear(self.hidden * self.side**2, 16)

    def forward(self, x):
        y = self.up(x)
        if y.shape[1] != self.both or y.shape[1] != 2 * self.hidden:
            raise ValueError("the wrong width")
        one, two = y[:, : y.shape[1] // 2], y[:, y.shape[1] // 2 :]
        y = F.adaptive_avg_pool2d(one * torch.sigmoid(two), self.side)
        assert y.shape[1:] == (self.hidden, self.side, self.side)
        return self.down(y.view(-1, self.hidden * self.side * self.side))[..., None, None]


def test_expressions_and_assertions_follow(tmp_path):
    groups, small = cut(lambda: Around(Expressions(), 16), tmp_path, 2, 3, 8, 8)
    assert groups["middle.up"].prunable
    middle = small.middle
    assert middle.both == 2 * middle.hidden == middle.up.out_channels < 20
    assert middle.side == 2


class Twice(nn.Module):
    """One attribute sizes two layers that have nothing to do with each other."""

    def __init__(self) -> None:
        super().__init__()
        self.c = 12
        self.a, self.b = nn.Linear(6, 12 * 4), nn.Linear(6, 12 * 4)
        self.d, self.e = nn.Conv2d(12, 3, 1), nn.Conv2d(12, 3, 1)

    def forward(self, x):
        a, b = self.a(x).view(-1, self.c, 2, 2), self.b(x).view(-1, self.c, 2, 2)
        return self.d(torch.relu(a)) + self.e(torch.tanh(b))


class Computed(nn.Module):
    """An attribute that is a width and a divisor."""

    def __init__(self) -> None:
        super().__init__()
        self.c = 12
        self.a, self.d = nn.Linear(6, 12 * 4), nn.Conv2d(12, 3, 1)

    def forward(self, x):
        return self.d(torch.relu(taken_apart(self.a(x), self.c))) / self.c


def taken_apart(x, width):
    """Code of no module, which cannot ask one for its size."""
    return x.view(-1, width, 2, 2)


@pytest.mark.parametrize(
    ("kind", "group", "why"),
    [
        (Twice, "a", "the attribute 'c' counts its channels, and others as well"),
        (Twice, "b", "the attribute 'c' counts its channels, and others as well"),
        (Computed, "a", "the attribute 'c' counts them, and is computed with too"),
    ],
)
def test_attributes_that_cannot_follow_are_named(kind, group, why):
    model = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), kind())
    groups = {g.id: g for g in snnprune.trace(model, torch.randn(2, 6))}
    assert groups["0"].prunable
    found = groups[f"2.{group}"]
    assert not found.prunable
    assert str(found.reason).replace(" of 2", "") == why
