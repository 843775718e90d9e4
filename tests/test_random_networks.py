"""Networks that draw random numbers in evaluation mode too are traced and proved under equal draws."""

from __future__ import annotations

import copy
import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, distributions, nn

import snnprune
from snnprune import streams
from snnprune.draws import Draws
from snnprune.graph import find_groups
from snnprune.proof import gated_difference, random_scales
from snnprune.surgery import fold_, remove_

X = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(1))
GENERATOR = torch.Generator().manual_seed(3)


def per_channel(x: Tensor) -> tuple[int, int, int, int]:
    return x.shape[0], x.shape[1], 1, 1


def shuffled_places(x: Tensor) -> Tensor:
    """Half of the places, in an order of chance, as masked autoencoders choose patches."""
    flat = x.flatten(2)
    order = torch.rand(flat.shape[0], flat.shape[2]).argsort(1)[:, :32]
    return flat.gather(2, order[:, None].expand(-1, flat.shape[1], -1)).unflatten(2, (4, 8))


def picked_places(x: Tensor) -> Tensor:
    places = torch.multinomial(torch.ones(x.shape[2]), x.shape[2])
    return x[:, :, places]


NOISE = {
    "dropout": lambda x: F.dropout(x, 0.5, True),
    "dropout2d": lambda x: F.dropout2d(x, 0.5, True),
    "dropout in place": lambda x: F.dropout(x.clone(), 0.5, True, inplace=True),
    "alpha dropout": lambda x: F.alpha_dropout(x, 0.3, True),
    "feature alpha dropout": lambda x: F.feature_alpha_dropout(x, 0.3, True),
    "native dropout": lambda x: torch.native_dropout(x, 0.5, True)[0],
    "channel mask": lambda x: x * x.new_empty(per_channel(x)).bernoulli_(0.5) / 0.5,
    "channel mask of a threshold": lambda x: x * (torch.rand(per_channel(x)) > 0.5).to(x.dtype) / 0.5,
    "channel mask as floor": lambda x: x * (0.5 + torch.rand(per_channel(x), dtype=x.dtype)).floor_(),
    "channel mask of chances": lambda x: x * torch.bernoulli(torch.full(per_channel(x), 0.5, dtype=x.dtype)),
    "mask of the features": lambda x: x * torch.bernoulli(x.mean((2, 3), keepdim=True).sigmoid()),
    "in-place mask of the features": lambda x: x * torch.empty_like(x).bernoulli_(x.sigmoid()),
    "one mask for all inputs": lambda x: x * torch.rand(x.shape[1], dtype=x.dtype)[:, None, None],
    "stochastic depth": lambda x: x + x * x.new_empty(len(x), 1, 1, 1).bernoulli_(0.5),
    "noise like": lambda x: x + torch.randn_like(x),
    "noise of a shape": lambda x: x + torch.randn(x.shape, dtype=x.dtype),
    "noise of a generator": lambda x: x + torch.randn(x.shape, dtype=x.dtype, generator=GENERATOR),
    "uniform noise": lambda x: x + torch.empty_like(x).uniform_(-1, 1),
    "exponential noise": lambda x: x + torch.empty_like(x).exponential_(),
    "log-normal noise": lambda x: x * torch.empty_like(x).log_normal_(),
    "cauchy noise": lambda x: x + torch.empty_like(x).cauchy_().tanh(),
    "geometric noise": lambda x: x * torch.empty_like(x).geometric_(0.5),
    "random signs": lambda x: x * (torch.randint(0, 2, per_channel(x)) * 2 - 1),
    "random signs like": lambda x: x * (torch.randint_like(x, 0, 2) * 2 - 1),
    "normal of a mean": lambda x: torch.normal(x, 0.5),
    "normal of both": lambda x: torch.normal(x, x.abs()),
    "reparametrised": lambda x: distributions.Normal(x, x.abs() + 0.1).rsample(),
    "bernoulli distribution": lambda x: x * distributions.Bernoulli(probs=x.sigmoid()).sample(),
    "gumbel softmax": lambda x: x * F.gumbel_softmax(x.flatten(2), dim=2).view_as(x),
    "shuffled places": shuffled_places,
    "picked places": picked_places,
    "python": lambda x: x * random.random(),
    "numpy": lambda x: x * float(np.random.rand()),  # noqa: NPY002
}


class Noisy(nn.Module):
    def __init__(self, noise, width: int = 12) -> None:
        super().__init__()
        self.a, self.b, self.f = nn.Conv2d(3, width, 3, padding=1), nn.Conv2d(width, 8, 3), nn.Linear(8, 5)
        self.noise = noise

    def forward(self, x: Tensor) -> Tensor:
        x = self.noise(F.relu(self.a(x)))
        return self.f(F.relu(self.b(F.dropout(x, 0.1, True))).mean((2, 3)))


def network(noise, seed: int = 0) -> Noisy:
    torch.manual_seed(seed)
    return Noisy(noise).eval()


