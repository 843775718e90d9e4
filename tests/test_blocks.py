"""Gated models and threads: calls work or are refused, and weights are what they were, whatever happens."""

from __future__ import annotations

import copy
import threading
from concurrent.futures import ThreadPoolExecutor, wait

import pytest
import torch
from torch import nn

import snnprune
from snnprune.errors import AttachError
from snnprune.switching.blocks import Blocks
from snnprune.switching.connections import ConnectionModel, ConnectionScorer, switched_layers

TWICE = "two threads at once"


class Waits(nn.Module):
    """Stops in the middle of the model, where it is told to, until it may go on."""

    def __init__(self) -> None:
        super().__init__()
        self.waits, self.inside, self.go, self.fails = False, threading.Event(), threading.Event(), False

    def __deepcopy__(self, memo):
        self.copied()
        return Waits()

    def copied(self):
        """What happens in the middle of a copy."""

    def forward(self, x):
        if self.waits:
            self.waits = False
            self.inside.set()
            assert self.go.wait(30)
            if self.fails:
                raise OSError("in the middle")
        return x


class Net(nn.Module):
    """Maps larger than weights, so that weights are scaled, around a place to stop at."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.stop = nn.Conv2d(3, 8, 3, padding=1), Waits()
        self.second, self.head = nn.Conv2d(8, 6, 3, padding=1), nn.Linear(6, 4)

    def forward(self, x):
        return self.head(torch.relu(self.second(self.stop(torch.relu(self.first(x))))).mean((2, 3)))


class Flat(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.stop, self.head = nn.Linear(12, 9), Waits(), nn.Linear(9, 4)

    def forward(self, x):
        return self.head(self.stop(torch.relu(self.first(x.flatten(1)))))


def gated_neurons():
    torch.manual_seed(0)
    model, x = Net().double().eval(), torch.randn(5, 3, 8, 8, dtype=torch.float64)
    gated = snnprune.attach(model, x)
    gated.set_budget({"params": 0.5})
    return gated, model, x


def gated_connections():
    torch.manual_seed(0)
    model, x = Flat().double().eval(), torch.randn(5, 12, dtype=torch.float64)
    names = switched_layers(model)
    gated = ConnectionModel(model, snnprune.trace(model, x), names, scorer=ConnectionScorer(model, names))
    gated.set_budget({"params": 0.6})
    return gated, model, x


@pytest.fixture(params=[gated_neurons, gated_connections], ids=["neurons", "connections"])
def case(request):
    gated, model, x = request.param()
    own = {name: (p, p.detach().clone()) for name, p in model.named_parameters()}
    yield gated, model, x
    gated.detach()
    assert {name: id(p) for name, p in model.named_parameters()} == {name: id(p) for name, (p, _) in own.items()}
    assert all(torch.equal(p, value) for p, value in own.values())
    assert all("forward" not in module.__dict__ for module in model.modules())


def in_thread(work):
    """Run it in another thread; what it returns or raises comes here."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work).result(60)


def stopped(model, call, fails=False):
    """A thread that is in the middle of a call; and what to do with its end."""
    stop = model.stop
    stop.inside.clear()
    stop.go.clear()
    stop.waits, stop.fails = True, fails
    pool = ThreadPoolExecutor(1)
    future = pool.submit(call)
    assert stop.inside.wait(30)

    def end():
        stop.go.set()
        pool.shutdown()
        return future.result(60)

    return end


@pytest.mark.parametrize("fails", [False, True])
def test_the_second_thread_is_refused_and_the_first_computes_what_it_would_have(case, fails):
    gated, model, x = case
    expected = gated(x).detach()
    grads = torch.autograd.grad(gated(x).square().sum(), gated.scorer_parameters()[:4])
    end = stopped(model, lambda: gated(x), fails)
    before = [p.detach().clone() for p in gated.scorer_parameters()]
    for call in (
        lambda: gated(x),
        lambda: gated.scales,
        lambda: gated.state_dict(),
        lambda: gated.compact(),
        lambda: gated.running().__enter__(),
    ):
        with pytest.raises(AttachError, match=TWICE), torch.no_grad():
            call()
    if fails:
        with pytest.raises(OSError, match="in the middle"):
            end()
    else:
        out = end()
        assert torch.equal(out, expected)
        found = torch.autograd.grad(out.square().sum(), gated.scorer_parameters()[:4])
        assert all(torch.allclose(a, b) for a, b in zip(found, grads, strict=True))
    assert torch.equal(gated(x), expected), "afterwards anybody may call"
    assert torch.equal(in_thread(lambda: gated(x)), expected)
    assert all(torch.equal(a, b) for a, b in zip(before, gated.scorer_parameters(), strict=True))


@pytest.mark.parametrize("fails", [False, True])
def test_calls_of_the_model_itself_are_told_apart_too(fails):
    gated, model, x = gated_neurons()
    expected = model(x).detach()
    end = stopped(model, lambda: model(x), fails)
    for call in (lambda: model(x), lambda: gated(x)):
        with pytest.raises(AttachError, match=TWICE), torch.no_grad():
            call()
    if fails:
        with pytest.raises(OSError, match="in the middle"):
            end()
    else:
        out = end()
        assert torch.equal(out, expected)
        assert all(g is not None for g in torch.autograd.grad(out.sum(), gated.scorer_parameters()[:2]))
    assert torch.equal(gated(x), expected)
    gated.detach()


