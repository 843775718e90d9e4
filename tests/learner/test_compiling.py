"""What recovers, and its teacher, may be compiled; errors of the compiler say what to do."""

from __future__ import annotations

import functools

import pytest
import torch

import snnprune
from learner.conftest import Net, loaders
from snnprune.errors import CompilerError, ConfigError
from snnprune.learner import PruneConfig
from snnprune.learner.compiling import compiler_errors


@pytest.fixture
def graphs(monkeypatch):
    """Graphs that were compiled, by a compiler that leaves them as they are."""
    found = []

    def backend(graph, _inputs):
        found.append(graph)
        return graph.forward

    torch.compiler.reset()
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=backend))
    yield found
    torch.compiler.reset()


def run(trained, loss_fn=None, **options):
    torch.manual_seed(0)
    train, val = loaders()
    return snnprune.optimize(
        trained, train, val, PruneConfig(target={"params": 0.5}, epochs=3, **options), loss_fn=loss_fn
    )


def test_a_compiled_recovery_learns_the_same(trained, graphs):
    plain = run(trained)
    assert not graphs
    compiled = run(trained, compile=True)
    assert len(graphs) >= 2, "the teacher and the compact model"
    assert type(compiled.model) is Net
    for a, b in zip(plain.model.parameters(), compiled.model.parameters(), strict=True):
        assert torch.equal(a, b)
    assert compiled.report.config["compile"]


def test_a_loss_of_the_users_own_sees_the_models_attributes(trained, graphs):
    widths = []

    def loss_fn(model, batch):
        widths.append(model.hidden.out_features)
        return torch.nn.functional.cross_entropy(model(batch[0]), batch[1])

    run(trained, loss_fn, compile=True)
    assert graphs
    assert widths[0] > widths[-1], "the dense and the compact model"


def test_many_runs_in_a_process_are_all_compiled(trained, graphs):
    counts = []
    for _ in range(5):
        before = len(graphs)
        run(trained, compile=True, round_to=1)
        counts.append(len(graphs) - before)
    assert min(counts) == counts[0] >= 2, counts


def test_a_run_may_go_on_without_the_compiler():
    with_it, without = (PruneConfig(compile=value).identity() for value in (True, False))
    assert with_it == without
    assert PruneConfig(channels_last=True).identity() != without


@pytest.mark.parametrize("name", ["compile", "channels_last", "freeze_norm", "input_neurons"])
@pytest.mark.parametrize("value", ["no", 1, None])
def test_switches_are_true_or_false(name, value):
    with pytest.raises(ConfigError, match=f"{name}=.* must be True or False"):
        PruneConfig(**{name: value})


def test_a_compiler_that_fails_is_named_before_anything_is_learned(trained, monkeypatch):
    def broken(_graph, _inputs):
        raise OSError("no compiler here")

    torch.compiler.reset()
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=broken))
    with pytest.raises(CompilerError, match=r"OSError: no compiler here.*leave out compile"):
        run(trained, compile=True)
    torch.compiler.reset()


def test_other_errors_are_not_the_compilers():
    with pytest.raises(ZeroDivisionError), compiler_errors():
        _ = 1 / 0
