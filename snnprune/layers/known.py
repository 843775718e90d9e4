"""PyTorch's layers, described as users describe theirs."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.conv import _ConvNd

from .register import described
from .table import Kind, SideOfLayer, enter, enter_named

_NORM = {"weight": 0, "bias": 0, "running_mean": 0, "running_var": 0}
_CONV: dict[str, SideOfLayer] = {"in_channels": "inputs", "out_channels": "outputs"}
_LINEAR = {"in_features": "inputs", "out_features": "outputs"}


def enter_all() -> None:
    """Put PyTorch's layers into the table."""
    enter(nn.Linear, described(nn.Linear, inputs={"weight": 1}, outputs={"weight": 0, "bias": 0}, sizes=_LINEAR))
    enter(_ConvNd, described(_ConvNd, inputs={"weight": 1}, outputs={"weight": 0, "bias": 0}, sizes=_CONV))
    for cls in (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d):
        enter(cls, described(cls, inputs={"weight": 0}, outputs={"weight": 1, "bias": 0}, sizes=_CONV))
    for cls in (
        nn.BatchNorm1d,
        nn.BatchNorm2d,
        nn.BatchNorm3d,
        nn.SyncBatchNorm,
        nn.InstanceNorm1d,
        nn.InstanceNorm2d,
        nn.InstanceNorm3d,
    ):
        enter(cls, described(cls, channels=_NORM, sizes=["num_features"]))
    enter(nn.GroupNorm, described(nn.GroupNorm, channels=_NORM, sizes=["num_channels"]))
    enter(nn.PReLU, described(nn.PReLU, channels={"weight": 0}, sizes=["num_parameters"]))
    enter(nn.MultiheadAttention, described(nn.MultiheadAttention, mixes="no rule for MultiheadAttention"))
    both = {"weight_ih_l0": 1, "weight_ih_l0_reverse": 1}
    enter(nn.RNNBase, Kind("reading", both, sizes={"input_size": "inputs"}, axis=-1))
    enter(nn.RNNCellBase, Kind("reading", {"weight_ih": 1}, sizes={"input_size": "inputs"}, axis=-1))
    deformable = Kind("weighted", {"weight": 1}, {"weight": 0, "bias": 0}, _CONV)
    enter_named("torchvision.ops.deform_conv", "DeformConv2d", deformable)
