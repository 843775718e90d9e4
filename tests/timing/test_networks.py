"""Networks as PyTorch runs them: another's copy, with the batch and the precision that were asked for."""

from __future__ import annotations

import contextlib

import pytest
import torch
from torch import nn

import snnprune
from snnprune.errors import AttachError, CompilerError, ConfigError, UnsupportedModelError
from snnprune.timing.networks import serve_network, threads_of
from snnprune.timing.serving import Serving


class Net(nn.Module):
    """Notes what it is called with."""

    seen: list

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(4)
        self.line = nn.Linear(4, 2)

    def forward(self, x, shift=None, *, names=()):
        type(self).seen.append((tuple(x.shape), x.dtype, self.training, torch.is_grad_enabled(), len(names)))
        return self.line(self.norm(x)) + (0 if shift is None else shift)


@pytest.fixture
def net():
    Net.seen = []
    return Net().train()


def test_what_runs_is_a_copy_in_evaluation_mode(net):
    before = {name: value.clone() for name, value in net.state_dict().items()}
    served = serve_network(net, torch.randn(3, 4), Serving(engine="torch", batch=5))
    served.call()
    assert Net.seen == [((5, 4), torch.float32, False, False, 0)] * 2
    assert served.provider == f"PyTorch {'cuda' if torch.cuda.is_available() else 'cpu'}"
    assert net.training
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert net.line.weight.requires_grad


def test_half_precision_is_of_the_copy_alone(net):
    served = serve_network(net, torch.randn(2, 4), Serving(engine="torch", precision="fp16"))
    assert Net.seen[-1][1] == torch.float16
    assert served.precision == "fp16"
    assert net.line.weight.dtype == torch.float32


@pytest.mark.parametrize(
    "inputs",
    [(torch.randn(2, 4), torch.zeros(2, 2)), {"x": torch.randn(2, 4), "names": ["a", "b", "c"]}],
    ids=["tuple", "dict"],
)
def test_inputs_of_every_form(net, inputs):
    serve_network(net, inputs, Serving(engine="torch", batch=3))
    assert Net.seen[-1][0] == (3, 4)
    assert Net.seen[-1][4] == (3 if isinstance(inputs, dict) else 0)


def test_examples_are_repeated_in_turn():
    class Kept(nn.Module):
        def forward(self, x):
            Kept.got = x.clone()
            return x

    serve_network(Kept(), torch.tensor([[1.0], [2.0]]), Serving(engine="torch", batch=5))
    assert Kept.got.flatten().tolist() == [1, 2, 1, 2, 1]


def test_a_compiled_network_is_compiled_for_its_batch_alone(net, monkeypatch):
    given = []
    monkeypatch.setattr(torch, "compile", lambda model, **options: given.append(options) or model)
    serve_network(net, torch.randn(2, 4), Serving(engine="torch-compiled"))
    assert given == [{"dynamic": False}]

    def fails(*_args):
        raise torch._dynamo.exc.Unsupported("no compiler")

    monkeypatch.setattr(torch, "compile", lambda _model, **_options: fails)
    with pytest.raises(CompilerError, match=r"the net: torch\.compile failed \(no compiler"):
        serve_network(net, torch.randn(2, 4), Serving(engine="torch-compiled"), "the net")


def test_what_does_not_run_is_named(net):
    with pytest.raises(
        UnsupportedModelError, match=r"the net does not run in PyTorch as torch, fp32, .* batch size 7"
    ):
        serve_network(net, torch.randn(2, 5), Serving(engine="torch", batch=7), "the net")
    gated = snnprune.attach(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)), torch.randn(2, 4))
    with pytest.raises(AttachError, match="plain model"):
        serve_network(gated.model, torch.randn(2, 4), Serving(engine="torch"))


def test_graphs_need_a_gpu(net, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="torch-graphs' needs a GPU"):
        serve_network(net, torch.randn(2, 4), Serving(engine="torch-graphs"))


def test_threads_are_put_back():
    before = torch.get_num_threads()
    with contextlib.suppress(KeyError), threads_of(Serving(engine="torch", threads=before + 1)):
        assert torch.get_num_threads() == before + 1
        raise KeyError
    assert torch.get_num_threads() == before


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_recorded_network_is_replayed():
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 2)).eval()
    for precision in ("fp32", "fp16"):
        serve_network(net, torch.randn(2, 3, 8, 8), Serving(engine="torch-graphs", precision=precision)).call()
    assert next(net.parameters()).device.type == "cpu"
