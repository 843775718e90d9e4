"""Contest: the rows of a contest and what they were measured on; written after every run, and read again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..budget import SLACK
from ..errors import RunError
from ..files import read_json, write_json
from ..forms import is_number
from ..learner import Speed
from ..measures import ACCURACY, MetricInfo
from ..runs.times import CONDITIONS, marks
from ..shown import cut
from .standing import Standing, heads, standings, summary, table, verdict

BOOK, PAGE = "contest.json", "contest.html"
_FORMAT = 3  # 1: without dates and times; 2: rows that do not say what they were made with


@dataclass
class Contest:
    """What a contest has found.

    Attributes:
        rows: one per method and seed: `method`, `words` (an importance or a function in full), `rival`, `seed`,
            `value` of the metric, `macs` and `params` (shares of the dense ones), `steps` by stage, `seconds`,
            `exact` (how far the cut is from the network with masked channels, over the outputs' spread), `note`,
            `date` of its end (ISO 8601), `times` (share of the dense model's `latency`, `dense_ms`,
            `compact_ms`, `spread`, `refused` where a time is not to be believed, and what served both; None
            where nothing was timed), `device` and `versions` that it was made with, and `failed`, the reason why
            there is no value, else None.
        dense: `value`, `macs` and `params` of the dense model.
        metric: what values mean.
        target: `{"macs": share}` or `{"params": share}`.
        steps: training steps of every run.
        split: which data values are of: `test`, or `val` where no test data were given.
        data: name of the data.
        device: that it ran on, the last time.
        versions: of what it ran with, the last time.
        speed: what all recoveries compute in, where that was measured; else None.
        config: all options.
        command: that made it; empty from Python.
        page: where its page was written; None where it was not.

    Example:
        >>> config = snnprune.PruneConfig(target={"macs": 0.5}, epochs=1)
        >>> found = snnprune.contest(model, train, val, config, methods=["ours", "l2"], seeds=1, test=test)
        >>> found.verdict.startswith("One seed: ours less the best rival, l2, is ")
        True
        >>> [(row["seed"], sum(row["steps"].values()) == found.steps) for row in found.rows]
        [(0, True), (0, True)]
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    dense: dict[str, Any] = field(default_factory=dict)
    metric: MetricInfo = ACCURACY
    target: dict[str, float] = field(default_factory=dict)
    steps: int = 0
    split: str = ""
    data: str = ""
    device: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    speed: Speed | None = None
    config: dict[str, Any] = field(default_factory=dict)
    command: str = ""
    page: Path | None = None

    @property
    def standings(self) -> list[Standing]:
        """One per method, the best first."""
        return standings(self.rows, self.metric)

    @property
    def verdict(self) -> str:
        """How ours stands against the best rival, in a sentence that claims no more than the seeds show."""
        return verdict(self.standings, self.metric)

    def table(self) -> list[tuple[str, ...]]:
        """Cells of the table, in the order of `heads`."""
        return table(self.standings, self.metric)

    @property
    def heads(self) -> tuple[str, ...]:
        """Heads of the table's columns."""
        return heads(self.standings, self.metric)

    def remarks(self) -> list[str]:
        """Why methods have no value or no time, what they were timed with, and what else is to be said of some."""
        found = []
        for one in self.standings:
            if one.failed is not None:
                found.append(f"{one.name} failed{'' if not one.values else ' with some seeds'}: {one.failed}")
            if one.note:
                found.append(f"{one.name}: {one.note}")
            metric, asked = next(iter(self.target.items()), ("macs", 0.0))
            kept = getattr(one, metric)
            if kept is not None and kept < asked - SLACK:
                found.append(
                    f"{one.name} keeps {kept:.3f} of the {metric}, not {asked:g}: it came no nearer, so its "
                    "value is that of a smaller network"
                )
        made = {_made_with(row): row["method"] for row in reversed(self.rows) if not row["failed"]}
        if len(made) > 1:
            told = "; ".join(f"{device}, {versions} (such as {name})" for (device, versions), name in made.items())
            found.append(f"runs were made with other devices or versions, of which a difference may be: {told}")
        timed = [(row["method"], row["times"]) for row in self.rows if row["times"] is not None]
        untimed = sorted({row["method"] for row in self.rows if row["times"] is None and not row["failed"]})
        if timed and untimed:
            found.append(f"some runs of {', '.join(untimed)} were made without times")
        refused = {name: times.get("refused") for name, times in timed if times["latency"] is None}
        found += [
            f"{name}: a time is not to be believed ({cut(why or 'no reason is known')})"
            for name, why in refused.items()
        ]
        served = marks([times for _, times in timed])[1]
        mixed = ["runs were timed under different conditions, so no speed is told"] if len(served) > 1 else []
        return [*found, *served[: len(served) - len(mixed)], *mixed]

    def __str__(self) -> str:
        rows = [self.heads, *self.table()]
        widths = [max(len(row[at]) for row in rows) for at in range(len(self.heads))]
        lines = [
            "  ".join(c.rjust(w) if at else c.ljust(w) for at, (c, w) in enumerate(zip(row, widths, strict=True)))
            for row in rows
        ]
        return "\n".join([*(line.rstrip() for line in lines), self.verdict, *self.remarks()])

    def to_dict(self) -> dict[str, Any]:
        """Plain values, with the standings that follow from the rows."""
        values = {k: v for k, v in asdict(self).items() if k != "page"}
        found = self.standings
        told = [summary(one, found, self.metric) for one in found]
        return {**values, "metric": self.metric.to_dict(), "standings": told, "verdict": self.verdict}

    def find(self, name: str, words: str, seed: int) -> dict[str, Any] | None:
        """The row of a run, if it was made and did not fail: the cause of a failure may have been mended.

        Args:
            name: of the method.
            words: it in full, as in the row.
            seed: of the run.
        """
        key = {"method": name, "words": words, "seed": seed}
        done = (row for row in self.rows if row["failed"] is None)
        return next((row for row in done if all(row[k] == v for k, v in key.items())), None)

    def put(self, row: dict[str, Any]) -> None:
        """Add the row of a run, in the place of one that failed before.

        Args:
            row: as in `rows`.
        """
        key = ("method", "words", "seed")
        self.rows[:] = [old for old in self.rows if any(old[k] != row[k] for k in key)]
        self.rows.append(row)

    def write(self, folder: Path, identity: Mapping[str, Any]) -> None:
        """Write the book, whole or not at all.

        Args:
            folder: made if it is not there.
            identity: what the contest depends on, by name.

        Raises:
            RunError: it cannot be written.
        """
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / BOOK, {"format": _FORMAT, "identity": dict(identity), **self.to_dict()})