def test_a_call_that_ctrl_c_ends_does_not_lock_its_own_thread_out():
    gated, model, x = gated_neurons()

    def interrupt(*_args):
        raise KeyboardInterrupt

    handle = model.stop.register_forward_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        model(x)
    handle.remove()
    model(x)
    assert not gated.blocks, "what the second call began has ended with it"
    gated.detach()


def test_layers_have_their_own_weights_throughout():
    gated, model, x = gated_neurons()
    weights = [model.second.weight, model.second.weight.detach().clone()]
    seen = []
    handle = model.second.register_forward_hook(lambda m, *_: seen.append((m.weight, m.weight.clone())))
    plain = snnprune.switching.hooks._cheaper_on_weight(model.second, (torch.empty(5, 8, 8, 8),))
    assert plain, "a case in which the weight is scaled"
    gated(x)
    handle.remove()
    gated.detach()
    assert seen[0][0] is weights[0]
    assert torch.equal(seen[0][1], weights[1])


def test_many_threads_at_once(case):
    gated, _, x = case
    with torch.no_grad():
        expected = gated(x)
    barrier = threading.Barrier(4)

    def work(at):
        barrier.wait(30)
        counts = {"right": 0, "refused": 0}
        for step in range(10):
            try:
                with torch.set_grad_enabled((at + step) % 2 == 0):
                    assert torch.equal(gated(x), expected)
                counts["right"] += 1
            except AttachError:
                counts["refused"] += 1
        return counts

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(work, range(4)))
    assert sum(sum(counts.values()) for counts in found) == 40
    assert not gated.blocks


def hold_open(gated):
    with gated.running() as inside:
        yield inside


@pytest.mark.parametrize("order", ["first out last", "first out first", "never"])
def test_generators_that_hold_a_block(case, order):
    gated, _, x = case
    expected = gated(x)
    outer = hold_open(gated)
    next(outer)
    with pytest.raises(AttachError, match=TWICE):
        in_thread(lambda: gated(x))
    inner = hold_open(gated)
    inside = next(inner)
    for generator in {"first out last": [inner, outer], "first out first": [outer, inner], "never": []}[order]:
        assert torch.equal(inside(x), expected), "as long as one is open"
        in_thread(generator.close)  # Python ends a generator in any thread
    if order == "never":
        gated.detach()
        for generator in (inner, outer):  # nothing is left to do
            generator.close()
        return
    assert not gated.blocks
    assert torch.equal(in_thread(lambda: gated(x)), expected)


def test_inside_a_block_copies_are_made_of_the_models_own_weights(case):
    gated, _, x = case
    with torch.no_grad():
        outside, state = gated.compact()(x), gated.state_dict()["model"]
        with gated.running() as inside:
            assert torch.allclose(inside(x), outside)
            assert torch.equal(gated.compact()(x), outside)
            assert torch.allclose(gated.fold()(x), outside)
            now = gated.state_dict()["model"]
            assert all(torch.equal(state[name], now[name]) for name in state)
            assert torch.allclose(inside(x), outside), "and the block goes on"


def test_who_calls_while_a_copy_is_made_waits_for_it():
    gated, model, x = gated_connections()
    with torch.no_grad():
        expected = gated.fold()(x)
        pool, calls = ThreadPoolExecutor(1), []

        def copied():
            if not calls:
                calls.append(pool.submit(lambda: gated(x).detach()))
                assert not wait(calls, timeout=0.3).done, "weights would be scaled under the copy"

        model.stop.copied = copied
        assert torch.equal(gated.fold()(x), expected)
        assert torch.allclose(calls[0].result(60), expected)
    pool.shutdown()


def test_a_copy_may_be_called_by_all():
    gated, model, x = gated_neurons()
    expected = gated(x).detach()
    clone = copy.deepcopy(model)
    gated.detach()
    weight = clone.second.weight.detach().clone()
    with ThreadPoolExecutor(4) as pool, torch.no_grad():
        outputs = list(pool.map(lambda _: clone(x).detach(), range(12)))
    assert all(torch.equal(out, expected) for out in outputs)
    assert clone.second.forward.module is clone.second, "not the original's"
    assert torch.equal(clone.second.weight, weight)


def test_what_holds_compiled_code_back_ends_with_the_last_block():
    calls = []
    blocks = Blocks(lambda: calls.append("begin"), lambda: calls.append("end"))
    first, second = blocks.enter(), blocks.enter()
    blocks.leave(first)
    assert calls == ["begin"]
    blocks.leave(second)
    blocks.leave(second)
    assert calls == ["begin", "end"]
    with pytest.raises(ZeroDivisionError):
        Blocks(lambda: 1 // 0).enter()  # type: ignore[arg-type]
    blocks.enter()
    blocks.close()
    assert calls == ["begin", "end"] * 2
    assert not blocks
