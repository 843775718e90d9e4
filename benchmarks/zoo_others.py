"""Networks of transformers, ultralytics and segmentation_models_pytorch for the zoo (`pip install ".[others]"`).

All are built from configurations, without weights. Sizes are those of a published small variant unless a
name ends in the number of layers (`-4l`) that is left of a larger one; languages have 1000 words.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from zoo_transformers import TRANSFORMERS

# Families, and what they are imported from.
OTHERS = {
    "transformers": "transformers.modeling_utils",
    "ultralytics": "ultralytics.nn.tasks",
    "smp": "segmentation_models_pytorch",
}

# name: (model file, class in ultralytics.nn.tasks).
ULTRALYTICS = {
    "yolov3-tiny": "DetectionModel", "yolov5n": "DetectionModel", "yolov6n": "DetectionModel",
    "yolov8n": "DetectionModel", "yolov8n-seg": "SegmentationModel", "yolov8n-pose": "PoseModel",
    "yolov8n-obb": "OBBModel", "yolov8n-cls": "ClassificationModel", "yolov9t": "DetectionModel",
    "yolov10n": "DetectionModel", "yolo11n": "DetectionModel", "yolo11n-seg": "SegmentationModel",
    "yolo11n-cls": "ClassificationModel", "yolo12n": "DetectionModel", "yolo26n": "DetectionModel",
    "yolo26n-seg": "SegmentationModel", "rtdetr-resnet50": "RTDETRDetectionModel",
}  # fmt: skip

# name: (class, encoder)
SMP = {
    "unet-resnet18": ("Unet", "resnet18"),
    "unet-mobilenet_v2": ("Unet", "mobilenet_v2"),
    "unet-efficientnet-b0": ("Unet", "efficientnet-b0"),
    "unet-mit_b0": ("Unet", "mit_b0"),
    "unet-densenet121": ("Unet", "densenet121"),
    "unet-timm-regnety_002": ("Unet", "tu-regnety_002"),
    "unetplusplus-resnet18": ("UnetPlusPlus", "resnet18"),
    "manet-resnet18": ("MAnet", "resnet18"),
    "linknet-resnet18": ("Linknet", "resnet18"),
    "fpn-resnet18": ("FPN", "resnet18"),
    "pspnet-resnet18": ("PSPNet", "resnet18"),
    "pan-resnet18": ("PAN", "resnet18"),
    "deeplabv3-resnet18": ("DeepLabV3", "resnet18"),
    "deeplabv3plus-mobilenet_v2": ("DeepLabV3Plus", "mobilenet_v2"),
    "upernet-resnet18": ("UPerNet", "resnet18"),
    "segformer-mit_b0": ("Segformer", "mit_b0"),
    "dpt-vit_tiny": ("DPT", "tu-vit_tiny_patch16_224.augreg_in21k"),
}  # fmt: skip


def package(family: str) -> str:
    """What brings a family's networks."""
    return OTHERS[family].partition(".")[0]


def other_names(family: str) -> list[str]:
    """Networks of a family, in the order of the lists above."""
    lists: dict[str, Any] = {"transformers": TRANSFORMERS, "ultralytics": ULTRALYTICS, "smp": SMP}
    return list(lists[family])


def build_other(family: str, name: str, size: int | None) -> tuple[Callable[[], nn.Module], Any, dict[str, Any]]:
    """(factory, example inputs, what to say of them)."""
    if family == "transformers":
        return _transformers(name, size)
    if family == "ultralytics":
        side = size or 128
        return lambda: _ultralytics(name), torch.rand(2, 3, side, side), {"input": side}
    side = size or (224 if name.startswith("dpt") else 128 if name.startswith("pan") else 96)
    return lambda: _smp(*SMP[name]), torch.randn(2, 3, side, side), {"input": side}


def _transformers(name: str, size: int | None) -> tuple[Callable[[], nn.Module], Any, dict[str, Any]]:
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    import transformers

    kind, options, shape = TRANSFORMERS[name]
    shape = size or shape

    def configured(cls: Any, options: dict[str, Any]) -> Any:
        values = {
            k: configured(getattr(transformers, v[0]), v[1]) if _is_config(v) else v for k, v in options.items()
        }
        return cls(**values)

    def factory() -> nn.Module:
        cls = getattr(transformers, kind)
        default = getattr(cls.config_class(), "image_size", None)
        sides = (
            {} if default is None or not isinstance(shape, (int, tuple)) else {"image_size": _like(default, shape)}
        )
        return cls(configured(cls.config_class, sides | options))

    return factory, _example(shape), {"input": shape if isinstance(shape, int) else "x".join(map(str, shape))}


def _like(default: Any, shape: Any) -> Any:
    side = shape if isinstance(shape, int) else shape[-1]
    return side if isinstance(default, int) else [side, side]


def _is_config(value: Any) -> bool:
    return isinstance(value, tuple) and len(value) == 2 and isinstance(value[1], dict)


def _example(shape: Any) -> torch.Tensor:
    if isinstance(shape, int):
        return torch.randn(2, 3, shape, shape)
    if shape[0] == "tokens":
        return torch.randint(0, shape[1], (2, shape[2]))
    if shape[0] == "rows":
        return torch.randn(2, *shape[1:])
    if len(shape) == 2:
        return torch.randn(2, shape[0], 3, shape[1], shape[1])
    return torch.randn(2, *shape)


def _ultralytics(name: str) -> nn.Module:
    os.environ.setdefault("YOLO_OFFLINE", "true")
    from ultralytics.nn import tasks

    return getattr(tasks, ULTRALYTICS[name])(f"{name}.yaml", verbose=False)


def _smp(kind: str, encoder: str) -> nn.Module:
    import segmentation_models_pytorch as smp

    return getattr(smp, kind)(encoder_name=encoder, encoder_weights=None, classes=4)
