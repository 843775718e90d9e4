"""What a contest's rows say: means, intervals over seeds, paired differences, and sentences that claim no more."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..measures import MetricInfo
from ..runs.times import OPEN, conditions_of

# Two-sided 95 % quantiles of Student's t for 1 to 9 degrees of freedom; beyond, `quantile` has a series
_T = (12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622)
_Z = 1.959964
_ROUNDING = 1e-5  # of a value: sums in another order, on a GPU or by other threads
Row = Mapping[str, Any]


def quantile(freedom: int) -> float:
    """Two-sided 95 % quantile of Student's t.

    Args:
        freedom: degrees of it, at least 1.

    Returns:
        To four digits. Source beyond 9: Cornish-Fisher expansion, Abramowitz and Stegun 26.7.5.
    """
    if freedom <= len(_T):
        return _T[freedom - 1]
    z, n = _Z, freedom
    first = (z**3 + z) / (4 * n)
    second = (5 * z**5 + 16 * z**3 + 3 * z) / (96 * n**2)
    return z + first + second + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * n**3)


def _same(values: Sequence[float]) -> bool:
    """Whether they differ by no more than rounding."""
    return max(values) - min(values) <= _ROUNDING * max(abs(value) for value in values)


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean and half-width of its 95 % interval; infinite for a single value, and for values that stand still.

    Seeds that all give the same do not show how far others would differ.
    """
    mean = statistics.fmean(values)
    if len(values) < 2 or _same(values):
        return mean, math.inf
    return mean, quantile(len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))


@dataclass(frozen=True)
class Standing:
    """One method's runs together.

    Attributes:
        name: of the method.
        values: seed -> value of the metric.
        macs: mean share of the dense MACs.
        params: mean share of the dense params.
        seconds: mean of a run.
        speed: how many times as fast as the dense model, over the runs whose time is known; None where none is, or
            where runs of the contest were timed under different conditions.
        timed: whether any run was timed, believed or not.
        failed: why there is no value, of the first seed that failed; else None.
        note: what else is to be said of its runs, of the least exact one; else empty.
        rival: whether ours is held against it.
    """

    name: str
    values: dict[int, float]
    macs: float | None
    params: float | None
    seconds: float | None
    speed: float | None
    timed: bool
    failed: str | None
    note: str
    rival: bool

    @property
    def mean(self) -> tuple[float, float]:
        """Of the values, with the half-width of its interval."""
        return interval(list(self.values.values()))


def standings(rows: Sequence[Row], metric: MetricInfo) -> list[Standing]:
    """One per method, the best first; those without a value last."""
    names = dict.fromkeys(row["method"] for row in rows)
    kinds = {tuple(conditions_of(row["times"]).values()) for row in rows if row["times"] is not None}
    found = [_of(name, [row for row in rows if row["method"] == name], alike=len(kinds) < 2) for name in names]
    sign = -1 if metric.higher_is_better else 1
    return sorted(found, key=lambda s: sign * s.mean[0] if s.values else math.inf)


def _of(name: str, rows: Sequence[Row], *, alike: bool) -> Standing:
    done = [row for row in rows if row["failed"] is None]

    def mean(key: str) -> float | None:
        return statistics.fmean(row[key] for row in done) if done else None

    failed = next((row["failed"] for row in rows if row["failed"] is not None), None)
    noted = [row for row in rows if row["note"]]
    note = max(noted, key=lambda row: row["exact"] or 0.0)["note"] if noted else ""
    values = {row["seed"]: row["value"] for row in done}
    times = [row["times"] for row in done if row["times"] is not None]
    shares = [one["latency"] for one in times if one["latency"] is not None]
    return Standing(
        name, values, mean("macs"), mean("params"), mean("seconds"),
        speed=1 / statistics.fmean(shares) if shares and alike else None, timed=bool(times),
        failed=failed, note=note, rival=rows[0]["rival"],
    )  # fmt: skip


def paired(ours: Standing, other: Standing, metric: MetricInfo) -> list[float]:
    """By how much ours is better, seed by seed, in the metric's own units."""
    return [metric.lost(ours.values[s], other.values[s]) for s in ours.values if s in other.values]


def verdict(found: Sequence[Standing], metric: MetricInfo, ours: str = "ours") -> str:
    """How ours stands against the best rival, in a sentence that claims no more than the seeds show."""
    own = next((s for s in found if s.name == ours), None)
    rivals = [s for s in found if s.rival]
    if own is None or not own.values:
        why = "Ours takes no part" if own is None else "Ours has no result"
        return f"{why}, so nothing can be said of it."
    if not any(s.values for s in rivals):
        why = "No rival has a result" if rivals else "There is no rival"
        return f"{why} to hold ours against."
    best, fewer = _best_rival(own, rivals, metric)
    if best is None:
        return "Ours and its rivals share no seed, so nothing can be said of them."
    said = _against(own, best, metric)
    return f"{said} Left out, for they have fewer of these seeds: {'; '.join(fewer)}." if fewer else said


