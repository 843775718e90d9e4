"""What `state_dict()` of a gated model returned, looked at before anything of it is loaded."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from ..budget import Budget, parse_target
from ..errors import ConfigError
from ..shown import brief_repr
from .current import Scales


def read_state(state: object, count: int, device: torch.device) -> tuple[Budget | None, Scales | None]:
    """The budget and the scales of a state; None where it holds none.

    Args:
        state: anything.
        count: how many are switched.
        device: where scales are to be.

    Raises:
        ConfigError: it is no such state.
        TargetError: its budget is none.
    """
    if not isinstance(state, Mapping) or not {"model", "scorer"} <= state.keys():
        raise ConfigError(
            "load_state_dict() needs what state_dict() of a gated model returned, with `model` and `scorer`."
        )
    budget, scales = state.get("budget"), state.get("scales")
    found = None
    if budget is not None:
        if not isinstance(budget, Mapping) or budget.keys() != {"metric", "share"}:
            raise ConfigError(f"the budget of a state must hold metric and share, not {brief_repr(budget)}.")
        found = parse_target({budget["metric"]: budget["share"]})
    return found, None if scales is None else Scales.read(scales, count, device)
