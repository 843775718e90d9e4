"""Found: what a run has learned about its model so far; saved, loaded and reported as a whole."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Tensor, nn

from ..forms import is_count, is_counted, is_number, is_point
from ..graph import NeuronGroup
from ..learner import Event
from ..surgery import fold_, remove_


@dataclass(slots=True)
class Found:
    """What a search has found, and what a run's observers were told; the rest of a run changes weights alone.

    Attributes:
        scales: group id -> (size,) scales at the end of the search, on the CPU; 0 for neurons that are gone.
        counts: per group `id`, `size`, and how many of its neurons were `kept`, `weakened` and `strengthened`.
        exactness: relative differences `fold` and `remove` of the proof.
        kept: group id -> indices of the neurons that stayed, in ascending order.
        searched: steps that the search took.
        sparse: names of weights whose connections were switched, so that their zeros are to stay.
        history: what was told at the end of every epoch, of both stages.
        curve: what was told at about fifty steps of each stage.
    """

    scales: dict[str, Tensor] = field(default_factory=dict)
    counts: list[dict[str, Any]] = field(default_factory=list)
    exactness: dict[str, float] = field(default_factory=dict)
    kept: dict[str, list[int]] = field(default_factory=dict)
    searched: int = 0
    sparse: list[str] = field(default_factory=list)
    history: list[dict[str, Any]] = field(default_factory=list)
    curve: list[dict[str, Any]] = field(default_factory=list)

    def remember(self, event: Event) -> None:
        """Note what the report tells of an event: figures of an epoch, and the steps that make the curve."""
        if event.values and {"val_value", "counts"} & set(event.values):
            self.history.append({"stage": event.stage, "step": event.step, **event.values})
        elif event.mark and event.values:
            known = {k: event.values[k] for k in ("loss", "budget", "cost") if k in event.values}
            self.curve.append({"stage": event.stage, "step": event.step, **known})

    def cut(self, model: nn.Module, groups: list[NeuronGroup]) -> nn.Module:
        """The compact model, made of a copy of the dense one, which is changed."""
        device = next(iter(model.parameters())).device
        scales = {name: scale.to(device) for name, scale in self.scales.items()}
        return remove_(fold_(model, groups, scales), groups, scales)

    def state(self) -> dict[str, Any]:
        """All fields for a checkpoint. Lists are the same objects, so what is told later is saved too."""
        return {"found": {one.name: getattr(self, one.name) for one in fields(self)}}

    @classmethod
    def read(cls, state: Mapping[str, Any]) -> Found:
        """Read what `state` has put into a checkpoint, after a check of every field.

        Raises:
            KeyError: there is nothing of the kind.
            ValueError: a field is missing or is not what it must be; the message names it.
        """
        content = state["found"]
        for name, fits in _FORMS.items():
            if type(content) is not dict or name not in content or not fits(content[name]):
                raise ValueError(f"what it says of {name} is not of the form that a run writes")
        return cls(**{name: content[name] for name in _FORMS})


def _dict_of(value: Any, fits: Callable[[Any], bool]) -> bool:
    return type(value) is dict and all(type(key) is str and fits(item) for key, item in value.items())


def _list_of(value: Any, fits: Callable[[Any], bool]) -> bool:
    return type(value) is list and all(map(fits, value))


def _is_scales(value: Any) -> bool:
    """A tensor of one dimension, of numbers that are finite and not negative."""
    if not isinstance(value, Tensor) or value.dim() != 1 or not value.is_floating_point():
        return False
    return bool((torch.isfinite(value) & (value >= 0)).all())


def _is_ascending(value: Any) -> bool:
    return _list_of(value, is_count) and all(a < b for a, b in itertools.pairwise(value))


_FORMS: dict[str, Callable[[Any], bool]] = {
    "scales": lambda v: _dict_of(v, _is_scales),
    "counts": lambda v: _list_of(v, lambda c: type(c) is dict and type(c.get("id")) is str and is_counted(c)),
    "exactness": lambda v: _dict_of(v, is_number),
    "kept": lambda v: _dict_of(v, _is_ascending),
    "searched": is_count,
    "sparse": lambda v: _list_of(v, lambda name: type(name) is str),
    "history": lambda v: _list_of(v, lambda e: type(e) is dict and is_point(e)),
    "curve": lambda v: _list_of(v, lambda e: type(e) is dict and is_point(e)),
}