def _best_rival(
    own: Standing, rivals: Sequence[Standing], metric: MetricInfo
) -> tuple[Standing | None, list[str]]:
    """The rival that ours leads by least, of those with most of ours' seeds, and the names of all others.

    Seeds are not equally hard, so means over different ones do not tell who is best.
    """
    shared = {rival.name: paired(own, rival, metric) for rival in rivals}
    most = max(len(pairs) for pairs in shared.values())
    if most == 0:
        return None, []
    full = [rival for rival in rivals if len(shared[rival.name]) == most]
    best = min(full, key=lambda rival: statistics.fmean(shared[rival.name]))
    return best, [rival.name for rival in rivals if rival.values and len(shared[rival.name]) < most]


def _against(own: Standing, best: Standing, metric: MetricInfo) -> str:
    """The sentence about ours and one rival, which share a seed."""
    pairs = paired(own, best, metric)
    mean, half = interval(pairs)
    unit = " points" if metric.percent else ""
    by = f"{metric.difference(mean)}{unit}"
    less = f"ours less the best rival, {best.name}, is {by}"
    if len(pairs) < 2:
        return f"One seed: {less}, and says nothing of other seeds."
    still = [
        one.name for one in (own, best) if _same([one.values[seed] for seed in own.values if seed in best.values])
    ]
    if len(still) == 2:
        return (
            f"{len(pairs)} seeds gave the same figures, so they count as one: {less}. More test data, "
            "and a loader that shuffles, make them differ."
        )
    if still or _same(pairs):
        what = f"figures of {still[0]}" if still else "differences"
        return (
            f"{len(pairs)} seeds gave the same {what}, so they do not show how far others would differ: {less}. A "
            "loader that shuffles, more seeds and more test data tell more."
        )
    bounds = (
        f"95 % interval {metric.difference(mean - half)} to {metric.difference(mean + half)}, {len(pairs)} seeds"
    )
    if abs(mean) <= half:
        return f"Level: {less}, and the difference's interval holds 0 ({bounds})."
    word, size = "ahead of" if mean > 0 else "behind", metric.difference(abs(mean)).lstrip("+")
    return f"Ours is {word} the best rival, {best.name}, by {size}{unit} ({bounds})."


def summary(one: Standing, found: Sequence[Standing], metric: MetricInfo, ours: str = "ours") -> dict[str, Any]:
    """A standing in plain values: numbers that are not known, or that these seeds cannot tell, are None.

    Args:
        one: of them.
        found: all.
        metric: what values mean.
        ours: the method that the others are held against.

    Returns:
        `method`, `rival`, `seeds`, `mean` of the values and `half` the width of its 95 % interval, `ours_less`
        (mean of the differences to ours, positive where ours is better) and its `ours_less_half`, `macs`,
        `params`, `seconds`, `speed`, `failed`, `note`.
    """
    own = next((s for s in found if s.name == ours and s.values), None)
    pairs = [] if own is None or one.name == ours else paired(own, one, metric)

    def around(values: Sequence[float]) -> tuple[float | None, float | None]:
        if not values:
            return None, None
        mean, half = interval(values)
        return mean, half if math.isfinite(half) else None

    (mean, half), (less, less_half) = around(list(one.values.values())), around(pairs)
    return {
        "method": one.name, "rival": one.rival, "seeds": sorted(one.values), "mean": mean, "half": half,
        "ours_less": less, "ours_less_half": less_half, "macs": one.macs, "params": one.params,
        "seconds": one.seconds, "speed": one.speed, "failed": one.failed, "note": one.note,
    }  # fmt: skip


def heads(found: Sequence[Standing], metric: MetricInfo) -> tuple[str, ...]:
    """Heads of the columns of `table`; speeds have one where anything was timed."""
    fast = ("as fast",) if any(one.timed for one in found) else ()
    return ("method", metric.name, "ours less it", "MACs", "params", *fast, "s")


def table(found: Sequence[Standing], metric: MetricInfo, ours: str = "ours") -> list[tuple[str, ...]]:
    """Cells of the table, in the order of `heads`."""
    own = next((s for s in found if s.name == ours and s.values), None)
    rows, width = [], len(heads(found, metric))
    for one in found:
        if not one.values:
            rows.append((one.name, "failed", *[""] * (width - 2)))
            continue
        mean, half = one.mean
        more = "" if math.isinf(half) else f" ± {metric.difference(half).lstrip('+')}"
        gap = ""
        if own is not None and one is not own and (pairs := paired(own, one, metric)):
            between, around = interval(pairs)
            gap = metric.difference(between)
            gap += "" if math.isinf(around) else f" ± {metric.difference(around).lstrip('+')}"
        cells = [f"{share:.3f}" if share is not None else "" for share in (one.macs, one.params)]
        if any(other.timed for other in found):
            cells.append(("" if not one.timed else OPEN) if one.speed is None else f"{one.speed:.2f}x")
        rows.append(
            (one.name, f"{metric.text(mean)}{more} ({len(one.values)})", gap, *cells, f"{one.seconds:.0f}")
        )
    return rows