def _made_with(row: Mapping[str, Any]) -> tuple[str, str]:
    return row["device"], ", ".join(f"{name} {version}" for name, version in row["versions"].items())


def read_book(path: Path) -> tuple[Any, list[dict[str, Any]], Speed | None]:
    """Identity, rows and `speed` of a book, after a check of their form.

    Raises:
        RunError: it is malformed, or of another format.
    """
    try:
        content = read_json(path)
    except RunError as error:
        raise RunError(f"{error} Remove its folder to start anew.") from error
    try:
        rows, speed = content["rows"], content.get("speed")
        if content["format"] == 2:
            rows = [{"device": content["device"], "versions": content["versions"], **row} for row in rows]
        elif content["format"] != _FORMAT:
            raise ValueError(f"its format is {content['format']!r}, not {_FORMAT}")
        if type(rows) is not list:
            raise ValueError("its rows are no list")
        for row in rows:
            _check_row(row)
        if len({(row["method"], row["words"], row["seed"]) for row in rows}) < len(rows):
            raise ValueError("a run stands in it twice")
        return content["identity"], rows, None if speed is None else Speed.read(speed)
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(f"{path} is malformed ({error!r}). Remove its folder to start anew.") from error


def _check_row(row: Any) -> None:
    texts = all(type(row[key]) is str for key in ("method", "words", "note", "date", "device"))
    known = type(row["versions"]) is dict and all(type(version) is str for version in row["versions"].values())
    plain = type(row["seed"]) is int and type(row["rival"]) is bool and type(row["steps"]) is dict
    failed = row["failed"] is None or type(row["failed"]) is str
    numbers = all(is_number(row[key]) or row["failed"] for key in ("value", "macs", "params", "seconds"))
    counts = all(type(steps) is int and steps >= 0 for steps in row["steps"].values()) if plain else False
    shares = all(row["failed"] or 0 < row[key] <= 1.01 for key in ("macs", "params")) if numbers else False
    exact = row["exact"] is None or is_number(row["exact"])
    times = row["times"] is None or _is_times(row["times"])
    if not (texts and known and plain and failed and numbers and counts and shares and exact and times):
        raise ValueError("a row is of another form")


def _is_times(times: Any) -> bool:
    keys = ("latency", "dense_ms", "compact_ms", "spread")
    known = all(times[key] is None or (is_number(times[key]) and times[key] > 0) for key in keys[:3])
    kept = all(type(times[key]) in (str, int) for key in CONDITIONS)
    refused = type(times.get("refused", "")) is str
    return known and kept and refused and (times["spread"] is None or is_number(times["spread"]))
