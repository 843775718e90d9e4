"""The times of a network's parts on one device, made of answers to the questions about it."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..budget import TimedPart
from ..errors import TimingError
from .pieces import Piece
from .questions import Questions
from .surface import Stair, Surface, rises, stair, surface

logger = logging.getLogger(__name__)
_LOYAL = 0.05  # how strongly a kind's factor holds to that of all: a few whole networks say little of each kind
_LEAST = 1e-6  # milliseconds of a piece


@dataclass(frozen=True, slots=True)
class Check:
    """A whole network, as it was timed and as its parts say.

    Attributes:
        kept: share of its neurons.
        measured_ms: milliseconds of a call.
        predicted_ms: by its parts; of a cut, by factors that were found without it.
    """

    kept: float
    measured_ms: float
    predicted_ms: float

    @property
    def error(self) -> float:
        """Predicted over measured, less 1."""
        return self.predicted_ms / self.measured_ms - 1


@dataclass(frozen=True, slots=True)
class Profile:
    """What a network's parts take on one device.

    Attributes:
        key: what sets these times apart from others: engine and version, device, batch, precision, threads.
        parts: for the cost model.
        dense_ms: milliseconds of the whole network, as it was timed.
        checks: the network and its cuts.
        steps: kind of layer -> `in` or `out` -> effective channels of 1, 8, 16, 24 and 32: its stairs.
        graphs: that were timed.
        answers: what was timed: question -> milliseconds.
    """

    key: Mapping[str, Any]
    parts: list[TimedPart]
    dense_ms: float
    checks: list[Check]
    steps: dict[str, dict[str, list[float]]]
    graphs: int
    answers: dict[str, float | None] = field(repr=False)

    @property
    def predicted_ms(self) -> float:
        """Milliseconds of the whole network by its parts."""
        return sum(part.dense for part in self.parts)

    @property
    def error(self) -> float:
        """The largest error of the checks, as a share."""
        return max(abs(check.error) for check in self.checks)


def fit(questions: Questions, answers: Mapping[str, float | None], key: Mapping[str, Any]) -> Profile:
    """The parts of a network by what was timed.

    Pieces that run by themselves differ from the same pieces in a network: caches are cold there, layouts need no
    change. So each kind of layer has a factor, and each piece something that it takes or saves, by which the few
    whole networks come out.

    Args:
        questions: that were asked.
        answers: question -> milliseconds; None where the engine could not run the graph.
        key: what sets these times apart.

    Raises:
        TimingError: an answer is missing, or the engine cannot run the network.
    """
    known = _answered(questions, answers)
    surfaces, stairs = _surfaces(questions, known)
    measured = np.array([known[name] for name in questions.names])
    pieces = questions.pieces
    alone = np.array([_alone(pieces, surfaces, cut.kept) for cut in questions.cuts])
    kinds, kind = np.unique([piece.kind for piece in pieces], return_inverse=True)
    each_kind = np.eye(len(kinds))[kind]
    factors, each = _factors(alone @ each_kind, measured, len(pieces))
    checks = []
    for i, cut in enumerate(questions.cuts):
        others = np.arange(len(measured)) != i
        own = _factors(alone[others] @ each_kind, measured[others], len(pieces)) if i else (factors, each)
        total = sum(int(mask.sum()) for mask in cut.kept.values())
        share = total / sum(len(mask) for mask in cut.kept.values()) if cut.kept else 1.0
        predicted = _served(alone[i], own[0][kind], own[1]).sum()
        checks.append(Check(share, float(measured[i]), float(predicted)))
    parts = [
        _part(piece, surfaces[piece.family], float(factors[number]), each)
        for piece, number in zip(pieces, kind, strict=True)
    ]
    asked = sorted(questions.graphs)
    used = {name: answers[name] for name in asked}
    return Profile(key, parts, float(measured[0]), checks, _told(stairs), len(asked), used)


def _answered(questions: Questions, answers: Mapping[str, float | None]) -> dict[str, float]:
    """Answers to all questions; a piece that cannot run at some widths is as slow there as the whole of it."""
    found: dict[str, float] = {}
    for name in [*questions.names, questions.nothing]:
        ms = answers.get(name)
        if ms is None:
            why = "cannot run the network" if name in answers else "has not timed the network"
            raise TimingError(
                f"the engine {why}, as these answers say. Make them anew, with this model and these options."
            )
        if name != questions.nothing and not ms > 0:
            raise TimingError("the network takes no time at all, as these answers say. Measure it again.")
        found[name] = ms
    failed = 0
    for family in questions.points.values():
        times = [answers.get(name) for name in family.values()]
        if any(name not in answers for name in family.values()):
            raise TimingError(
                "the times are of another network, or of other options: some of its layers are not among them. "
                "Make them anew, with this model and these options."
            )
        most = max((ms for ms in times if ms is not None), default=None)
        if most is None:  # its time is among what all others are scaled by
            failed += 1
            most = found[questions.nothing]
        found |= {name: most if ms is None else ms for name, ms in zip(family.values(), times, strict=True)}
    if 2 * failed > len(questions.points):
        raise TimingError("the engine cannot run most layers of the network by themselves; take another engine.")
    if failed:
        logger.warning(
            "the engine cannot run %d of %d layers by themselves, so they are taken to need no time; the checks "
            "tell how far the sum is off",
            failed,
            len(questions.points),
        )
    return found


def _surfaces(
    questions: Questions, known: Mapping[str, float]
) -> tuple[dict[str, Surface], dict[tuple[str, str], Stair]]:
    """Family -> its table, and kind and role -> its stairs."""
    first: dict[str, Piece] = {}
    for piece in questions.pieces:
        first.setdefault(piece.family, piece)
    start = known[questions.nothing]
    times = {
        name: {at: max(_LEAST, (known[q] - start) / first[name].copies) for at, q in family.items()}
        for name, family in questions.points.items()
    }
    seen: dict[tuple[str, str], list[Stair]] = {}
    for name, piece in first.items():
        for side, role in enumerate(piece.roles):
            found = rises(piece.full, piece.units, times[name], side)
            if found is not None:
                seen.setdefault((piece.kind, role), []).append(found)
    stairs = {key: stair(found) for key, found in seen.items()}
    surfaces = {
        name: surface(
            piece.full, piece.units, times[name], [stairs.get((piece.kind, r), stair([])) for r in piece.roles]
        )
        for name, piece in first.items()
    }
    return surfaces, stairs


def _alone(pieces: Sequence[Piece], surfaces: Mapping[str, Surface], kept: Mapping[str, Any]) -> list[float]:
    """Milliseconds of every piece of a cut, by the tables alone."""
    return [surfaces[piece.family]([side.columns.count(kept) for side in piece.sides]) for piece in pieces]


def _served(alone: NDArray[np.float64], factor: NDArray[np.float64] | float, each: float) -> NDArray[np.float64]:
    """Milliseconds of pieces in a network: what they save there is at most all of it."""
    return np.maximum(factor * alone + each, 0.0)


def _factors(
    sums: NDArray[np.float64], measured: NDArray[np.float64], count: int
) -> tuple[NDArray[np.float64], float]:
    """Factor of every kind, and milliseconds that each piece takes beside (or, negative, saves).

    `sums` are milliseconds by the tables alone, (networks, kinds); `count` is the number of pieces.
    Both are found by least squares of the relative errors; first one factor for all, then what each kind's differs
    by, held small.
    """
    table = np.stack([sums.sum(1), np.full(len(measured), float(count))], 1) / measured[:, None]
    (common, each), *_ = np.linalg.lstsq(table, np.ones(len(measured)), rcond=None)
    if not 0.3 < common < 3:  # whole networks that are too much alike to tell both apart
        common, each = float(1 / np.mean(table[:, 0])), 0.0
    left = 1 - table @ [common, each]
    own = sums / measured[:, None]
    scale = _LOYAL * np.eye(sums.shape[1])
    differ = np.linalg.solve(own.T @ own + scale, own.T @ left)
    found = np.clip(common + differ, 0.5 * common, 2 * common)
    return found.astype(np.float64), float(each)


def _part(piece: Piece, own: Surface, factor: float, each: float) -> TimedPart:
    """A piece for the cost model."""
    sides = [*(side.columns for side in piece.sides), None, None][:2]
    return TimedPart(piece.name, sides[0], sides[1], *own.maps, _served(own.table, factor, each))


def _told(stairs: Mapping[tuple[str, str], Stair]) -> dict[str, dict[str, list[float]]]:
    found: dict[str, dict[str, list[float]]] = {}
    for (kind, role), own in sorted(stairs.items()):
        found.setdefault(kind, {})[role] = [round(float(own[at]), 1) for at in (1, 8, 16, 24, 32)]
    return found
