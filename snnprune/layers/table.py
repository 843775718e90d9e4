"""What the package knows of a class of layers: one table, for PyTorch's layers and for users' own.

A `Kind` says which tensors of a layer have one slice per channel, along which dimension, and which attributes
hold a number of channels. Everything else (following, scaling, folding, cutting, pricing, saving) asks for it
in `kinds.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from torch import nn

Form = Literal["weighted", "channelwise", "reading", "mixing"]
SideOfLayer = Literal["inputs", "outputs"]


@dataclass(frozen=True, slots=True)
class Kind:
    """Where the channels of a class of layers lie.

    Attributes:
        form: `weighted` for layers that read channels by a weight and make new ones; `channelwise` for those
            that do the same to every channel by itself, whose outputs are their inputs' channels; `reading`
            for those that read channels by weights, and whose outputs stay; `mixing` for those whose channels must
            all stay.
        inputs: tensor -> its dimension that runs over the input channels; a gate's scales are folded into it.
        outputs: tensor -> its dimension that runs over the output channels.
        sizes: attribute -> which of both it counts.
        axis: dimension of the layer's input and output that holds the channels; None where it follows from the
            weight's dimensions, or is the second.
        reason: why the channels stay, for `mixing`.
        like: class that it is handled as, where it does not derive from it.
        rule: name of the class for which a user has registered it; empty for PyTorch's layers.
        found: nobody has registered it: it was told by what the layer computes.
    """

    form: Form
    inputs: Mapping[str, int] = field(default_factory=dict)
    outputs: Mapping[str, int] = field(default_factory=dict)
    sizes: Mapping[str, SideOfLayer] = field(default_factory=dict)
    axis: int | None = None
    reason: str = ""
    like: type[nn.Module] | None = None
    rule: str = ""
    found: bool = False

    @property
    def own(self) -> bool:
        """Whether it is of a user's own class."""
        return bool(self.rule)


_KINDS: dict[type, Kind] = {}  # by class; a subclass has the kind of its nearest base
_NAMED: dict[tuple[str, str], Kind] = {}  # by module and name, of classes that are not imported here
_FOUND: dict[type, Kind | None] = {}  # what has been looked up since the table last changed


def enter(cls: type, kind: Kind) -> None:
    """Put a kind into the table."""
    _KINDS[cls] = kind
    _FOUND.clear()


def enter_named(module: str, name: str, kind: Kind) -> None:
    """Put a kind into the table for a class that may not be imported yet."""
    _NAMED[module, name] = kind
    _FOUND.clear()


def leave(cls: type) -> None:
    """Take a kind out of the table."""
    _KINDS.pop(cls, None)
    _FOUND.clear()


def registered(cls: type) -> bool:
    """Whether the table has an entry for this very class."""
    return cls in _KINDS


def kind_of_class(cls: type) -> Kind | None:
    """The kind of a class of layers; None for modules that are followed operation by operation."""
    if cls not in _FOUND:
        kinds = (_KINDS.get(base) or _NAMED.get((base.__module__, base.__qualname__)) for base in cls.__mro__)
        _FOUND[cls] = next((kind for kind in kinds if kind is not None), None)
    return _FOUND[cls]
