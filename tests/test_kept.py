"""Which channels of the first network are left: against its weights, over repeated cuts, in files."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from conftest import NETWORKS
from torch import nn

import snnprune
from snnprune.errors import RunError, StructureError
from snnprune.proof import randomize_norms_
from snnprune.surgery import column_maps, kept_slices


class Kinds(nn.Module):
    """Grouped, depthwise and transposed convolutions, norms without parameters, attention, a flattened map."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 3, padding=1)
        self.bare = nn.BatchNorm2d(12, affine=False, track_running_stats=False)
        self.grouped = nn.Conv2d(12, 24, 3, padding=1, groups=4)
        self.up = nn.ConvTranspose2d(24, 12, 2, stride=2, groups=4)
        self.back = nn.ConvTranspose2d(12, 8, 3, padding=1)
        self.attention = nn.MultiheadAttention(8, 4, batch_first=True)
        self.hidden, self.head = nn.Linear(8 * 16, 20), nn.Linear(20, 3)

    def forward(self, x):
        x = torch.relu(self.bare(self.stem(x)))
        x = torch.relu(self.back(torch.relu(self.up(torch.relu(self.grouped(x))))))
        x = nn.functional.adaptive_avg_pool2d(x, 4).flatten(2).transpose(1, 2)
        x = x + self.attention(x, x, x, need_weights=False)[0]
        return self.head(torch.relu(self.hidden(x.flatten(1))))


def made(name: str, seed: int = 0):
    torch.manual_seed(seed)
    factory, shape = (Kinds, (3, 6, 6)) if name == "kinds" else NETWORKS[name]
    model = factory().double().eval()
    randomize_norms_(model, torch.Generator().manual_seed(seed))
    return model, torch.randn(2, *shape, dtype=torch.float64)


