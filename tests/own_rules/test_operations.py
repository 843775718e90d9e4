"""Operations of the user's own with a rule: custom operations and autograd functions."""

from __future__ import annotations

import runpy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import snnprune
from own_rules.conftest import X, exact, members, net
from snnprune.errors import ConfigError
from snnprune.graph import OperationCall
from snnprune.graph.ops import OPERATIONS
from snnprune.macs import price


@torch.library.custom_op("owntest::shift", mutates_args=())
def shift(x: Tensor, by: float) -> Tensor:
    return (x + by).clamp(0, 6)


@torch.library.custom_op("owntest::view", mutates_args=())
def turned(x: Tensor) -> Tensor:
    """Named like one of PyTorch's operations, whose rule is not for it: the channels in reverse."""
    return x.flip(1)


@torch.library.custom_op("owntest::smooth", mutates_args=())
def smooth(x: Tensor) -> Tensor:
    return x.softmax(3)


@torch.library.custom_op("owntest::mixed", mutates_args=())
def mixed(x: Tensor) -> Tensor:
    return x - x.mean(1, keepdim=True)


@torch.library.custom_op("owntest::project", mutates_args=())
def project(x: Tensor, kernel: Tensor) -> Tensor:
    return torch.einsum("bihw,oi->bohw", x, kernel)


class Halved(torch.autograd.Function):
    """Computed by NumPy, which nothing can follow; with a context."""

    @staticmethod
    def forward(ctx, x, factor):
        return torch.from_numpy(np.maximum(x.detach().numpy(), 0) * factor)

    @staticmethod
    def backward(ctx, grad):
        return grad, None


class Newer(torch.autograd.Function):
    """The other form of a forward, without a context."""

    @staticmethod
    def forward(x):
        return torch.from_numpy(x.detach().numpy() + 1)

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    @staticmethod
    def backward(ctx, grad):
        return grad


class Followed(torch.autograd.Function):
    """Made of PyTorch's operations, so it needs no rule."""

    @staticmethod
    def forward(ctx, x):
        return x.clamp(min=0) + 0.1

    @staticmethod
    def backward(ctx, grad):
        return grad


class Calls(nn.Module):
    def __init__(self, function) -> None:
        super().__init__()
        self.function = lambda x: function(x)  # what custom_op returns cannot be copied

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


MEMBERS = {("0", "producer"), ("1", "between"), ("6", "consumer")}


def reason(function) -> str | None:
    groups = snnprune.trace(net(nn.Sequential(Calls(function), nn.Conv2d(16, 16, 1))).double(), X)
    return {g.id: g for g in groups}["0"].reason


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    "given", [shift, torch.ops.owntest.shift, torch.ops.owntest.shift.default, "owntest::shift"], ids=str
)
def test_an_elementwise_operation(given, seed):
    assert reason(lambda x: shift(x, 1.0)) == "no rule for the operation owntest::shift (3.0)"
    with snnprune.register_operation(given, "elementwise") as rule:
        assert rule.name == "owntest::shift"
        group = exact(net(Calls(lambda x: shift(x, 1.0))), seed)["0"]
    assert members(group) == MEMBERS
    assert group.rules == ("owntest::shift",)
    assert "no rule" in reason(lambda x: shift(x, 1.0))


@pytest.mark.parametrize("seed", range(3))
def test_an_operation_that_moves_channels(seed):
    def middle(x):
        return turned(turned(x).relu()) + turned(x).flip(1)

    assert reason(middle) == "no rule for the operation owntest::view (3.0)"
    with snnprune.register_operation(turned, lambda call: call.moves(lambda x: x.flip(1))):
        assert exact(net(Calls(middle)), seed)["0"].prunable


def test_where_moved_channels_are():
    from snnprune.graph import find_groups

    with snnprune.register_operation(turned, lambda call: call.moves(lambda x: x.flip(1))):
        model = nn.Sequential(nn.Conv2d(3, 4, 1), Calls(turned), nn.Conv2d(4, 2, 1)).double()
        (group,) = [g for g in find_groups(model, X, input_neurons=False) if g.id == "0"]
    (reader,) = group.consumers
    assert (reader.channels, reader.neurons) == ((0, 1, 2, 3), (3, 2, 1, 0))


@pytest.mark.parametrize("seed", range(3))
def test_an_operation_that_reads_along_positions(seed):
    with snnprune.register_operation(smooth, lambda call: call.reads_across(3)):
        assert exact(net(Calls(smooth)), seed)["0"].prunable
    with snnprune.register_operation(smooth, lambda call: call.reads_across(1)):
        assert reason(smooth) == "owntest::smooth reads across its channels (3.0)"


def test_an_operation_that_keeps_says_why():
    with snnprune.register_operation(mixed, lambda call: call.keep("it subtracts the mean of all")):
        assert reason(mixed) == "it subtracts the mean of all (3.0)"


def broken(call: OperationCall) -> Tensor:
    raise KeyError("oh")


@pytest.mark.parametrize(
    ("rule", "why"),
    [
        ("elementwise", "of its spread; perhaps the rule for owntest::mixed is wrong"),
        (broken, "by the rule for owntest::mixed (KeyError: 'oh')"),
        (lambda call: call.args[0], "by the rule for owntest::mixed (its labels do not fit the result)"),
        (lambda call: call.labels() + 10**6, "by the rule for owntest::mixed (its labels do not fit the result)"),
        (lambda call: call.labels()[:, :3], "by the rule for owntest::mixed (its labels do not fit the result)"),
        (lambda call: "x", "by the rule for owntest::mixed (its labels do not fit the result)"),
    ],
)
def test_an_operation_that_does_not_what_its_rule_says_is_kept_and_the_reason_names_the_rule(rule, why):
    with snnprune.register_operation(mixed, rule):
        assert why in reason(mixed)


