"""The door for layers: PyTorch's own come in by it, and those of users."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, get_args

import torch
from torch import Tensor, nn

from ..errors import ConfigError
from ..registrations import Registration
from ..shown import brief_repr
from .kinds import channel_dim, group_count, in_width, is_conv, is_weighted, kind_of, out_width
from .table import Form, Kind, SideOfLayer, enter, kind_of_class, leave, registered


def register_layer(
    cls: type[nn.Module],
    *,
    like: type[nn.Module] | None = None,
    channels: Mapping[str, int] | None = None,
    inputs: Mapping[str, int] | None = None,
    outputs: Mapping[str, int] | None = None,
    sizes: Mapping[str, str] | Iterable[str] | None = None,
    axis: int | None = None,
    mixes: str | None = None,
) -> Registration:
    """Say where the channels of a layer class of your own lie, so that they can be pruned.

    A layer is described in one of four ways. `like` is enough where it names its tensors and sizes as another
    layer does. `channels` describes a layer that does the same to every channel by itself, `inputs` and `outputs`
    one that reads channels by a weight and makes new ones. `mixes` says that all channels must stay. Its forward
    takes one tensor that holds channels, and returns one. It may do anything, but what `inputs` names must be
    linear: scaling an input channel by a number >= 0 has to be the same as scaling its slice of these tensors.

    What is claimed here is proved by numbers, like everything else: a group that a wrong rule leads to is kept
    whole, and its reason names the rule. The rule holds for subclasses too, in the whole process, until it is
    removed.

    Args:
        cls: the class.
        like: class with a rule (such as `torch.nn.Conv2d`) of which it has the tensors and attributes, or some of
            them.
        channels: name of a parameter or buffer -> its dimension with one slice per channel.
        inputs: name of a weight -> its dimension with one slice per input channel. Each is in `outputs` as well.
        outputs: name of a parameter or buffer -> its dimension with one slice per output channel.
        sizes: attributes that hold a number of channels, kept true when channels go: attribute -> `inputs` or
            `outputs`; with `channels` the names alone.
        axis: dimension of the layer's input and output with the channels. By default 1 with `channels`; else the
            one that comes before as many dimensions as the first weight has beyond two: the last for a matrix, the
            third from the right for a kernel of four dimensions.
        mixes: why all its channels must stay, as a half sentence for the reason of the group.

    Returns:
        The registration, by which the rule can be removed; it is a context manager.

    Raises:
        ConfigError: `cls` is no class of layers, it has a rule already, or the description makes no sense. Names
            and dimensions are compared with a layer's tensors once a model has one, then with this error too.

    Example:
        >>> class PointConv(torch.nn.Module):  # a kernel of (in, out), on (batch, in, height, width)
        ...     def __init__(self, fan_in, fan_out):
        ...         super().__init__()
        ...         self.kernel = torch.nn.Parameter(torch.randn(fan_in, fan_out))
        ...         self.fan_out = fan_out
        ...     def forward(self, x):
        ...         return torch.einsum("bihw,io->bohw", x, self.kernel)
        >>> rule = snnprune.register_layer(
        ...     PointConv, inputs={"kernel": 0}, outputs={"kernel": 1}, sizes={"fan_out": "outputs"}, axis=1
        ... )
        >>> model = torch.nn.Sequential(PointConv(3, 8), torch.nn.ReLU(), PointConv(8, 4))
        >>> print(snnprune.trace(model, torch.rand(2, 3, 5, 5))[0])
        0 (channel, 8 neurons; prunable)
        >>> rule.remove()
    """
    _check_class("cls", cls)
    if registered(cls) or (cls.__module__.startswith("torch.nn.") and kind_of_class(cls) is not None):
        raise ConfigError(
            f"{cls.__name__} has a rule already. Take that one out first (remove() of what registering it "
            "returned), or register a class that derives from it."
        )
    kind = described(
        cls, like=like, channels=channels, inputs=inputs, outputs=outputs, sizes=sizes, axis=axis, mixes=mixes
    )
    enter(cls, replace(kind, rule=cls.__name__))
    return Registration(cls.__name__, lambda: leave(cls))


def described(
    cls: type[nn.Module],
    *,
    like: type[nn.Module] | None = None,
    channels: Mapping[str, int] | None = None,
    inputs: Mapping[str, int] | None = None,
    outputs: Mapping[str, int] | None = None,
    sizes: Mapping[str, str] | Iterable[str] | None = None,
    axis: int | None = None,
    mixes: str | None = None,
) -> Kind:
    """The kind that a description means, see `register_layer`.

    Raises:
        ConfigError: the description makes no sense.
    """
    ways = {"like": like, "channels": channels, "inputs": outputs if inputs is None else inputs, "mixes": mixes}
    given = [name for name, value in ways.items() if value is not None]
    if len(given) != 1:
        raise ConfigError(
            f"{cls.__name__}: give exactly one of like, channels, inputs with outputs, and mixes, not "
            f"{' and '.join(given) or 'none'}."
        )
    if axis is not None and type(axis) is not int:
        raise ConfigError(
            f"{cls.__name__}: axis={brief_repr(axis)} must be a whole number, a dimension of the input."
        )
    if like is not None:
        return _alike(cls, like, sizes, axis)
    if mixes is not None:
        if not isinstance(mixes, str) or not mixes.strip():
            raise ConfigError(f"{cls.__name__}: mixes={brief_repr(mixes)} must be the reason, in words.")
        return Kind("mixing", reason=mixes)
    if channels is not None:
        tensors = _dimensions(cls, "channels", channels)
        return Kind("channelwise", outputs=tensors, sizes=_sizes(cls, sizes, "channelwise"), axis=axis)
    reads, makes = _dimensions(cls, "inputs", inputs), _dimensions(cls, "outputs", outputs)
    wrong = next((name for name in reads if makes.get(name, reads[name]) == reads[name]), None)
    if wrong is not None:
        raise ConfigError(
            f"{cls.__name__}: {wrong!r} is read along dimension {reads[wrong]}, so outputs must name another "
            "dimension of it; what has input channels alone is no weight."
        )
    return Kind("weighted", reads, makes, _sizes(cls, sizes, "weighted"), axis)


def _check_class(name: str, cls: object) -> None:
    if not (isinstance(cls, type) and issubclass(cls, nn.Module)) or cls is nn.Module:
        hint = f". Give its class, {type(cls).__name__}" if isinstance(cls, nn.Module) else ""
        raise ConfigError(f"{name}={brief_repr(cls)} must be a class that derives from torch.nn.Module{hint}.")


def _alike(cls: type, like: type[nn.Module], sizes: Any, axis: int | None) -> Kind:
    _check_class("like", like)
    kind = kind_of_class(like)
    if kind is None or sizes is not None or issubclass(like, nn.GroupNorm):
        why = (
            "sizes are those of the other class"
            if sizes is not None
            else "a rule knows nothing of a norm's groups"
        )
        why = f"{like.__name__} has no rule itself" if kind is None else why
        raise ConfigError(
            f"{cls.__name__}: like={like.__name__} cannot be: {why}. Describe it by channels or inputs."
        )
    return replace(kind, rule="", axis=kind.axis if axis is None else axis, like=kind.like or like)


def _dimensions(cls: type, what: str, given: Any) -> dict[str, int]:
    """A table from names of tensors to dimensions, checked."""
    good = isinstance(given, Mapping) and given
    good = good and all(isinstance(n, str) and n and type(d) is int and d >= 0 for n, d in given.items())
    if not good:
        raise ConfigError(
            f"{cls.__name__}: {what}={brief_repr(given)} must be a dict from names of parameters or buffers to a "
            "dimension of each, counted from 0."
        )
    return dict(given)


def _sizes(cls: type, given: Any, form: Form) -> dict[str, SideOfLayer]:
    if given is None:
        return {}
    if form == "channelwise" and not isinstance(given, (str, Mapping)) and isinstance(given, Iterable):
        given = dict.fromkeys(given, "outputs")
    sides = ("outputs",) if form == "channelwise" else get_args(SideOfLayer)
    if not isinstance(given, Mapping) or not all(isinstance(n, str) and s in sides for n, s in given.items()):
        wanted = (
            "the names of attributes" if form == "channelwise" else "a dict from attributes to inputs or outputs"
        )
        raise ConfigError(f"{cls.__name__}: sizes={brief_repr(given)} must be {wanted}.")
    return dict(given)


def check_rules(model: nn.Module) -> None:
    """Compare users' rules with the layers of a model that they are for.

    Raises:
        ConfigError: a rule names a tensor or attribute that a layer lacks, a dimension that is out of range, or
            tensors and attributes that disagree about the number of channels.
    """
    for name, module in model.named_modules():
        kind = kind_of(module)
        if kind is None or not kind.own or kind.form == "mixing":
            continue
        for side, table in (("inputs", kind.inputs), ("outputs", kind.outputs)):
            _check_side(f"the rule for {kind.rule} ({name})", module, kind, side, table)


def _check_side(rule: str, module: nn.Module, kind: Kind, side: str, table: Mapping[str, int]) -> None:
    widths: dict[str, int] = {}
    held = {**module._parameters, **module._buffers}
    strict = kind.like is None
    for own, dim in table.items():
        if (
            own not in held
            and (strict or own in kind.inputs)
            and not torch.nn.utils.parametrize.is_parametrized(module)
        ):
            raise ConfigError(
                f"{rule} names the tensor {own!r}; the layer has {', '.join(held) or 'none'}. Mend it."
            )
        tensor = held.get(own)
        if not isinstance(tensor, Tensor):  # one that may be left out, such as a bias
            continue
        if dim >= tensor.dim():
            raise ConfigError(
                f"{rule} names dimension {dim} of {own!r}, whose shape is {tuple(tensor.shape)}. Dimensions count "
                "from 0."
            )
        # A convolution's weight has the inputs of one of its groups.
        inner = side == "inputs" and is_conv(module)
        widths[own] = tensor.shape[dim] * (group_count(module) if inner else 1)
    for own, counted in kind.sizes.items():
        value = getattr(module, own, None)
        if counted != side or (value is None and not strict):
            continue
        if type(value) is not int:
            raise ConfigError(f"{rule} names the attribute {own!r}, which is {brief_repr(value)} and no number.")
        widths[own] = value
    if len(set(widths.values())) > 1:
        shown = ", ".join(f"{own!r} has {width}" for own, width in widths.items())
        raise ConfigError(
            f"{rule}: its {side} are not of one number: {shown}. Name what has one entry per channel."
        )


def misfit(module: nn.Module, x: Tensor, out: Tensor) -> str:
    """In which way a call does not fit the rule for a layer; empty where it does.

    Args:
        module: a weighted or channelwise layer.
        x: its input.
        out: its output.
    """
    width = in_width(module) if is_weighted(module) else out_width(module)
    for tensor, wanted, what in ((x, width, "input"), (out, out_width(module), "output")):
        dim = channel_dim(module, tensor)
        if not tensor.dim() or tensor.shape[dim] != wanted:
            return (
                f"that dimension {dim} of its {what} has {wanted} channels, but its shape is {tuple(tensor.shape)}"
            )
    return ""