def cut(model, x, seed, *, ones=False):
    """A compact model by random scales, the groups and the scales."""
    generator = torch.Generator().manual_seed(seed)
    with snnprune.attach(model, x, switcher=None) as gated:
        scales = {}
        for g in gated.groups:
            if g.prunable:
                scales[g.id] = 0.5 + torch.rand(g.size, generator=generator, dtype=torch.float64)
                if ones:
                    scales[g.id] = torch.ones(g.size, dtype=torch.float64)
                scales[g.id][torch.randperm(g.size, generator=generator)[: g.size // 3]] = 0
                for part in g.partial:
                    scales[g.id][part.neurons[0]] = 1
        gated.set_scales(scales)
        return gated.compact(), gated.groups, scales


def gathered(tensor, dims):
    for dim, (of, kept) in dims.items():
        assert tensor.shape[dim] == of
        tensor = tensor.index_select(dim, torch.tensor(kept))
    return tensor


@pytest.mark.parametrize("name", ["kinds", "digits_cnn", "lenet5_caffe", "resnet20", "mobilenet_v1_025", "mlp"])
def test_dense_weights_at_these_places_are_the_compact_ones(name):
    """Right after the cut, with the inputs' scales folded in; of buffers and of tensors outside layers too."""
    model, x = made(name)
    small, groups, scales = cut(model, x, 1)
    slices, kept = kept_slices(small), snnprune.kept_channels(small)
    dense, fewer = model.state_dict(), 0
    factors = {n: columns(scales) for n, columns in column_maps(model, groups).items()}
    for tensor, value in small.state_dict().items():
        if tensor.endswith(".index"):
            continue
        layer, _, own = tensor.rpartition(".")
        want = dense[tensor]
        if own == "weight" and factors.get(layer) is not None:
            module = model.get_submodule(layer)
            shape = [1] * want.dim()
            shape[0 if isinstance(module, nn.ConvTranspose2d) else 1] = -1
            want = want * factors[layer].reshape(shape)
        assert torch.equal(gathered(want, slices.get(tensor, {})), value), tensor
        fewer += tensor in slices
    assert fewer > 4
    for layer, one in kept.items():
        module, before = small.get_submodule(layer), model.get_submodule(layer)
        wide = getattr(
            module, "out_channels", getattr(module, "out_features", getattr(module, "num_features", None))
        )
        assert wide is None or wide == len(one.outputs)
        if isinstance(module, nn.Linear):
            assert (len(one.inputs), one.of_inputs) == (module.in_features, before.in_features)
        elif hasattr(module, "in_channels"):
            assert (len(one.inputs), one.of_inputs) == (module.in_channels, before.in_channels)
    if name == "kinds":
        assert {len(i) for i in (kept["grouped"].inputs, kept["bare"].outputs, kept["up"].outputs)} == {
            small.stem.out_channels
        }
        assert kept["grouped"].inputs == kept["stem"].outputs == kept["bare"].outputs
        assert kept["up"].inputs == kept["grouped"].outputs
        assert "attention.in_proj_weight" in slices


@pytest.mark.parametrize("name", ["kinds", "digits_cnn", "lenet5_caffe", "mobilenet_v1_025"])
def test_indices_of_repeated_cuts_count_from_the_first_network(name, tmp_path):
    """Three cuts, the second of a model that was saved and loaded: the first weights at these places."""
    model, x = made(name)
    first, _, _ = cut(model, x, 1, ones=True)
    snnprune.save(first, tmp_path)
    again = snnprune.load(tmp_path, model=made(name, seed=7)[0])
    assert snnprune.kept_channels(again) == snnprune.kept_channels(first) == snnprune.kept_channels(tmp_path)
    second, _, _ = cut(again, x, 2, ones=True)
    third, _, _ = cut(second, x, 3, ones=True)
    dense, slices = model.state_dict(), kept_slices(third)
    for tensor, value in third.state_dict().items():
        if not tensor.endswith(".index"):
            assert torch.equal(gathered(dense[tensor], slices.get(tensor, {})), value), tensor
    assert sum(p.numel() for p in third.parameters()) < sum(p.numel() for p in second.parameters())
    before = snnprune.kept_channels(first)
    for layer, one in snnprune.kept_channels(third).items():
        assert set(one.outputs) <= set(before[layer].outputs)
        assert one.of_outputs == before[layer].of_outputs


def test_a_model_that_was_never_cut_has_all():
    found = snnprune.kept_channels(NETWORKS["digits_cnn"][0]())
    assert all(one.outputs == tuple(range(one.of_outputs)) for one in found.values())
    assert found["features.0"].inputs == (0,)
    assert found["features.1"].inputs is None


def test_files_of_before_and_damaged_ones(tmp_path):
    model, x = made("digits_cnn")
    small, _, _ = cut(model, x, 1)
    snnprune.save(small, tmp_path / "a")
    content = json.loads((tmp_path / "a" / "kept.json").read_text())
    for number, change in enumerate(
        (
            lambda c: c.update(format=2),
            lambda c: c.update(layers=[]),
            lambda c: c["layers"]["features.0"].update(out=[1, 0]),
            lambda c: c["layers"]["features.0"].update(of_out=3),
            lambda c: c["layers"].pop("features.0"),
            lambda c: c["layers"]["features.0"]["out"].pop(),
            lambda c: c["tensors"]["features.0.weight"].update({"7": {"kept": [0], "of": 2}}),
            lambda c: c["tensors"]["features.0.weight"].update({"x": {"kept": [0], "of": 2}}),
            lambda c: c["tensors"].update(nothing={"0": {"kept": [0], "of": 2}}),
        )
    ):
        folder = shutil.copytree(tmp_path / "a", tmp_path / str(number))
        changed = json.loads(json.dumps(content))
        change(changed)
        (folder / "kept.json").write_text(json.dumps(changed))
        with pytest.raises(StructureError, match=r"kept.json is .* Remove it"):
            snnprune.load(folder, model=made("digits_cnn")[0])
    (tmp_path / "a" / "kept.json").unlink()
    with pytest.raises(RunError, match=r"kept\.json"):
        snnprune.kept_channels(tmp_path / "a")
    again = snnprune.load(tmp_path / "a", model=made("digits_cnn")[0])
    counted = snnprune.kept_channels(again)["features.0"]
    assert counted.of_outputs == len(counted.outputs) == again.features[0].out_channels
