"""Attention: heads are groups, and whole heads are cut from models of every kind."""

from __future__ import annotations

import pickle

import pytest
import torch
from conftest import randomized
from torch import nn
from torchvision.models import MaxVit, SwinTransformer, VisionTransformer
from torchvision.models.swin_transformer import PatchMergingV2, SwinTransformerBlockV2
from torchvision.models.video.mvit import MSBlockConfig, MViT
from torchvision.models.video.swin_transformer import SwinTransformer3d

import snnprune
from snnprune.layers import attention
from snnprune.metrics import count_macs, count_params
from snnprune.proof import random_scales, relative_difference, removal_difference
from snnprune.switching import Options, switch_neurons


def vit() -> nn.Module:
    return VisionTransformer(32, 8, num_layers=2, num_heads=4, hidden_dim=32, mlp_dim=48, num_classes=5)


def swin(version: int = 1) -> nn.Module:
    extra = {"block": SwinTransformerBlockV2, "downsample_layer": PatchMergingV2} if version == 2 else {}
    return SwinTransformer([4, 4], 24, [2, 2], [3, 6], [4, 4], num_classes=5, **extra)


def swin_video() -> nn.Module:
    return SwinTransformer3d([2, 4, 4], 24, [2, 2], [3, 6], [4, 4, 4], num_classes=5)


def mvit(version: int = 1) -> nn.Module:
    """Heads are entries of the batch where keys and queries are pooled."""
    blocks = [
        MSBlockConfig(2, 24, 24, [], [3, 3, 3], [1, 1, 1], [1, 2, 2]),
        MSBlockConfig(4, 24, 48, [3, 3, 3], [], [1, 2, 2], [1, 1, 1]),
    ]
    new = version == 2
    return MViT((32, 32), 8, blocks, new, not new, new, new, num_classes=5)


def maxvit() -> nn.Module:
    return MaxVit((64, 64), 16, 2, block_channels=[16, 32], block_layers=[1, 1], head_dim=8,
                  stochastic_depth_prob=0.0, num_classes=5)  # fmt: skip


class Encoder(nn.Module):
    """`nn.TransformerEncoder`, whose fast path never calls its attention."""

    def __init__(self, *, batch_first: bool = True, norm_first: bool = False) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(24, 3, 40, 0.0, batch_first=batch_first, norm_first=norm_first)
        self.embed = nn.Linear(3 * 32 * 8, 24)
        self.body = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(24, 5)

    def forward(self, x):
        return self.head(self.body(self.embed(x.unflatten(3, (-1, 8)).permute(0, 3, 1, 2, 4).flatten(2))).mean(1))


NETS = {
    "vit": vit,
    "swin": swin,
    "swin_v2": lambda: swin(2),
    "swin_video": swin_video,
    "mvit": mvit,
    "mvit_v2": lambda: mvit(2),
    "maxvit": maxvit,
    "encoder": Encoder,
    "encoder_norm_first": lambda: Encoder(norm_first=True),
}


def net(name: str):
    side = 64 if name == "maxvit" else 32
    frames = (8,) if name in ("swin_video", "mvit", "mvit_v2") else ()
    return randomized(NETS[name]), torch.randn(2, 3, *frames, side, side, dtype=torch.float64)


@pytest.mark.parametrize("name", sorted(NETS))
def test_heads_are_groups_and_their_removal_is_exact(name):
    model, x = net(name)
    groups = snnprune.trace(model, x)
    heads = [g for g in groups if g.heads]
    assert len(heads) == {"maxvit": 4, "swin": 4, "swin_v2": 4, "swin_video": 4}.get(name, 2)
    assert all(
        g.prunable and g.size == attention.head_count(model.get_submodule(g.heads[0].module)) for g in heads
    )
    for seed in range(3):
        scales = random_scales(groups, torch.Generator().manual_seed(seed))
        assert removal_difference(model, groups, scales, x).exact
    plain = model(x)
    with switch_neurons(model, groups, x, Options(scores=None)) as gated:
        gated.set_scales(scales)
        kept = {n: (s > 0).numpy() for n, s in scales.items()}
        small = gated.compact()
        assert relative_difference(plain, gated(x)) > 1e-3, "the scales must do something"
        assert relative_difference(gated(x), small(x)) <= 1e-10
        assert gated.cost.cost("macs", kept) == pytest.approx(count_macs(small, x))
        assert gated.cost.cost("params", kept) == pytest.approx(count_params(small))
    small.train()(x).sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in small.parameters())


