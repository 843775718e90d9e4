"""Networks of transformers for the zoo: a configuration class, what differs from its defaults, and an input."""

from __future__ import annotations

from typing import Any

_FOUR = {"num_hidden_layers": 4}
_EIGHT = {"depths": [2, 2, 2, 2]}
_SWIN = {**_EIGHT, "window_size": 3}
_TINY = {"hidden_size": 192, "num_attention_heads": 3, "intermediate_size": 768}
_SMALL = {"hidden_size": 384, "num_attention_heads": 6, "intermediate_size": 1536}
_DINO = {"hidden_size": 384, "num_attention_heads": 6, **_FOUR}
_FEATURES = {"out_features": ["stage1", "stage2", "stage3", "stage4"]}
_RESNET18 = {"layer_type": "basic", "depths": [2, 2, 2, 2], "hidden_sizes": [64, 128, 256, 512]}
_RESNET18_BACKBONE = ("ResNetConfig", {**_RESNET18, **_FEATURES})
_SWIN_BACKBONE = ("SwinConfig", {**_SWIN, **_FEATURES, "image_size": 96})
_DETR = {
    "use_timm_backbone": False,
    "use_pretrained_backbone": False,
    "backbone": None,
    "backbone_config": _RESNET18_BACKBONE,
}
_HGNET_B0 = {
    "stem_channels": [3, 16, 16],
    "stage_in_channels": [16, 64, 256, 512],
    "stage_mid_channels": [16, 32, 64, 128],
    "stage_out_channels": [64, 256, 512, 1024],
    "stage_num_blocks": [1, 1, 2, 1],
    "stage_downsample": [False, True, True, True],
    "stage_light_block": [False, False, True, True],
    "stage_kernel_size": [3, 3, 5, 5],
    "stage_numb_of_layers": [3, 3, 3, 3],
    "hidden_sizes": [64, 256, 512, 1024],
}
_NO_ENDS = {"bos_token_id": None, "eos_token_id": None}
_LAYERS3 = {"encoder_layers": 3, "decoder_layers": 3}

