"""The models of the zoo, and what they are called with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from zoo_others import OTHERS, build_other, other_names

FAMILIES = ("classification", "segmentation", "detection", "video", "timm", *OTHERS)
TIMM = (
    "resnet26d", "resnetv2_50", "seresnext26d_32x4d", "res2net50_26w_4s", "dla34", "hrnet_w18_small", "repvgg_a0",
    "cspresnet50", "ese_vovnet19b_dw", "skresnet18", "resnest14d", "dm_nfnet_f0", "efficientnet_lite0",
    "mobilenetv3_small_050", "ghostnet_050", "mobileone_s0", "fastvit_t8", "mobilevit_xxs", "edgenext_xx_small",
    "convnextv2_atto", "poolformer_s12", "resmlp_12_224", "mixer_s32_224", "vit_tiny_patch16_224",
    "deit3_small_patch16_224", "eva02_tiny_patch14_224", "pit_ti_224", "levit_128s",
    "swin_tiny_patch4_window7_224", "tiny_vit_5m_224", "xcit_nano_12_p16_224", "coatnet_0_rw_224",
)  # fmt: skip


def names(family: str) -> list[str]:
    """Models of a family."""
    if family in OTHERS:
        return other_names(family)
    if family == "timm":
        return list(TIMM)
    import torchvision

    module = torchvision.models if family == "classification" else getattr(torchvision.models, family)
    return list(torchvision.models.list_models(module=module))


def build(family: str, name: str, size: int | None) -> tuple[Callable[[], nn.Module], Any, dict[str, Any]]:
    """(factory, example inputs, what to say of them)."""
    if family in OTHERS:
        return build_other(family, name, size)
    if family == "timm":
        import timm

        side = size or (256 if name == "mobilevit_xxs" else 224)
        return lambda: timm.create_model(name), torch.randn(2, 3, side, side), {"input": side}
    import torchvision

    options: dict[str, Any] = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    if family in ("segmentation", "detection"):
        options["weights_backbone"] = None
    side = size or _side(family, name)
    example: Any = torch.randn(2, 3, side, side)
    if family == "video":
        frames = 32 if name == "s3d" else 16
        example = torch.randn(2, 3, frames, side, side)
        if name.startswith("mvit"):
            side, example = 224, torch.randn(2, 3, 16, 224, 224)
    if family == "detection":
        options |= {"min_size": side, "max_size": side} if "ssd" not in name else {}
        # Key points as targets must be float32, which a proof in float64 is not.
        example = detection_inputs(side, targeted="keypoint" not in name)
    return lambda: torchvision.models.get_model(name, weights=None, **options), example, {"input": side}


def _side(family: str, name: str) -> int:
    if family == "detection":
        return 320 if name == "ssdlite320_mobilenet_v3_large" else 300 if "ssd" in name else 128
    if family == "video":
        return 224 if name == "s3d" else 64
    if name.startswith(("vit", "maxvit")):
        return 224
    return 299 if name == "inception_v3" else 128


def detection_inputs(side: int, *, targeted: bool) -> tuple[Any, ...]:
    """(images, targets): with targets a detector also runs in training mode."""
    images, targets = [], []
    for shift in (0.0, 9.0):
        images.append(torch.rand(3, side, side))
        boxes = torch.tensor([[8.0, 8.0, 70.0, 60.0], [30.0, 20.0, 100.0, 110.0]]) + shift
        target: dict[str, Tensor] = {"boxes": boxes, "labels": torch.tensor([1, 1])}
        target["masks"] = torch.zeros(2, side, side, dtype=torch.uint8)
        target["masks"][:, 20:60, 20:60] = 1
        target["keypoints"] = torch.full((2, 17, 3), 30.0)
        targets.append(target)
    return (images, targets) if targeted else (images,)
