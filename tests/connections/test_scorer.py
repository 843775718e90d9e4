"""Values of single connections: what they start from, what they follow, and sensitivities that inform them."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from connections.conftest import HARD, X, values_of
from snnprune.switching.connections import ConnectionScorer, measure_connections, switched_layers


def test_the_post_training_start_orders_by_magnitude_and_scales_little(net):
    with torch.no_grad():
        values = values_of(ConnectionScorer(net, ["fc1", "fc2"], scores="switcher"), net)
    for name, u in values.items():
        weight = net.get_submodule(name).weight
        assert torch.equal(u.flatten().argsort(), weight.abs().flatten().argsort())
        assert 0.9 < float(u.mean()) < 1.1
    assert torch.cat([u.flatten() for u in values.values()]).std() == pytest.approx(0.05, rel=0.05)


@pytest.mark.parametrize("start", ["post-training", "fresh"])
def test_values_follow_the_neurons_when_they_change_places(net, start):
    scorer = ConnectionScorer(net, ["fc1", "fc2"], scores="switcher", start=start)
    with torch.no_grad():
        for parameter in scorer.parameters():
            parameter.normal_(std=0.3)  # so that the switcher has a say
        before = values_of(scorer, net)
        order, columns = torch.randperm(12), torch.randperm(16)
        net.fc1.weight.copy_(net.fc1.weight[order][:, columns])
        after = values_of(scorer, net)
    assert float(before["fc1"].std()) > 0.01
    torch.testing.assert_close(after["fc1"], before["fc1"][order][:, columns], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(after["fc2"], before["fc2"])


def test_a_fresh_start_switches_about_half_off(net):
    with torch.no_grad():
        values = values_of(ConnectionScorer(net, switched_layers(net), scores="switcher", start="fresh"), net)
    for u in values.values():
        assert float(u.mean()) == pytest.approx(0.1, abs=1e-4)
        assert float(u.std(correction=0)) == pytest.approx(2**0.5, abs=1e-4)
        assert 0.3 < float((u <= 0).float().mean()) < 0.7


@pytest.mark.parametrize("seed", range(12))
def test_a_fresh_start_does_not_take_sides(seed):
    """Were weights kept by their sign, a layer with inputs >= 0 would be all positive, or dead."""
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(200, 100), nn.ReLU(), nn.Linear(100, 5))
    scorer = ConnectionScorer(net, ["0", "2"], scores="switcher", start="fresh", seed=seed)
    values = values_of(scorer, net)
    scales = values["0"].detach().relu()
    x = torch.rand(64, 200)
    positive = (F.linear(x, net[0].weight * scales) > 0).float()
    assert 0.35 < float(positive.mean()) < 0.65
    assert float(positive.amax(0).mean()) > 0.5, "neurons that some input reaches"
    signs = net[0].weight.detach().sign()
    assert abs(float(torch.corrcoef(torch.stack([scales.flatten(), signs.flatten()]))[0, 1])) < 0.05
    assert float(scorer.path[0].detach()) > 0, "large weights are preferred"
    values["0"].square().sum().backward()
    assert float(scorer.path.grad[1].abs()) > 0, "the sign can be learned"
    assert float(scorer.switcher.head.weight.grad[1].abs().sum()) > 0


def test_free_scores_start_where_the_switcher_does(net):
    names = switched_layers(net)
    with torch.no_grad():
        known = values_of(ConnectionScorer(net, names, scores="switcher+offset"), net)
        free = ConnectionScorer(net, names, scores="free")
        for name, value in values_of(free, net).items():
            torch.testing.assert_close(value, known[name])
    assert not free.switcher_parameters()


def test_the_switcher_reads_weights_with_a_gradient(net):
    scorer = ConnectionScorer(net, ["fc1"], scores="switcher", start="fresh")
    scorer(net).square().sum().backward()
    assert float(net.fc1.weight.grad.abs().sum()) > 0
    assert all(float(p.grad.abs().sum()) > 0 for p in scorer.switcher_parameters() if p.numel() > 1)


def test_sensitivities_are_those_of_single_inputs(net):
    net = net.double()
    x, y = X.double(), torch.randint(5, (6,), generator=torch.Generator().manual_seed(1))
    found = measure_connections(net, ["fc1", "out"], [(x[:4], y[:4]), (x[4:], y[4:])], HARD)
    for name, values in found.items():
        weight = net.get_submodule(name).weight
        wanted = torch.zeros_like(weight)
        for i in range(6):
            (gradient,) = torch.autograd.grad(F.cross_entropy(net(x[i : i + 1]), y[i : i + 1]), weight)
            wanted += (gradient * weight.detach()).square() / 6
        torch.testing.assert_close(values.double(), wanted, rtol=1e-4, atol=1e-12)
    assert all(p.grad is None for p in net.parameters())


def test_a_weight_that_is_used_without_its_layer_is_judged_by_its_magnitude(net):
    class Inside(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.last = nn.Linear(8, 6), nn.Linear(6, 3)

        def forward(self, x):
            return self.last(F.relu(F.linear(x, self.used.weight, self.used.bias)))

    torch.manual_seed(0)
    model = Inside().eval()
    found = measure_connections(model, ["used", "last"], [(torch.rand(4, 8), torch.tensor([0, 1, 2, 0]))], HARD)
    assert set(found) == {"last"}
    with torch.no_grad():
        informed = values_of(ConnectionScorer(model, ["used", "last"], scores="switcher", importance=found), model)
        plain = values_of(ConnectionScorer(model, ["used", "last"], scores="switcher"), model)
    assert torch.equal(informed["used"], plain["used"])
    assert not torch.equal(informed["last"], plain["last"])
