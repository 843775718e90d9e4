"""Gates: phases and gradients, what a call computes, and what it leaves behind."""

from __future__ import annotations

import pytest
import torch
from conftest import make_network
from torch import nn
from torch.utils.checkpoint import checkpoint

import snnprune
from snnprune.errors import AttachError, ConfigError
from snnprune.export import export_onnx
from snnprune.proof import relative_difference
from snnprune.switching import hooks


def test_phases_freeze_the_other_side():
    _, model, x = make_network("digits_cnn")
    with snnprune.attach(model, x) as gated:
        gated.set_budget({"params": 0.5})
        gated.set_phase("switcher")
        gated(x).square().mean().backward()
        assert all(p.grad is None for p in model.parameters())
        assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in gated.scorer_parameters())
        for p in gated.scorer_parameters():
            p.grad = None
        gated.set_phase("network")
        gated(x).square().mean().backward()
        assert all(p.grad is None for p in gated.scorer_parameters())
        assert all(p.grad is not None for p in model.parameters())
        with pytest.raises(ConfigError):
            gated.set_phase("both-of-them")


def test_network_gradient_through_the_switcher_differs_from_held_scales():
    _, model, x = make_network("digits_cnn")
    found = {}
    for gradient in ("through", "held"):
        with snnprune.attach(model, x, switcher="switcher") as gated:
            gated.set_phase("network", gradient=gradient)
            gated(x).square().mean().backward()
            found[gradient] = model.hidden[0].weight.grad.clone()
            model.zero_grad()
    assert not torch.allclose(found["through"], found["held"])
    assert torch.nn.functional.cosine_similarity(found["through"].flatten(), found["held"].flatten(), 0) > 0.5


def test_parts_of_the_model_run_with_the_same_scales_and_gradients():
    _, model, x = make_network("digits_cnn")
    found = {}
    with snnprune.attach(model, x) as gated:
        gated.set_budget({"params": 0.5})
        for how in ("whole", "parts", "parts"):  # a second time, when the first graph is gone
            with gated.running() as inside:
                assert inside is model
                if how == "whole":
                    out = inside(x)
                else:
                    with torch.no_grad():
                        inside.features(x)  # scales without gradients are not good enough for what follows
                    out = inside.classifier(inside.hidden(inside.features(x).flatten(1)))
                    assert torch.equal(gated(x), inside(x)), "calls inside it are what they always are"
            grads = torch.autograd.grad(out.square().mean(), gated.scorer_parameters()[:4])
            if found:
                assert relative_difference(out, found["whole"][0]) < 1e-12
                for a, b in zip(grads, found["whole"][1], strict=True):
                    assert torch.allclose(a, b, rtol=1e-9, atol=1e-15)
            found[how] = (out.detach(), grads)
    with pytest.raises(AttachError, match="detached"), gated.running():
        pass


def test_a_part_may_be_checkpointed_before_anything_has_asked_for_scales():
    _, model, x = make_network("digits_cnn")
    found = []
    with snnprune.attach(model, x) as gated:
        for run in (lambda part, x: part(x), lambda part, x: checkpoint(part, x, use_reentrant=False)):
            with gated.running() as inside:
                out = run(lambda x: inside.hidden(inside.features(x).flatten(1)), x)
                out.square().mean().backward()
            found.append([p.grad.clone() for p in gated.scorer_parameters() if p.grad is not None])
            for p in (*gated.scorer_parameters(), *model.parameters()):
                p.grad = None
    assert found[0]
    for a, b in zip(*found, strict=True):
        assert torch.equal(a, b)


def test_a_call_inside_leaves_the_parts_that_follow_as_they_would_be():
    _, model, x = make_network("digits_cnn")
    with snnprune.attach(model, x) as gated, gated.running() as inside:
        gated(x).square().mean().backward()  # its graph is spent
        features = inside.features(x)
        inside.hidden(features.flatten(1)).square().mean().backward()
        assert gated.blocks, "scales are still seen to before a part runs"
    assert not gated.blocks


def test_scales_follow_every_optimiser_step():
    _, model, x = make_network("digits_cnn")
    with snnprune.attach(model, x) as gated:
        gated.set_phase("switcher")
        before = gated.scales
        optimizer = torch.optim.SGD(gated.scorer_parameters(), lr=0.1)
        gated(x).square().mean().backward()
        optimizer.step()
        after = gated.scales
    assert any(not torch.equal(before[n], after[n]) for n in before)


@pytest.mark.parametrize("off", [torch.no_grad, torch.inference_mode])
def test_without_gradients_the_scorer_runs_once_for_many_batches(off, monkeypatch):
    _, model, x = make_network("digits_cnn")
    with snnprune.attach(model, x) as gated:
        calls = []
        original = gated.scorer.forward
        monkeypatch.setattr(gated.scorer, "forward", lambda *m: calls.append(1) or original(*m))
        with off():
            outputs = [gated(x) for _ in range(3)]
        assert len(calls) == 1
        assert not any(o.requires_grad for o in outputs)
        assert not any(s.requires_grad for s in gated.scales.values())
        assert gated(x).requires_grad
        assert len(calls) == 2