# name: (class, configuration, shape of one input); a configuration of its own is (class, configuration).
# A shape of one number is the side of an image, a tuple of two (frames, side) that of a video; tokens have a
# vocabulary and a length.
TRANSFORMERS: dict[str, tuple[str, dict[str, Any], Any]] = {
    # classification
    "vit-tiny-4l": ("ViTForImageClassification", {**_TINY, **_FOUR}, 96),
    "deit-tiny-4l": ("DeiTForImageClassification", {**_TINY, **_FOUR}, 96),
    "beit-small-4l": ("BeitForImageClassification", {**_SMALL, **_FOUR, "use_relative_position_bias": True}, 96),
    "data2vec-vision-small-4l": ("Data2VecVisionForImageClassification", {**_SMALL, **_FOUR}, 96),
    "vit-msn-small-4l": ("ViTMSNForImageClassification", {**_SMALL, **_FOUR}, 96),
    "ijepa-small-4l": ("IJepaForImageClassification", {**_SMALL, **_FOUR}, 96),
    "dinov2-small-4l": ("Dinov2ForImageClassification", _DINO, 98),
    "dinov2-registers-small-4l": ("Dinov2WithRegistersForImageClassification", {**_DINO, "patch_size": 14}, 98),
    "dinov3-vit-small-4l": ("DINOv3ViTModel", {**_FOUR, "num_register_tokens": 4}, 96),
    "dinov3-convnext-tiny": ("DINOv3ConvNextModel", {}, 96),
    "hiera-tiny": ("HieraForImageClassification", {"depths": [1, 2, 7, 2]}, 96),
    "swin-tiny-8l": ("SwinForImageClassification", _SWIN, 96),
    "swinv2-tiny-8l": ("Swinv2ForImageClassification", _SWIN, 96),
    "donut-swin-tiny-8l": ("DonutSwinForImageClassification", _SWIN, 96),
    "convnext-tiny": ("ConvNextForImageClassification", {}, 96),
    "convnextv2-atto": (
        "ConvNextV2ForImageClassification",
        {"depths": [2, 2, 6, 2], "hidden_sizes": [40, 80, 160, 320]},
        96,
    ),
    "resnet-18": ("ResNetForImageClassification", _RESNET18, 96),
    "resnet-50": ("ResNetForImageClassification", {}, 96),
    "regnet-y-004": (
        "RegNetForImageClassification",
        {"depths": [1, 3, 6, 6], "hidden_sizes": [48, 104, 208, 440], "groups_width": 8},
        96,
    ),
    "bit-50": ("BitForImageClassification", {}, 96),
    "hgnetv2-b0": (
        "HGNetV2ForImageClassification",
        _HGNET_B0,
        96,
    ),
    "mobilenet_v1": ("MobileNetV1ForImageClassification", {}, 96),
    "mobilenet_v2": ("MobileNetV2ForImageClassification", {}, 96),
    "mobilevit-xx-small": (
        "MobileViTForImageClassification",
        {"hidden_sizes": [64, 80, 96], "neck_hidden_sizes": [16, 16, 24, 48, 64, 80, 320], "expand_ratio": 2.0},
        128,
    ),
    "mobilevitv2-0.5": ("MobileViTV2ForImageClassification", {"width_multiplier": 0.5}, 128),
    "efficientnet-b0": (
        "EfficientNetForImageClassification",
        {"width_coefficient": 1.0, "depth_coefficient": 1.0, "hidden_dim": 1280},
        96,
    ),
    "levit-128S": (
        "LevitForImageClassification",
        {"num_attention_heads": [4, 6, 8], "depths": [2, 3, 4]},
        96,
    ),
    "pvt-tiny": ("PvtForImageClassification", {}, 96),
    "pvt-v2-b0": ("PvtV2ForImageClassification", {}, 96),
    "cvt-5l": ("CvtForImageClassification", {"depth": [1, 2, 2]}, 96),
    "poolformer-s12": (
        "PoolFormerForImageClassification",
        {"depths": [2, 2, 6, 2], "hidden_sizes": [64, 128, 320, 512]},
        96,
    ),
    "focalnet-tiny": ("FocalNetForImageClassification", {"focal_levels": [2, 2, 2, 2]}, 96),
    "swiftformer-xs": ("SwiftFormerForImageClassification", {"embed_dims": [48, 56, 112, 220]}, 96),
    "textnet-tiny": ("TextNetForImageClassification", {}, 96),
    "pp-lcnet": ("PPLCNetForImageClassification", {}, 96),
    "vitdet-base-4l": ("VitDetModel", {**_FOUR, "use_relative_position_embeddings": True}, 96),
    # segmentation, depth, key points, matting, upscaling
    "segformer-b0": ("SegformerForSemanticSegmentation", {}, 96),
    "mobilenet_v2-deeplab": ("MobileNetV2ForSemanticSegmentation", {}, 96),
    "mobilevit-xx-small-deeplab": (
        "MobileViTForSemanticSegmentation",
        {"hidden_sizes": [64, 80, 96], "neck_hidden_sizes": [16, 16, 24, 48, 64, 80, 320], "expand_ratio": 2.0},
        128,
    ),
    "upernet-convnext-tiny": (
        "UperNetForSemanticSegmentation",
        {
            "backbone_config": ("ConvNextConfig", {"hidden_sizes": [96, 192, 384, 768], **_FEATURES}),
            "hidden_size": 128,
            "auxiliary_in_channels": 384,
        },
        96,
    ),
    "beit-upernet-small-4l": (
        "BeitForSemanticSegmentation",
        {**_SMALL, **_FOUR, "out_indices": [1, 2, 3, 4], "use_relative_position_bias": True},
        96,
    ),
    "dpt-small-4l": (
        "DPTForDepthEstimation",
        {**_SMALL, **_FOUR, "backbone_out_indices": [0, 1, 2, 3], "neck_hidden_sizes": [48, 96, 192, 384],
         "fusion_hidden_size": 64},
        96,
    ),
    "glpn-b0": ("GLPNForDepthEstimation", {}, 96),
    "depth-anything-small-4l": (
        "DepthAnythingForDepthEstimation",
        {
            "backbone_config": ("Dinov2Config", {
                **_DINO, "out_indices": [1, 2, 3, 4], "image_size": 98, "reshape_hidden_states": False,
                "apply_layernorm": True,
            }),
            "reassemble_hidden_size": 384,
            "neck_hidden_sizes": [48, 96, 192, 384],
            "fusion_hidden_size": 64,
        },
        98,
    ),
    "vitpose-small-4l": (
        "VitPoseForPoseEstimation",
        {"backbone_config": ("VitPoseBackboneConfig", {
            "hidden_size": 384, "num_attention_heads": 6, "out_indices": [4], "image_size": [256, 192], **_FOUR,
        })},
        (3, 256, 192),
    ),
    "vitmatte-small-4l": (
        "VitMatteForImageMatting",
        {
            "backbone_config": ("VitDetConfig", {
                "hidden_size": 384, "num_attention_heads": 6, "num_channels": 4, "image_size": 96,
                "pretrain_image_size": 224, "window_size": 4, "window_block_indices": [0, 2], **_FOUR,
                "residual_block_indices": [1, 3], "out_features": ["stage4"],
                "use_relative_position_embeddings": True,
            }),
            "hidden_size": 384,
            "fusion_hidden_sizes": [256, 128, 64, 32],
        },
        (4, 96, 96),
    ),
    "superpoint": ("SuperPointForKeypointDetection", {}, 96),
    "swin2sr-light": (
        "Swin2SRForImageSuperResolution",
        {"embed_dim": 60, "depths": [6, 6, 6, 6], "num_heads": [6, 6, 6, 6], "upsampler": "pixelshuffledirect"},
        64,
    ),
    # detection and masks
    "yolos-tiny-4l": ("YolosForObjectDetection", {**_TINY, **_FOUR}, 96),
    "detr-resnet-18-3l": ("DetrForObjectDetection", {**_DETR, **_LAYERS3}, 96),
    "conditional-detr-resnet-18-3l": ("ConditionalDetrForObjectDetection", {**_DETR, **_LAYERS3}, 96),
    "deformable-detr-resnet-18-3l": ("DeformableDetrForObjectDetection", {**_DETR, **_LAYERS3}, 96),
    "rt-detr-r18": (
        "RTDetrForObjectDetection",
        {
            "backbone_config": ("RTDetrResNetConfig", {
                **_RESNET18, "out_features": ["stage2", "stage3", "stage4"],
            }),
            "encoder_in_channels": [128, 256, 512],
            "decoder_layers": 3,
            "hidden_expansion": 0.5,
        },
        128,
    ),
    "d-fine-s": (
        "DFineForObjectDetection",
        {
            "backbone_config": ("HGNetV2Config", {
                **_HGNET_B0, "out_features": ["stage2", "stage3", "stage4"], "use_learnable_affine_block": True,
            }),
            "encoder_in_channels": [256, 512, 1024],
            "decoder_layers": 3,
            "hidden_expansion": 0.5,
            "depth_mult": 0.34,
        },
        128,
    ),
    "maskformer-resnet-18-3l": (
        "MaskFormerForInstanceSegmentation",
        {
            "backbone_config": _RESNET18_BACKBONE,
            "decoder_config": ("DetrConfig", {**_DETR, "decoder_layers": 3}),
        },
        96,
    ),
    "mask2former-swin-8l": (
        "Mask2FormerForUniversalSegmentation",
        {"backbone_config": _SWIN_BACKBONE, "encoder_layers": 3, "decoder_layers": 4},
        96,
    ),
    # images beside text, video, and what is no image
    "clip-vision-small-4l": ("CLIPVisionModelWithProjection", {**_SMALL, **_FOUR}, 96),
    "siglip-vision-small-4l": ("SiglipVisionModel", {**_SMALL, **_FOUR}, 96),
    "aimv2-small-4l": (
        "Aimv2VisionModel",
        {**_FOUR, "hidden_size": 384, "num_attention_heads": 6, "intermediate_size": 1024},
        96,
    ),
    "sam-vision-base-4l": (
        "SamVisionModel",
        {**_FOUR, "global_attn_indexes": [1, 3], "initializer_range": 0.02},
        128,
    ),
    "sam2-hiera-tiny": ("Sam2HieraDetModel", {}, 128),
    "imagegpt-small-6l": (
        "ImageGPTForImageClassification",
        {"n_embd": 256, "n_layer": 6, "n_head": 8, "n_positions": 256, "use_cache": False},
        ("tokens", 513, 256),
    ),
    "timesformer-small-4l": (
        "TimesformerForVideoClassification", {**_SMALL, **_FOUR, "num_frames": 4}, (4, 64),
    ),
    "videomae-small-4l": (
        "VideoMAEForVideoClassification", {**_SMALL, **_FOUR, "num_frames": 8}, (8, 64),
    ),
    "vivit-small-4l": (
        "VivitForVideoClassification", {**_SMALL, **_FOUR, "num_frames": 8}, (8, 64),
    ),
    "ast-small-4l": ("ASTForAudioClassification", {**_SMALL, **_FOUR, "max_length": 256}, ("rows", 256, 128)),
    "gpt2-4l": (
        "GPT2ForSequenceClassification",
        {"n_layer": 4, "use_cache": False, "vocab_size": 1000, "pad_token_id": 0, **_NO_ENDS},
        ("tokens", 1000, 32),
    ),
    "bert-small": (
        "BertForSequenceClassification",
        {"hidden_size": 512, "num_attention_heads": 8, "intermediate_size": 2048, "vocab_size": 1000, **_FOUR},
        ("tokens", 1000, 32),
    ),
}  # fmt: skip
