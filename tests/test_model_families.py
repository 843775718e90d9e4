"""A fast part of `benchmarks/zoo.py`: one small model of every family, from tracing to the loaded file."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torchvision
from conftest import randomized
from torch import nn
from torchvision.models.convnext import CNBlockConfig
from torchvision.ops import FrozenBatchNorm2d

import snnprune
from snnprune.errors import ExportError
from snnprune.inputs import call, tensors_in, to_dtype
from snnprune.metrics import count_macs, count_params
from snnprune.proof import random_scales, relative_difference, removal_difference
from snnprune.switching import Options, switch_neurons

timm = pytest.importorskip("timm")


def vision(name: str, **options: Any) -> Callable[[], nn.Module]:
    return lambda: torchvision.models.get_model(name, weights=None, **options)


def images(side: int, count: int = 2) -> torch.Tensor:
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(0))


# name -> (factory, input side, groups that must be prunable at least, share of MACs in prunable groups at least)
CLASSIFIERS: dict[str, tuple[Callable[[], nn.Module], int, int, float]] = {
    "alexnet": (vision("alexnet", num_classes=5), 64, 7, 1.0),
    "squeezenet1_1": (vision("squeezenet1_1"), 64, 25, 1.0),
    "googlenet": (vision("googlenet", num_classes=7, init_weights=False), 64, 61, 1.0),
    "shufflenet_v2_x0_5": (vision("shufflenet_v2_x0_5"), 64, 18, 0.98),
    "mobilenet_v3_small": (vision("mobilenet_v3_small"), 64, 27, 1.0),
    "mnasnet0_5": (vision("mnasnet0_5"), 64, 25, 1.0),
    "efficientnet_b0": (vision("efficientnet_b0"), 64, 40, 1.0),
    "regnet_y_400mf": (vision("regnet_y_400mf"), 64, 37, 1.0),
    "resnext": (lambda: torchvision.models.ResNet(torchvision.models.resnet.Bottleneck, [1, 1, 1, 1], groups=8,
                                                  width_per_group=8, num_classes=5), 64, 8, 1.0),
    "densenet": (lambda: torchvision.models.DenseNet(12, (2, 3, 2), 16, num_classes=5), 64, 14, 1.0),
    "convnext": (lambda: torchvision.models.ConvNeXt(
        [CNBlockConfig(16, 32, 2), CNBlockConfig(32, None, 2)], num_classes=5), 64, 4, 0.65),
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(CLASSIFIERS))
def test_torchvision_classifiers(name, tmp_path):
    factory, side, least, share = CLASSIFIERS[name]
    model, x = randomized(factory), images(side).double()
    end_to_end(model, factory, x, tmp_path, least, share)


def end_to_end(
    model, factory, x, folder, least: int, share: float = 0.0, rel: float = 1e-6
) -> list[snnprune.NeuronGroup]:
    groups = snnprune.trace(model, x)
    assert sum(g.prunable for g in groups) >= least, [str(g) for g in groups if not g.prunable]
    plain = call(model, x)
    for seed in range(2):
        scales = random_scales(groups, torch.Generator().manual_seed(seed))
        assert removal_difference(model, groups, scales, x).exact
    with switch_neurons(model, groups, x, Options(scores=None)) as gated:
        assert gated.cost.prunable_share("macs") >= share
        gated.set_scales(scales)
        small = gated.compact()
        kept = {n: (s > 0).numpy() for n, s in scales.items()}
        assert gated.cost.cost("macs", kept) == pytest.approx(count_macs(small, x), rel=rel)
        assert gated.cost.cost("params", kept) == pytest.approx(count_params(small))
    assert count_params(small) < 0.95 * count_params(model)
    snnprune.save(small, folder / "m")
    again = snnprune.load(folder / "m", model=factory().double())
    assert relative_difference(call(small, x), call(again, x)) == 0
    assert relative_difference(call(model, x), plain) == 0, "the caller's model is as it was"
    return groups


SEGMENTATION = {
    "lraspp_mobilenet_v3_large": vision("lraspp_mobilenet_v3_large", weights_backbone=None, num_classes=4),
    "deeplabv3_mobilenet_v3_large": vision(
        "deeplabv3_mobilenet_v3_large", weights_backbone=None, num_classes=4, aux_loss=True
    ),
}


@pytest.mark.parametrize("name", sorted(SEGMENTATION))
def test_segmentation_models_return_dicts(name, tmp_path):
    groups = end_to_end(randomized(SEGMENTATION[name]), SEGMENTATION[name], images(64).double(), tmp_path, 30, 0.9)
    assert {g.reason for g in groups if not g.prunable} == {"it is an output of the model"}


def detection_inputs(side: int) -> tuple[Any, ...]:
    boxes = torch.tensor([[8.0, 8.0, 40.0, 40.0], [20.0, 12.0, 60.0, 50.0]])
    targets = [{"boxes": boxes + i, "labels": torch.tensor([1, 2])} for i in range(2)]
    return list(torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(0))), targets


def detector() -> nn.Module:
    """A Faster R-CNN with a small backbone of its own."""
    from torchvision.models import detection

    backbone = nn.Sequential(
        nn.Conv2d(3, 12, 3, 2, 1), nn.BatchNorm2d(12), nn.ReLU(), FrozenBatchNorm2d(12),
        nn.Conv2d(12, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 16, 3, 2, 1), nn.ReLU(),
    )  # fmt: skip
    backbone.out_channels = 16
    return detection.FasterRCNN(
        backbone,
        min_size=64,
        max_size=64,
        rpn_anchor_generator=detection.anchor_utils.AnchorGenerator(((16, 32),), ((1.0,),)),
        box_head=detection.faster_rcnn.TwoMLPHead(16 * 49, 24),
        box_predictor=detection.faster_rcnn.FastRCNNPredictor(24, 3),
    )


def test_detectors_take_lists_and_protect_their_heads(tmp_path):
    inputs = to_dtype(detection_inputs(64), torch.float64)
    # How many boxes reach the second stage depends on the weights, and so do the MACs.
    groups = end_to_end(randomized(detector), detector, inputs, tmp_path, 6, 0.95, rel=0.05)
    cut = {m.module for g in groups if g.prunable for m in g.members if m.role != "consumer"}
    assert {
        "backbone.0",
        "backbone.1",
        "backbone.3.running_var",
        "rpn.head.conv.0.0",
        "roi_heads.box_head.fc6",
    } <= cut
    assert not cut & {
        "rpn.head.cls_logits",
        "rpn.head.bbox_pred",
        "roi_heads.box_predictor.cls_score",
        "roi_heads.box_predictor.bbox_pred",
    }


def test_layers_that_get_nothing_keep_what_they_may_read():
    """Without targets no box is found, and the mask head sees empty tensors alone."""

    class Empty(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c, self.o = (
                nn.Conv2d(3, 8, 3),
                nn.Conv2d(8, 8, 3),
                nn.Conv2d(8, 4, 1),
                nn.Conv2d(8, 2, 1),
            )
            self.d = nn.Conv2d(4, 2, 1)

        def forward(self, x):
            x = self.b(torch.relu(self.a(x)))
            return self.o(x), self.d(self.c(x[x.mean((1, 2, 3)) > 1e9]))

    groups = {g.id: g for g in snnprune.trace(Empty(), images(8))}
    assert groups["a"].prunable
    assert not groups["b"].prunable
    assert not groups.get("c") or not groups["c"].prunable


def test_a_detector_is_pruned_by_its_own_loss(tmp_path):
    torch.manual_seed(0)
    inputs, targets = detection_inputs(64)

    def loss(gated: Callable[..., Any], batch: Any) -> torch.Tensor:
        return torch.stack(tensors_in(gated(batch[0], batch[1]))).sum()

    config = snnprune.PruneConfig(
        target={"macs": 0.6}, epochs=2, search=snnprune.SearchOptions(share=0.5), lr=1e-3
    )
    result = snnprune.optimize(
        detector(), [(inputs, targets)] * 2, None, config, loss_fn=loss, example_inputs=(inputs, targets)
    )
    assert result.report.compact.macs <= 0.6 * result.report.dense.macs
    assert result.report.exactness["remove"] <= 1e-9
    assert len(result.model.eval()(inputs)) == 2
    result.save(tmp_path / "run", onnx=False)
    again = snnprune.load(tmp_path / "run", model=detector())
    assert relative_difference(result.model(inputs), again(inputs)) == 0
    with pytest.raises(ExportError, match="onnx=False"):
        result.save(tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_video_models(tmp_path):
    def factory() -> nn.Module:
        video = torchvision.models.video.resnet
        conv = [video.Conv3DSimple, video.Conv2Plus1D, video.Conv3DNoTemporal, video.Conv3DNoTemporal]
        model = video.VideoResNet(video.BasicBlock, conv, [1, 1, 1, 1], video.R2Plus1dStem, 5)
        model.layer4 = nn.Sequential(nn.Conv3d(256, 512, 1))
        return model

    end_to_end(randomized(factory), factory, torch.randn(2, 3, 2, 16, 16).double(), tmp_path, 8, 1.0)


# side of the images -> least number of groups -> networks
TIMM_BY_SIDE = {
    32: {
        5: ["repvgg_a0"],
        8: ["resnet10t", "resnetv2_18"],
        12: ["convnext_atto"],
        20: ["efficientnet_lite0", "mobilenetv3_small_050", "ghostnet_050", "dla34", "ese_vovnet19b_dw"],
    },
    64: {12: ["poolformer_s12"]},
    224: {12: ["resmlp_12_224"], 20: ["pit_ti_224"], 24: ["vit_tiny_patch16_224"]},
}
TIMM = {name: (side, least) for side, by in TIMM_BY_SIDE.items() for least, names in by.items() for name in names}


@pytest.mark.parametrize("name", sorted(TIMM))
def test_timm_families(name, tmp_path):
    side, least = TIMM[name]

    def factory() -> nn.Module:
        return timm.create_model(name, num_classes=5)

    end_to_end(randomized(factory), factory, images(side).double(), tmp_path, least)


@pytest.mark.parametrize("name", ["mobilenet_v3_small", "shufflenet_v2_x0_5", "resnext", "convnext"])
def test_families_export(name, tmp_path):
    factory, side, _, _ = CLASSIFIERS[name]
    model, x = randomized(factory).float(), images(side)
    with snnprune.attach(model, x, switcher=None) as gated:
        gated.set_scales(random_scales(gated.groups, torch.Generator().manual_seed(0)))
        check = snnprune.export_onnx(gated.compact(), tmp_path / "m.onnx", x)
    assert check.relative_error < 1e-3


def test_auxiliary_classifiers_learn_and_shrink():
    torch.manual_seed(0)
    model = torchvision.models.googlenet(weights=None, num_classes=5, init_weights=False)
    batches = [(images(64, 4), torch.tensor([0, 1, 2, 3]))] * 2
    config = snnprune.PruneConfig(target={"params": 0.6}, epochs=2, search=snnprune.SearchOptions(share=0.5))
    result = snnprune.optimize(model, batches, batches, config)
    assert result.report.compact.params <= 0.6 * result.report.dense.params
    assert result.model.aux1.fc1.in_features < model.aux1.fc1.in_features or (
        result.model.aux1.fc1.out_features < model.aux1.fc1.out_features
    )
    out = result.model.train()(batches[0][0])
    assert [t.shape for t in tensors_in(out)] == [(4, 5)] * 3
