"""Classes that may come out of a pickled model: layers of torch.nn, models of torchvision.

The list is spelled out. Whole namespaces are not safe: some classes in them (`torch.fx.GraphModule`
among others) run code while they are loaded, and recurrent layers loop as often as the file says.
"""

from __future__ import annotations

import functools
import importlib
from typing import Any

from torch import nn

_NN = (
    "Sequential ModuleList ModuleDict ParameterList ParameterDict Identity Flatten Unflatten "
    "Linear Bilinear Conv1d Conv2d Conv3d ConvTranspose1d ConvTranspose2d ConvTranspose3d "
    "BatchNorm1d BatchNorm2d BatchNorm3d SyncBatchNorm InstanceNorm1d InstanceNorm2d InstanceNorm3d "
    "LayerNorm GroupNorm LocalResponseNorm RMSNorm "
    "MaxPool1d MaxPool2d MaxPool3d AvgPool1d AvgPool2d AvgPool3d LPPool2d "
    "AdaptiveAvgPool1d AdaptiveAvgPool2d AdaptiveAvgPool3d AdaptiveMaxPool1d AdaptiveMaxPool2d AdaptiveMaxPool3d "
    "ReLU ReLU6 LeakyReLU PReLU ELU CELU SELU GELU SiLU Mish Sigmoid Tanh Softplus Softsign LogSigmoid "
    "Hardswish Hardsigmoid Hardtanh Hardshrink Softmax Softmax2d LogSoftmax GLU Threshold "
    "Dropout Dropout1d Dropout2d Dropout3d AlphaDropout FeatureAlphaDropout "
    "ZeroPad2d ReflectionPad2d ReplicationPad2d ConstantPad2d Upsample UpsamplingNearest2d UpsamplingBilinear2d "
    "PixelShuffle PixelUnshuffle ChannelShuffle Embedding MultiheadAttention "
)

_TORCHVISION = {
    "alexnet": "AlexNet",
    "convnext": "ConvNeXt CNBlock LayerNorm2d",
    "densenet": "DenseNet _DenseBlock _DenseLayer _Transition",
    "efficientnet": "EfficientNet MBConv FusedMBConv",
    "googlenet": "GoogLeNet Inception InceptionAux BasicConv2d",
    "inception": "Inception3 InceptionA InceptionB InceptionC InceptionD InceptionE InceptionAux BasicConv2d",
    "maxvit": "MaxVit MaxVitBlock MaxVitLayer MBConv PartitionAttentionLayer "
    "RelativePositionalMultiHeadAttention SwapAxes WindowDepartition WindowPartition",
    "mnasnet": "MNASNet _InvertedResidual",
    "mobilenetv2": "MobileNetV2 InvertedResidual",
    "mobilenetv3": "MobileNetV3 InvertedResidual",
    "regnet": "RegNet SimpleStemIN BottleneckTransform ResBottleneckBlock AnyStage",
    "resnet": "ResNet BasicBlock Bottleneck",
    "shufflenetv2": "ShuffleNetV2 InvertedResidual",
    "squeezenet": "SqueezeNet Fire",
    "swin_transformer": "SwinTransformer SwinTransformerBlock SwinTransformerBlockV2 PatchMerging "
    "PatchMergingV2 ShiftedWindowAttention ShiftedWindowAttentionV2",
    "vgg": "VGG",
    "vision_transformer": "VisionTransformer Encoder EncoderBlock MLPBlock ConvStemConfig",
}
_OPS = "Conv2dNormActivation SqueezeExcitation MLP Permute StochasticDepth FrozenBatchNorm2d"


def allowed_classes() -> list[Any]:
    """The classes themselves, those that the installed versions have."""
    from torchvision import ops

    found = [getattr(nn, name) for name in _NN.split() if hasattr(nn, name)]
    found.append(nn.modules.linear.NonDynamicallyQuantizableLinear)
    for module_name, names in _TORCHVISION.items():
        module = importlib.import_module(f"torchvision.models.{module_name}")
        found += [getattr(module, name) for name in names.split() if hasattr(module, name)]
    found += [getattr(ops, name) for name in _OPS.split() if hasattr(ops, name)]
    return found


@functools.cache
def allowed_by_name() -> dict[str, type]:
    """The same by their full names, as pickles name them."""
    return {f"{c.__module__}.{c.__qualname__}": c for c in allowed_classes()}


_NAME = 512  # characters
# The attributes of modules that begin with an underscore; other such names may stand in for methods.
_PRIVATE = (
    "_parameters _buffers _modules _non_persistent_buffers_set _is_full_backward_hook "
    "_backward_hooks _backward_pre_hooks _forward_hooks _forward_hooks_with_kwargs _forward_hooks_always_called "
    "_forward_pre_hooks _forward_pre_hooks_with_kwargs _state_dict_hooks _state_dict_pre_hooks "
    "_load_state_dict_pre_hooks _load_state_dict_post_hooks "
    "_keys _size _padding_repeated_twice _reversed_padding_repeated_twice _qkv_same_embed_dim "
    "_is_cn _norm_layer _stage_out_channels"
)
_PRIVATE_NAMES = frozenset(_PRIVATE.split())


def may_be_set(name: object, cls: type) -> bool:
    """Whether a file may give an object of this class an attribute of this name.

    No name of the class itself, for it might be called, and of private ones only those of this list.
    """
    return (
        isinstance(name, str)
        and 0 < len(name) <= _NAME
        and (not name.startswith("_") or (name in _PRIVATE_NAMES and issubclass(cls, nn.Module)))
        and not hasattr(cls, name)
    )
