"""What `snnprune inspect` shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..budget import COUNTED, Budget, CostModel, Counted, Target, parse_target
from ..errors import TargetError
from ..graph import NeuronGroup
from ..learner import PruneConfig
from ..metrics import count_nonzero
from ..proof.tracing import trace
from ..runs.examples import example_for
from ..runs.folder import Opened
from ..switching import alike, first_scores


@dataclass(frozen=True, slots=True)
class Inspection:
    """Groups of a model and their costs.

    Attributes:
        groups: all of them, also those that are kept.
        shares: group id -> share of MACs and of params that all its neurons but one hold.
        reach: metric -> share of the dense cost in layers that lose something when neurons go.
        least: metric -> smallest target that the default floors allow.
        input_shape: (channels, height, width) that was used.
        nonzero: params that are not exactly 0.
        allowed: under a target, the shares of MACs and params that are left by the `start` (the order of the
            norms), by the `cheapest` cut that meets it, and by the `dearest`; empty without a target.
        trouble: why a target cannot be met.
        guessed: whether the image size was found by trying.
    """

    groups: list[NeuronGroup]
    shares: dict[str, tuple[float, float]]
    reach: dict[str, float]
    least: dict[str, float]
    input_shape: tuple[int, ...]
    macs: int
    params: int
    nonzero: int
    allowed: dict[str, dict[str, float]] = field(default_factory=dict)
    trouble: str | None = None
    guessed: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        groups = [
            {
                "id": g.id,
                "kind": "heads" if g.heads else g.kind,
                "size": g.size,
                "layers": len(g.members),
                "kept": g.reason,
                "note": g.note,
                **dict(zip(("macs", "params"), self.shares.get(g.id, (None, None)), strict=True)),
            }
            for g in self.groups
        ]
        names = ("reach", "least", "macs", "params", "nonzero", "allowed", "trouble", "guessed")
        plain = {name: getattr(self, name) for name in names}
        return {"groups": groups, "input_shape": list(self.input_shape), **plain}


def inspect_model(
    opened: Opened,
    *,
    image_size: int | None,
    width: Sequence[str] = (),
    uniform: Sequence[str] = (),
    keep: Sequence[str],
    outputs: Sequence[str] = (),
    target: Target | None,
    floor: float,
    round_to: int,
) -> Inspection:
    """Trace an opened model and price its groups.

    Args:
        opened: the model.
        image_size: side of its images; None: recorded, or found by trying.
        width: under the target, what stays of groups, as for `PruneConfig`.
        uniform: under the target, patterns whose groups keep the same share, as for `PruneConfig`.
        keep: shell patterns of module names whose channels must stay.
        outputs: paths of the outputs that matter; none for all.
        target: `macs` or `params`, to see what it leaves.
        floor: least kept share of every group.
        round_to: keep multiples of this many channels.

    Raises:
        ConfigError: a floor, a rounding, a width or a uniform pattern that makes no sense.
        TargetError: no target of macs or params.
        UnsupportedModelError: no input size fits, or nothing can be pruned.
    """
    config = PruneConfig(  # refuses what makes no sense
        width=tuple(width), uniform=tuple(uniform), keep=tuple(keep), floor=floor, round_to=round_to
    )
    example = example_for(opened, image_size)
    groups = trace(opened.model, example, keep=keep, outputs=outputs)
    cost = CostModel(opened.model, groups, example, width=config.width, uniform=config.uniform)
    shares = {}
    for group in groups:
        if group.prunable:
            mask = np.zeros(group.size, dtype=bool)
            mask[0] = True
            shares[group.id] = (
                1 - cost.share("macs", {group.id: mask}),
                1 - cost.share("params", {group.id: mask}),
            )
    scores = first_scores(opened.model, groups, cost)
    least = {m: cost.floor_share(m, alike(cost), floor=floor, round_to=round_to) for m in COUNTED}
    budget, trouble = parse_target(target, COUNTED), None
    allowed: dict[str, dict[str, float]] = {}
    try:
        allowed = {} if budget is None else _allowed(cost, budget, scores, floor, round_to)
    except TargetError as error:  # when a table of what is kept is needed most
        trouble = str(error)
    reach = {"macs": cost.prunable_share("macs"), "params": cost.prunable_share("params")}
    return Inspection(
        groups,
        shares,
        reach,
        least,
        tuple(example.shape[1:]),
        int(cost.dense["macs"]),
        int(cost.dense["params"]),
        count_nonzero(opened.model),
        allowed,
        trouble,
        guessed=image_size is None and not (opened.structure or {}).get("input_shape"),
    )


def _allowed(
    cost: CostModel, budget: Budget, scores: dict[str, NDArray[np.float64]], floor: float, round_to: int
) -> dict[str, dict[str, float]]:
    """What is left of both costs by three orders of the groups: of the norms, and by what groups save of each."""
    other: Counted = "params" if budget.metric == "macs" else "macs"
    ratio = {
        n: cost.saving_per_neuron(other, n) / max(cost.saving_per_neuron(budget.metric, n), 1e-12)
        for n in cost.groups
    }
    found = {}
    for name, sign in (("start", 0.0), ("cheapest", -1.0), ("dearest", 1.0)):
        # Whole groups first; within a group the norms decide, which lie within a few per cent of 1.
        order = scores if not sign else {n: sign * ratio[n] + 1e-6 * scores[n] for n in cost.groups}
        kept = cost.select(budget.metric, budget.share, order, floor=floor, round_to=round_to).kept
        found[name] = {m: cost.share(m, kept) for m in COUNTED}
    low, high = sorted(found.values(), key=lambda shares: shares[other])[:: len(found) - 1]
    return {"start": found["start"], "cheapest": low, "dearest": high}
