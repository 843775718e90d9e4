"""What a run's options make of its model and gates."""

from __future__ import annotations

import pytest
import torch
from conftest import make_network
from torch import nn

import snnprune
from snnprune import PruneConfig, trace
from snnprune.errors import ConfigError
from snnprune.learner import TaskLoss
from snnprune.learner.recovering import RecoverStage
from snnprune.pipeline.attaching import gate_neurons, working_copy


def gates(**options):
    _, model, x = make_network("mlp")
    config = PruneConfig.paper(**options)
    loss = TaskLoss(None, distill=0.0, temperature=1.0)
    return gate_neurons(model, trace(model, x), x, config, loss, None)


@pytest.mark.parametrize(("mean", "std"), [(-0.5, 1.0), (0.1, 2**0.5), (1.0, 0.3)])
def test_a_fresh_start_has_the_mean_and_the_spread_that_were_asked_for(mean, std):
    with gates(fresh_mean=mean, fresh_std=std) as gated, torch.no_grad():
        for values in gated.scorer.segments.split(gated.scorer(gated.model)).values():
            assert float(values.mean()) == pytest.approx(mean, abs=1e-3)
            assert float(values.std(correction=0)) == pytest.approx(std, rel=1e-3)


def test_seed_scores_floor_and_rounding_reach_the_gates():
    with gates(seed=1) as one, gates(seed=2) as other, torch.no_grad():
        assert not torch.equal(one.scorer(one.model), other.scorer(other.model))
        assert not one.scorer.learns_offsets
    with gates(scores="switcher+offset", floor=0.3, round_to=4) as gated:
        assert gated.scorer.learns_offsets
        assert (gated.floor, gated.round_to) == (0.3, 4)


def in_format(model: nn.Module) -> list[bool]:
    """Of the convolutions of whose weights the memory format can be told."""
    weights = [m.weight for m in model.modules() if isinstance(m, nn.Conv2d)]
    return [w.is_contiguous(memory_format=torch.channels_last) for w in weights if w.shape[1] > 1]


def test_the_memory_format_is_kept_through_the_run(tmp_path, monkeypatch):
    _, model, x = make_network("digits_cnn")
    before = [p.stride() for p in model.parameters()]
    train, val, test = snnprune.load_data("digits", batch_size=64)
    seen = []
    step = RecoverStage.train_step
    monkeypatch.setattr(
        RecoverStage, "train_step", lambda self, batch: (seen.append(in_format(self.model)), step(self, batch))[1]
    )
    config = PruneConfig(target={"macs": 0.5}, epochs=2, channels_last=True)
    result = snnprune.optimize(model.float(), train, val, config, test=test)
    assert seen
    assert all(all(s) for s in seen)
    assert all(in_format(result.model))
    assert [p.stride() for p in model.parameters()] == before, "the caller's model stays as it is"
    folder = result.save(tmp_path / "run")
    again = snnprune.load(folder, model=model)
    assert not any(in_format(again)), "files know no memory format"
    x = x.float()
    assert torch.allclose(again(x), result.model(x), atol=1e-5)
    snnprune.export_onnx(result.model, tmp_path / "m.onnx", x)  # compares both


def test_weights_of_convolutions_of_videos_have_no_such_format():
    model = nn.Sequential(nn.Conv3d(3, 4, 3), nn.Conv2d(3, 4, 3))
    copied = working_copy(model, torch.device("cpu"), PruneConfig(channels_last=True))
    assert in_format(copied) == [True]
    assert copied[0].weight.is_contiguous()


def test_a_model_that_views_feature_maps_says_so():
    class Views(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.more, self.head = nn.Conv2d(1, 8, 3), nn.Conv2d(8, 8, 3), nn.Linear(8 * 16, 10)

        def forward(self, x):
            return self.head(self.more(self.conv(x)).view(len(x), -1))

    train, val, _ = snnprune.load_data("digits", batch_size=64)
    config = PruneConfig(target={"macs": 0.5}, epochs=1)
    assert snnprune.optimize(Views(), train, val, config).report.compact.macs > 0
    with pytest.raises(ConfigError, match=r"view\(\) .*leave out channels_last"):
        snnprune.optimize(Views(), train, val, PruneConfig(target={"macs": 0.5}, epochs=1, channels_last=True))