def test_a_rule_that_labels_nothing_is_found():
    with snnprune.register_operation(mixed, lambda call: None):
        assert reason(mixed) == "no convolution or linear layer reads it"


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("cls", "function"),
    [
        (Halved, lambda x: Halved.apply(x, 0.5)),
        (Newer, Newer.apply),
        (Followed, Followed.apply),
    ],
)
def test_autograd_functions(cls, function, seed):
    forward = cls.__dict__["forward"]
    if cls is Followed:
        assert exact(net(Calls(function)), seed)["0"].rules == ()
    else:
        assert reason(function) is not None
    with snnprune.register_operation(cls, "elementwise") as rule:
        assert rule.name == cls.__name__
        group = exact(net(Calls(function)), seed)["0"]
        assert members(group) == MEMBERS
        assert group.rules == (cls.__name__,)
    assert cls.__dict__["forward"] is forward, "it is as it was"


def test_a_function_whose_forward_is_inherited_is_as_it_was():
    class Child(Halved):
        pass

    with snnprune.register_operation(Child, "elementwise"):
        assert exact(net(Calls(lambda x: Child.apply(x, 0.5))), 0)["0"].rules == ("Child",)
        assert "forward" not in Child.__dict__


def test_multiply_adds_of_an_operation():
    class Layer(nn.Module):
        def __init__(self, fan_in: int, fan_out: int) -> None:
            super().__init__()
            self.kernel = nn.Parameter(torch.randn(fan_out, fan_in))

        def forward(self, x: Tensor) -> Tensor:
            return project(x, self.kernel)

    model = nn.Sequential(nn.Conv2d(3, 8, 1), Layer(8, 12), nn.Conv2d(12, 4, 1))
    assert price(model, X.float()).unpriced == ("owntest.project (1)",)
    with (
        snnprune.register_operation(project, macs=lambda out, x, kernel: out.numel() * kernel.shape[1]),
        snnprune.register_layer(Layer, inputs={"kernel": 1}, outputs={"kernel": 0}, axis=1),
    ):
        counted = price(model, X.float())
        assert counted.unpriced == ()
        assert counted.layers["1"] == 25 * 8 * 12
        assert counted.total == 25 * (3 * 8 + 8 * 12 + 12 * 4)
        assert exact(model, 0)["1"].prunable  # and that costs are foreseen
        with pytest.raises(ConfigError, match="counted already"):
            snnprune.register_operation(project, macs=lambda *_: 0)
    assert price(model.float(), X.float()).unpriced == ("owntest.project (1)",)


@pytest.mark.parametrize(
    ("given", "options", "message"),
    [
        (shift, {}, "owntest::shift: give a rule, a price (macs), or both"),
        (shift, {"rule": "pointwise"}, "rule='pointwise' must be 'elementwise' or a function"),
        (shift, {"rule": "elementwise", "macs": 3}, "macs=3 cannot be: it is no function"),
        (Halved, {"macs": lambda *_: 1}, "an autograd function is counted by what it calls"),
        (nn.functional.relu, {"rule": "elementwise"}, "is no operation that calls can be told by"),
        (torch.autograd.Function, {"rule": "elementwise"}, "is no operation that calls can be told by"),
        ("shift", {"rule": "elementwise"}, "is no operation that calls can be told by"),
        ("owntest::nothing", {"rule": "elementwise"}, "there is no operation 'owntest::nothing' here"),
        (torch.ops.aten.cat, {"rule": "elementwise"}, "aten::cat has a rule already"),
        ("aten::mm", {"macs": lambda *_: 1}, "the multiply-adds of aten::mm are counted already"),
    ],
)
def test_nonsense_is_refused(given, options, message):
    before = dict(OPERATIONS)
    with pytest.raises(ConfigError) as error:
        snnprune.register_operation(given, **options)
    assert message in str(error.value)
    assert before == OPERATIONS


def test_an_operation_has_one_rule():
    with snnprune.register_operation(shift, "elementwise"), pytest.raises(ConfigError, match="has a rule already"):
        snnprune.register_operation("owntest::shift", "elementwise")


FILE = """
import torch, snnprune

@torch.library.custom_op("owntest::again", mutates_args=())
def again(x: torch.Tensor) -> torch.Tensor:
    return x + 1

rule = snnprune.register_operation(again, "elementwise", macs=lambda out, x: len(x))
"""


def test_a_file_that_is_loaded_twice_registers_twice(tmp_path):
    """As `--arch file.py:function` does at every use."""
    (tmp_path / "mine.py").write_text(FILE)
    first, second = (runpy.run_path(str(tmp_path / "mine.py")) for _ in range(2))
    model = net(Calls(lambda x: second["again"](x)))
    first["rule"].remove()  # is no more in force, so nothing ends with it
    assert exact(model, 0)["0"].rules == ("owntest::again",)
    second["rule"].remove()
    assert "owntest::again" not in OPERATIONS


@pytest.mark.parametrize(("cls", "function"), [(Halved, lambda x: Halved.apply(x, 0.5)), (Newer, Newer.apply)])
def test_a_rule_sees_what_an_autograd_function_was_called_with(cls, function):
    """Not the context that an older form of forward is given before it."""
    seen = []

    def rule(call: OperationCall) -> Tensor | None:
        seen.append(call.args[1:])
        return call.moves(lambda x: x)

    with snnprune.register_operation(cls, rule):
        assert exact(net(Calls(function)), 0)["0"].prunable
    assert set(seen) == {(0.5,) if cls is Halved else ()}
