"""An optimiser's state and an average over the cut: closed forms, and the next step."""

from __future__ import annotations

import copy

import pytest
import torch
from conftest import NETWORKS
from torch import nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import snnprune
from snnprune.errors import ConfigError

X = torch.randn(12, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
Y = torch.arange(12) % 10


def made():
    torch.manual_seed(0)
    model = NETWORKS["digits_cnn"][0]().double().eval()
    gated = snnprune.attach(model, X[:2], switcher=None)
    generator = torch.Generator().manual_seed(1)
    scales = {}
    for g in gated.groups:
        if g.prunable:
            scales[g.id] = (torch.rand(g.size, generator=generator) > 0.3).double()
            scales[g.id][0] = 1
    return model, gated, scales


def step(network, optimizer):
    optimizer.zero_grad()
    F.cross_entropy(network(X), Y).backward()
    optimizer.step()


MAKE = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, weight_decay=0.01),
    "adam": lambda p: torch.optim.Adam(p, lr=1e-3, amsgrad=True),
    "adamw": lambda p: torch.optim.AdamW(p, lr=1e-3),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=1e-3, momentum=0.5, centered=True),
    "adagrad": lambda p: torch.optim.Adagrad(p, lr=1e-2),
    "adadelta": lambda p: torch.optim.Adadelta(p),
}


@pytest.mark.parametrize("kind", MAKE)
def test_the_next_step_is_that_of_the_masked_network(kind):
    """With scales of 0 and 1: the cut before or after the fourth step gives the same weights."""
    _, gated, scales = made()
    gated.set_scales(scales)
    optimizer = MAKE[kind](gated.network_parameters())
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 3, 0.5)
    for _ in range(3):
        step(gated, optimizer)
        schedule.step()
    before = copy.deepcopy(optimizer.state_dict())
    step(gated, optimizer)
    wanted = gated.compact()
    gated.detach()
    _, gated, _ = made()
    gated.set_scales(scales)
    optimizer = MAKE[kind](gated.network_parameters())
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 3, 0.5)
    for _ in range(3):
        step(gated, optimizer)
        schedule.step()
    small = gated.compact()
    gated.detach()
    assert gated.transfer(optimizer, small) is optimizer
    assert optimizer.param_groups[0]["lr"] == before["param_groups"][0]["lr"]
    step(small, optimizer)
    for (name, a), b in zip(small.named_parameters(), wanted.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12, msg=name)
    assert all(p.shape == s.shape for p in optimizer.state for s in optimizer.state[p].values() if s.numel() > 1)
    assert set(optimizer.state) == set(small.parameters())


@pytest.mark.parametrize(
    ("kind", "key"), [("sgd", "momentum_buffer"), ("adam", "exp_avg"), ("adam", "exp_avg_sq")]
)
def test_states_are_what_the_compact_model_gathers_itself(kind, key):
    """At a learning rate of nearly 0 weights stand still, and averages of gradients are those of the cut model."""
    _, gated, scales = made()
    generator = torch.Generator().manual_seed(2)
    gated.set_scales({n: s * (0.5 + torch.rand(len(s), generator=generator).double()) for n, s in scales.items()})
    small = gated.compact()
    own = copy.deepcopy(small)
    optimizers = [
        torch.optim.SGD(ps, lr=1e-300, momentum=0.9) if kind == "sgd" else torch.optim.Adam(ps, lr=1e-300)
        for ps in (gated.network_parameters(), own.parameters())
    ]
    for _ in range(2):
        step(gated, optimizers[0])
        step(own, optimizers[1])
    gated.transfer(optimizers[0], small)
    scaled = 0
    for p, q in zip(small.parameters(), own.parameters(), strict=True):
        torch.testing.assert_close(optimizers[0].state[p][key], optimizers[1].state[q][key], rtol=1e-9, atol=1e-14)
        scaled += float(optimizers[1].state[q][key].abs().sum()) > 0
    assert scaled > 4


@pytest.mark.parametrize("while_gated", [False, True])
def test_an_average_is_the_average_after_the_same_fold(while_gated):
    model, gated, scales = made()
    scales = {n: s * 0.7 for n, s in scales.items()}
    if not while_gated:
        gated.detach()
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.5), use_buffers=True)
    if not while_gated:
        gated = snnprune.attach(model, X[:2], switcher=None)
    first = copy.deepcopy(model.state_dict())
    gated.set_scales(scales)
    ends = [gated.compact()]
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p))
    ends.append(gated.compact())
    average.update_parameters(model)
    average.update_parameters(model)
    expected = copy.deepcopy(average.module.state_dict())
    found = gated.transfer(average, ends[1])
    assert isinstance(found, AveragedModel)
    assert int(found.n_averaged) == 2
    assert first.keys() == expected.keys()
    with torch.no_grad():
        for p, v in zip(model.parameters(), [expected[n] for n, _ in model.named_parameters()], strict=True):
            p.copy_(v)
    for (name, a), b in zip(found.module.named_parameters(), gated.compact().parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12, msg=name)
    assert all(
        torch.equal(a, b) for a, b in zip(average.module.state_dict().values(), expected.values(), strict=True)
    )
    found.update_parameters(ends[1])
    gated.detach()


def test_what_cannot_be_carried_over_is_refused():
    model, gated, scales = made()
    gated.set_scales(scales)
    small = gated.compact()
    optimizer = torch.optim.SGD(gated.network_parameters(), lr=0.1, momentum=0.9)
    step(gated, optimizer)
    with pytest.raises(ConfigError, match="small is no model that compact"):
        gated.transfer(optimizer, copy.deepcopy(small))
    with pytest.raises(ConfigError, match="takes an optimiser or an averaged model"):
        gated.transfer({}, small)
    with pytest.raises(ConfigError, match="average is none of this network"):
        gated.transfer(nn.Linear(2, 3), small)
    weight = model.get_submodule("features.0").weight
    optimizer.state[weight]["odd"] = torch.ones_like(weight)
    with pytest.raises(ConfigError, match=r"state 'odd' of features\.0\.weight, of shape"):
        gated.transfer(optimizer, small)
    assert optimizer.param_groups[0]["params"][0] is weight, "nothing has changed"
    gated.transfer(optimizer, small, powers={"odd": 0})
    new = small.get_submodule("features.0").weight
    assert optimizer.state[new]["odd"].shape == new.shape
    gated.detach()


def test_a_scorer_is_dropped():
    torch.manual_seed(0)
    model = NETWORKS["digits_cnn"][0]().double().eval()
    with snnprune.attach(model, X[:2]) as gated:
        optimizer = torch.optim.AdamW(
            [{"params": gated.network_parameters()}, {"params": gated.scorer_parameters()}], lr=1e-4
        )
        step(gated, optimizer)
        gated.set_budget({"macs": 0.5})
        small = gated.compact()
    gated.transfer(optimizer, small)
    assert [len(group["params"]) for group in optimizer.param_groups] == [len(list(small.parameters())), 0]
    assert set(optimizer.state) <= set(small.parameters())
    step(small, optimizer)