@pytest.mark.parametrize("name", sorted(NETS))
def test_detached_models_are_of_their_own_classes(name):
    model, x = net(name)
    before = [type(m) for m in model.modules()]
    plain = model(x)
    gated = snnprune.attach(model, x, switcher=None)
    if not name.startswith("mvit"):  # needs no opening: its heads are an attribute
        assert [type(m) for m in model.modules()] != before
    assert [type(m) for m in gated.compact().modules()] == before, "all heads are there"
    gated.detach()
    assert [type(m) for m in model.modules()] == before
    assert torch.equal(plain, model(x))


@pytest.mark.parametrize("name", ["vit", "swin", "swin_v2", "swin_video", "maxvit", "mvit", "mvit_v2"])
def test_saved_loaded_pickled_pruned_again(name, tmp_path):
    model, x = net(name)
    for step in range(2):
        with snnprune.attach(model, x, switcher=None) as gated:
            scales = random_scales(gated.groups, torch.Generator().manual_seed(step))
            gated.set_scales(scales)
            model, reference = gated.compact(), gated(x)
        assert relative_difference(reference, model(x)) <= 1e-10
    snnprune.save(model, tmp_path / "m")
    again = snnprune.load(tmp_path / "m", model=NETS[name]().double())
    assert torch.equal(again(x), model(x))
    assert torch.equal(pickle.loads(pickle.dumps(model))(x), model(x))


@pytest.mark.parametrize("name", ["vit", "swin", "swin_v2", "swin_video", "maxvit", "mvit", "mvit_v2"])
def test_fewer_heads_export(name, tmp_path):
    model, x = net(name)
    with snnprune.attach(model, x, switcher=None) as gated:
        gated.set_scales(random_scales(gated.groups, torch.Generator().manual_seed(0)))
        check = snnprune.export_onnx(gated.compact(), tmp_path / "m.onnx", x)
    assert check.relative_error < 1e-4


@pytest.mark.parametrize("name", ["vit", "swin", "maxvit"])
def test_heads_learn_with_the_switcher(name):
    model, x = net(name)
    with snnprune.attach(model.float(), x.float()) as gated:
        gated.set_budget({"macs": 0.6})
        gated.set_phase("switcher")
        gated(x.float()).square().sum().backward()
        assert any(p.grad is not None and p.grad.any() for p in gated.scorer_parameters())
        assert count_macs(gated.compact(), x.float()) <= 0.6 * count_macs(model, x.float())


def test_heads_are_rounded_by_their_channels():
    """A head of 8 channels is a multiple of 8 by itself; neurons of an MLP go in eights."""
    model, x = net("vit")
    with snnprune.attach(model.float(), x.float(), round_to=8) as gated:
        gated.set_budget({"macs": 0.7})
        counts = {c.id: c.kept for c in gated.counts()}
    heads = {g.id for g in gated.groups if g.heads}
    assert all(1 <= counts[name] <= 4 for name in heads)
    assert any(counts[name] < 4 for name in heads)
    assert all(kept % 8 == 0 for name, kept in counts.items() if ".mlp." in name)


def test_groups_come_in_the_order_of_the_forward_pass():
    model, x = net("swin")
    names = [g.id for g in snnprune.trace(model, x)]
    assert (
        names.index("features.1.0.attn.qkv")
        < names.index("features.1.0.mlp.0")
        < names.index("features.1.1.attn.qkv")
    )
    assert names[0] == "features.0.0"
    assert names[-1] == "head"


def test_a_stream_may_be_called_output_dim():
    """Elsewhere than in MViT that attribute is the width of the stream, which heads do not change."""

    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.num_heads, self.output_dim = 3, 12
            self.qkv, self.proj = nn.Linear(12, 36), nn.Linear(12, 12)

        def forward(self, x):
            b, n, _ = x.shape
            q, k, v = self.qkv(x).reshape(b, n, 3, self.num_heads, 4).permute(2, 0, 3, 1, 4)
            x = (q @ k.transpose(-2, -1)).softmax(-1) @ v
            return self.proj(x.transpose(1, 2).flatten(2)).view(b, n, self.output_dim)

    model = nn.Sequential(nn.Linear(5, 12), nn.LayerNorm(12), Attention(), nn.Linear(12, 4))
    groups = {g.id: g for g in snnprune.trace(model, torch.randn(2, 7, 5))}
    assert groups["2.qkv"].prunable
    assert groups["2.qkv"].size == 3
