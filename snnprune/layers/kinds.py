"""What is asked of a layer, whatever its class: its kind, its widths, and where its channels lie."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from .indexed import IndexedLinear
from .recognize import recognized
from .table import Kind, SideOfLayer, kind_of_class


def kind_of(module: nn.Module) -> Kind | None:
    """The kind of a layer; None for modules that are followed operation by operation."""
    return kind_of_class(type(module)) or recognized(module)


def is_weighted(module: nn.Module) -> bool:
    """True for layers that have neurons of their own: they read channels by a weight and make new ones."""
    kind = kind_of(module)
    return kind is not None and kind.form == "weighted"


def is_channelwise(module: nn.Module) -> bool:
    """True for layers that do the same to every channel by itself (batch norm, PReLU, a scale per channel)."""
    kind = kind_of(module)
    return kind is not None and kind.form == "channelwise"


def is_reading(module: nn.Module) -> bool:
    """True for layers that read channels by weights and whose outputs all stay (recurrent layers)."""
    kind = kind_of(module)
    return kind is not None and kind.form == "reading"


def is_own(module: nn.Module) -> bool:
    """True for layers that are handled by a rule which a user has registered."""
    kind = kind_of(module)
    return kind is not None and kind.own


def is_conv(module: nn.Module) -> TypeGuard[_ConvNd]:
    """True for plain and transposed convolutions, and what was registered as being like one."""
    kind = kind_of(module)
    if kind is not None and kind.own:
        return kind.like is not None and issubclass(kind.like, _ConvNd)
    return isinstance(module, _ConvNd)


def is_linear(module: nn.Module) -> bool:
    """True for linear layers that compute x W' + b and nothing else."""
    known = (nn.Linear.forward, IndexedLinear.forward)
    return isinstance(module, nn.Linear) and not is_own(module) and type(module).forward in known


def is_customized(module: nn.Module) -> bool:
    """True for a layer whose class computes its output in a way of its own."""
    if is_own(module):
        return True
    if is_conv(module):
        return not type(module).__module__.startswith("torch.nn.")
    return isinstance(module, nn.Linear) and not is_linear(module)


def is_computed(module: nn.Module) -> bool:
    """Whether a layer's weight is no parameter, but computed from others (a parametrization)."""
    weights = [own for own in _kind(module).inputs if hasattr(module, own)]
    return not all(isinstance(module._parameters.get(own), nn.Parameter) for own in weights)


def is_grouped(module: nn.Module) -> bool:
    """True for a grouped convolution, depthwise ones included: it is cut by whole groups."""
    return is_conv(module) and group_count(module) > 1


def is_parted(module: nn.Module) -> bool:
    """True for a weighted layer that is no convolution of PyTorch's and reads its channels group by group."""
    if not is_weighted(module) or is_conv(module) or isinstance(module, nn.Linear):
        return False
    weight: Any = getattr(module, next(iter(_kind(module).inputs)))
    return weight.shape[input_dim(module)] != in_width(module)


def group_count(module: nn.Module) -> int:
    """Groups of a convolution; 1 for everything else."""
    return int(getattr(module, "groups", 1)) if is_conv(module) else 1


def tensors(module: nn.Module, side: SideOfLayer) -> Mapping[str, int]:
    """Names of the tensors with one slice per input or output channel, and their dimensions for it."""
    kind = _kind(module)
    return kind.inputs if side == "inputs" else kind.outputs


def main_weight(module: nn.Module) -> str | None:
    """Name of the weight whose rows and columns describe a layer's neurons; None for layers without such a one.

    Its first two dimensions run over inputs and outputs. Of a layer with a rule of the user's own nothing is known
    but where its channels lie.
    """
    kind = kind_of(module)
    if kind is None or kind.form != "weighted" or len(kind.inputs) > 1:
        return None
    if kind.own and not kind.found and not is_conv(module) and not isinstance(module, nn.Linear):
        return None
    name = next(iter(kind.inputs))
    return name if {kind.inputs[name], kind.outputs[name]} == {0, 1} else None