def test_attaching_twice_and_using_after_detach_raise():
    _, model, x = make_network("digits_cnn")
    gated = snnprune.attach(model, x)
    with pytest.raises(AttachError):
        snnprune.attach(model, x)
    with pytest.raises(AttachError, match="detach"):
        snnprune.optimize(model, [(x, torch.zeros(4).long())])
    gated.detach()
    gated.detach()
    with pytest.raises(AttachError):
        gated(x)
    snnprune.attach(model, x).detach()


def test_export_refuses_a_gated_model(tmp_path):
    _, model, x = make_network("digits_cnn")
    model, x = model.float(), x.float()
    with snnprune.attach(model, x), pytest.raises(AttachError, match="compact"):
        export_onnx(model, tmp_path / "m.onnx", x)
    assert not list(tmp_path.iterdir())


def test_a_module_called_twice_is_either_exact_or_refused():
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.again, self.head = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 3)

        def forward(self, x):
            return self.head(self.again(torch.relu(self.again(torch.relu(self.first(x))))))

    torch.manual_seed(0)
    model, x = Twice().double(), torch.randn(4, 6, dtype=torch.float64)
    with snnprune.attach(model, x) as gated:
        gated.set_budget({"params": 0.7})
        assert relative_difference(gated(x), gated.compact()(x)) <= 1e-10


@pytest.mark.parametrize("name", ["lenet5_caffe", "resnet20", "mobilenet_v1_025", "digits_cnn", "mlp"])
def test_scaled_weights_and_scaled_inputs_are_one_function(name, monkeypatch):
    _, model, _ = make_network(name)
    x = torch.randn(70, *make_network(name)[2].shape[1:], dtype=torch.float64)
    cheaper, sides = hooks._cheaper_on_weight, []
    with snnprune.attach(model, x[:2]) as gated:
        gated.set_budget({"params": 0.5})
        found = []
        for chosen in (lambda *call: sides.append(cheaper(*call)) or sides[-1], lambda *_: False):
            monkeypatch.setattr(hooks, "_cheaper_on_weight", chosen)
            model.train()
            output = gated(x)
            every = [*model.parameters(), *gated.scorer_parameters()]
            grads = torch.autograd.grad(output.square().mean(), every, allow_unused=True)
            found.append([output, *[torch.zeros(()) if g is None else g for g in grads]])
        for one, other in zip(*found, strict=True):
            assert relative_difference(one, other) <= 1e-9
    assert any(sides), "no layer scaled its weight: the test shows nothing"


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, SystemExit])
def test_weights_are_the_users_own_again_whatever_ends_a_call(error):
    _, model, _ = make_network("lenet5_caffe")
    x = torch.randn(64, 1, 28, 28, dtype=torch.float64)
    own = dict(model.named_parameters())

    def fail(*_args):
        assert model.conv2.weight is own["conv2.weight"], "in the middle of its call, too"
        raise error

    with snnprune.attach(model, x[:2]) as gated:
        handle = model.conv2.register_forward_hook(fail, prepend=True)
        with pytest.raises(error):
            gated(x)
        handle.remove()
        now = dict(model.named_parameters())
        assert all(now[n] is p for n, p in own.items())
        assert list(now) == list(own)


@pytest.mark.parametrize("name", ["lenet5_caffe", "digits_cnn"])
def test_the_switcher_stays_in_full_precision_under_autocast(name):
    _, model, x = make_network(name)
    model, x = model.float(), x.float()
    with snnprune.attach(model, x) as gated:
        gated.set_budget({"params": 0.5})
        plain = gated.scales
        with torch.autocast("cpu", dtype=torch.bfloat16):
            output = gated(x)
        output.float().square().mean().backward()
        assert all(torch.equal(plain[n], s) for n, s in gated.scales.items())
        assert all(s.dtype == torch.float32 for s in gated.scales.values())
        assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())


def test_checkpointing_repeats_a_forward_with_the_same_side_scaled():
    class Saving(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.head = nn.Conv2d(1, 8, 3), nn.Conv2d(8, 8, 3), nn.Linear(8, 3)

        def forward(self, x):
            x = torch.relu(self.first(x))
            x = checkpoint(lambda t: torch.relu(self.second(t)), x, use_reentrant=False)
            return self.head(x.mean((2, 3)))

    torch.manual_seed(0)
    model, x = Saving().double(), torch.randn(32, 1, 12, 12, dtype=torch.float64)
    found = []
    with snnprune.attach(model, x[:2], switcher="switcher") as gated:
        for call in (gated, model):
            call(x).square().mean().backward()
            found.append([p.grad.clone() for p in [*model.parameters(), *gated.scorer_parameters()]])
            for p in [*model.parameters(), *gated.scorer_parameters()]:
                p.grad = None
    assert relative_difference(*found) <= 1e-10