@pytest.mark.parametrize("name", NOISE)
def test_noise_prunes_like_none(name):
    model = network(NOISE[name])
    before = streams.rng_state()
    groups = snnprune.trace(model, X)
    after = streams.rng_state()
    assert torch.equal(before["cpu"], after["cpu"]), "the caller's streams are where they were"
    assert before["python"] == after["python"]
    assert torch.equal(before["numpy"][0], after["numpy"][0])
    assert {g.id: g.size for g in groups if g.prunable} == {"a": 12, "b": 8}
    scales = random_scales(groups, torch.Generator().manual_seed(2))
    for seed in range(2):
        found = difference(model.double(), groups, scales, seed)
        assert found < 1e-12


def difference(model, groups, scales, seed: int = 0) -> float:
    removed = remove_(fold_(copy.deepcopy(model), groups, scales), groups, scales)
    return gated_difference(model, removed, groups, scales, X.double(), seed=seed).relative


def test_noise_of_a_size_in_the_code_keeps_its_group():
    groups = {g.id: g for g in snnprune.trace(network(lambda x: x + torch.randn(1, 12, 1, 1)), X)}
    assert not groups["a"].prunable
    assert "the model fails without its neurons" in str(groups["a"].reason)
    assert groups["b"].prunable


def test_noise_mixed_across_channels_keeps_its_group():
    groups = {g.id: g for g in snnprune.trace(network(lambda x: x + torch.randn_like(x).softmax(1)), X)}
    assert (groups["a"].prunable, groups["b"].prunable) == (False, True)


@pytest.mark.parametrize("name", ["dropout2d", "noise of a shape", "channel mask"])
def test_the_proof_of_a_random_network_sees_a_wrong_removal(name):
    model = network(NOISE[name]).double()
    groups = [g for g in find_groups(model, X.double()) if g.id == "a"]
    scales = random_scales(groups, torch.Generator().manual_seed(2))
    wrong = {"a": scales["a"].roll(1)}  # the neurons beside those that are off are removed
    removed = remove_(fold_(copy.deepcopy(model), groups, wrong), groups, wrong)
    assert gated_difference(model, removed, groups, scales, X.double()).relative > 1e-3


class Latent(nn.Module):
    """A variational autoencoder that samples in evaluation mode too."""

    def __init__(self) -> None:
        super().__init__()
        self.encode = nn.Sequential(nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 8))
        self.decode = nn.Sequential(nn.Linear(4, 12), nn.ReLU(), nn.Linear(12, 16))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mean, spread = self.encode(x).chunk(2, 1)
        return self.decode(mean + torch.randn_like(mean) * (0.5 * spread).exp()), mean, spread


def test_a_variational_autoencoder_is_compacted():
    torch.manual_seed(0)
    x = torch.randn(4, 16)
    groups = {g.id: g.size for g in snnprune.trace(Latent(), x) if g.prunable}
    assert groups == {"encode.0:in": 16, "encode.0": 12, "decode.0:in": 4, "decode.0": 12}


def test_draws_agree_where_the_widths_do_and_hold_one_value_elsewhere():
    def form(width: int):
        def run() -> list[Tensor]:
            mask = torch.empty(2, width, 5).bernoulli_(0.5)
            noise = torch.randn(2, width, 5)
            return [mask, noise, torch.bernoulli(torch.full((2, width, 5), 0.5)), torch.rand(7), torch.randperm(9)]

        return run

    wide, narrow = Draws(1).both(form(6), form(4))
    for left, right in zip(wide[:3], narrow[:3], strict=True):
        assert torch.equal(left[:, :4], right)
        assert torch.equal(left, left[:, :1].expand_as(left)), "one value for all channels"
        assert len(left[:, 0].unique()) > 1, "but one for every input and place"
    assert torch.equal(wide[3], narrow[3])
    assert torch.equal(wide[4], narrow[4])
    same, again = Draws(1).both(form(6), form(6))
    assert all(torch.equal(a, b) for a, b in zip(same, again, strict=True))
    assert not torch.equal(same[1][:, 0], same[1][:, 1]), "channels differ where nothing is removed"
    other = Draws(2).run(form(6))
    assert not torch.equal(same[1], other[1]), "the seed counts"


@pytest.mark.parametrize("inputs", [1, 4])
def test_a_mask_of_few_elements_neither_keeps_nor_drops_all(inputs):
    """In one comparison of several inputs, and in the four of one input."""
    masks = {
        "bernoulli": lambda: torch.bernoulli(torch.full((inputs, 1), 0.5)),
        "in place": lambda: torch.empty(inputs, 1).bernoulli_(),
        "threshold": lambda: (torch.rand(inputs, 1) < 0.5).float(),
        "uniform": lambda: (torch.empty(inputs, 1).uniform_(-2, 2) < 0).float(),
        "native": lambda: torch.native_dropout(torch.ones(inputs, 1), 0.5, True)[1].float(),
    }
    for name, mask in masks.items():
        found = [Draws(seed).run(mask) for seed in range(4)]
        means = [float(m.mean()) for m in found] if inputs > 1 else [float(torch.cat(found).mean())]
        assert all(0 < mean < 1 for mean in means), name
        assert inputs == 1 or means == [0.5] * 4, name