def input_dim(module: nn.Module) -> int:
    """Dimension of the first weight that runs over the input channels."""
    return next(iter(_kind(module).inputs.values()))


def output_dim(module: nn.Module) -> int:
    """Dimension of the first weight that runs over the output channels."""
    kind = _kind(module)
    return kind.outputs[next(iter(kind.inputs))]


def in_width(module: nn.Module) -> int:
    """Width of the layer's *input*, before any index selection."""
    if isinstance(module, IndexedLinear):
        return module.source_features
    return _width(module, "inputs") or 0


def out_width(module: nn.Module) -> int:
    """Number of output channels or features; of a channelwise layer, of its channels."""
    return _width(module, "outputs") or 0


def _width(module: nn.Module, side: SideOfLayer) -> int | None:
    """Channels of one side, by the attribute that counts them, else by the tensors."""
    kind = _kind(module)
    for name, counted in kind.sizes.items():
        value = getattr(module, name, None)
        if counted == side and isinstance(value, int):
            return value
    for name, dim in (kind.inputs if side == "inputs" else kind.outputs).items():
        tensor = getattr(module, name, None)
        if isinstance(tensor, Tensor):
            return tensor.shape[dim] * (group_count(module) if side == "inputs" else 1)
    return None


def _kind(module: nn.Module) -> Kind:
    kind = kind_of(module)
    assert kind is not None, type(module)
    return kind


def parts_of_input(module: nn.Module, further: Sequence[Any]) -> int:
    """Into how many equal parts a layer takes its input's channels apart: offset groups of deformable convolution.

    Args:
        module: a weighted layer.
        further: what it is called with besides its input.
    """
    offset = next(iter(further), None)
    if not is_weighted(module) or is_own(module) or is_conv(module) or not isinstance(offset, Tensor):
        return 1
    weight: Any = module._parameters.get("weight")
    return offset.shape[-3] // (2 * weight[0, 0].numel()) if weight is not None and weight.dim() == 4 else 1


_INSTANCE = {nn.InstanceNorm1d: 3, nn.InstanceNorm2d: 4, nn.InstanceNorm3d: 5}  # dimensions of a batch


def channel_dim(module: nn.Module, x: Tensor) -> int:
    """Dimension of a layer's input or output that holds its channels.

    Args:
        module: a weighted or channelwise layer.
        x: its input, or its output.
    """
    kind = _kind(module)
    if kind.axis is not None:
        return kind.axis % max(1, x.dim())
    if kind.form == "weighted":
        weight: Any = getattr(module, next(iter(kind.inputs)))
        return max(0, x.dim() + 1 - weight.dim())
    unbatched = _INSTANCE.get(type(module), 0) - 1 == x.dim()
    return 0 if unbatched or x.dim() == 1 else 1


def weight_columns(module: nn.Module, weight: Tensor) -> Tensor:
    """The layer's weight as (input channels, everything else): one row per column of the layer.

    For an `IndexedLinear` the rows run over the selected features only.

    Args:
        module: the layer.
        weight: its weight, or a tensor of that shape.
    """
    return _by_channel(weight, input_dim(module), group_count(module))


def weight_rows(module: nn.Module, weight: Tensor) -> Tensor:
    """The layer's weight as (output channels, everything else): one row per neuron.

    Args:
        module: the layer.
        weight: its weight, or a tensor of that shape.
    """
    return _by_channel(weight, output_dim(module), group_count(module))


def _by_channel(weight: Tensor, dim: int, groups: int) -> Tensor:
    """A view of the weight with all channels in front that run over `dim`.

    The first dimension of a grouped convolution's weight runs over all channels of its side, group by group,
    the second over those of one group alone: a channel's weights are then in the slices of its own group.
    """
    if dim == 0:
        return weight.flatten(1)
    return weight.unflatten(0, (groups, -1)).transpose(1, 2).flatten(0, 1).flatten(1)
