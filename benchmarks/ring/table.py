"""The ring's report: a table and a picture from the results."""

from __future__ import annotations

import json
import math
import statistics
from collections import defaultdict
from pathlib import Path
from typing import Any

from methods import OURS, VARIANTS, first_knobs, recipe
from tasks import SAME, TASKS

from snnprune.files import write_atomically
from snnprune.rivals.standing import interval

MAIN = next(iter(OURS))

# Task, target, length in epochs (or 0), and what trained or that nobody tuned.
Corner = tuple[str, float, int, str]


def current(row: dict[str, Any]) -> bool:
    """Whether a row was made with the steps and options of today."""
    task = TASKS[row["task"]].at(row.get("epochs", 0))
    return row["steps"] == task.steps and row["recipe"] == recipe(task, row["method"])


def corner_of(row: dict[str, Any]) -> Corner:
    """Rows of one corner can be compared."""
    return row["task"], row["target"], row.get("epochs", 0), row.get("trainer") or ""


def _title(corner: Corner) -> str:
    task, target, epochs, trainer = corner
    length = f", {epochs} epoch{'s' * (epochs != 1)}" if epochs else ""
    return f"{task}, {TASKS[task].metric} = {target:g}{length}" + (f" ({trainer})" if trainer else "")


def corners(rows: list[dict[str, Any]]) -> dict[Corner, dict[str, dict[int, dict[str, Any]]]]:
    """Corner -> method -> seed -> final row.

    Raises:
        ValueError: a method has two rows of a seed: the test data were looked at twice, and one would be chosen;
            or rows of a seed are of different data or dense networks.
    """
    found: dict[Corner, dict[str, dict[int, dict[str, Any]]]] = defaultdict(lambda: defaultdict(dict))
    for row in rows:
        if row["kind"] == "final" and current(row):
            by_seed = found[corner_of(row)][row["method"]]
            if row["seed"] in by_seed:
                raise ValueError(
                    f"{row['method']} has two rows of seed {row['seed']} in {_title(corner_of(row))}; leave the "
                    "one whose knobs were chosen on the validation data."
                )
            by_seed[row["seed"]] = row
    for corner, methods in found.items():
        for seed in {seed for by_seed in methods.values() for seed in by_seed}:
            same = [by_seed[seed] for by_seed in methods.values() if seed in by_seed]
            dense = [row["dense_test"] for row in same]
            origins = [{row[name] for row in same if name in row} for name in ("data", "dense")]
            if max(dense) - min(dense) > SAME or any(len(one) > 1 for one in origins):
                where = _title(corner)
                raise ValueError(f"rows of seed {seed} in {where} are of different data or dense networks.")
    order = list(TASKS)
    return dict(sorted(found.items(), key=lambda item: (order.index(item[0][0]), -item[0][1], item[0][2:])))


def _knobs(knobs: dict[str, Any]) -> str:
    words = [f"lr {knobs['lr']:g}"]
    if "scope" in knobs:
        words += [knobs["scope"], "distilled" if knobs["teacher"] else "labels"]
    if "reg" in knobs:
        words.append(f"reg {knobs['reg']:g}")
    if "normalizer" in knobs:
        words.append(f"{knobs['normalizer']} norm")
    return ", ".join(words)


def _section(corner: Corner, methods: dict[str, dict[int, dict[str, Any]]]) -> list[str]:
    metric = TASKS[corner[0]].metric
    ours = methods.get(MAIN, {})
    some = next(iter(next(iter(methods.values())).values()))
    dense = statistics.fmean(r["dense_test"] for r in max(methods.values(), key=len).values())
    untuned = corner[3] == "untuned"  # nothing was chosen by the validation data, so they tell something too
    measured = ["test", "val"] if untuned else ["test"]
    heads = " | ".join(f"{name} % | ours less it, paired" for name in measured)
    half = " in bfloat16" if TASKS[corner[0]].at(corner[2]).half else ""
    lines = [
        f"## {_title(corner)}",
        "",
        f"{some['steps']} training steps{half}; dense {100 * dense:.2f} %. {_made(methods)}.",
        "",
        f"| method | knobs chosen | {heads} | {metric} kept | seconds |",
        "|---|---|" + "---|---|" * len(measured) + "---|---|",
    ]
    ranked = sorted(methods.items(), key=lambda item: -statistics.fmean(r["test"] for r in item[1].values()))
    for name, by_seed in ranked:
        cells = []
        for part in measured:
            pairs = [100 * (ours[s][part] - r[part]) for s, r in by_seed.items() if s in ours]
            cells.append(f"{_around([100 * r[part] for r in by_seed.values()])} ({len(by_seed)})")
            cells.append("" if name == MAIN or not pairs else _around(pairs, "+"))
        kept = statistics.fmean(r[metric] for r in by_seed.values())
        missed = "" if all(r["in_budget"] for r in by_seed.values()) else " (misses the target)"
        seconds = statistics.fmean(r["seconds"] for r in by_seed.values())
        shown = f"**{name}**" if name == MAIN else name
        knobs = _knobs(next(iter(by_seed.values()))["knobs"])
        lines.append(f"| {shown} | {knobs} | {' | '.join(cells)} | {kept:.3f}{missed} | {seconds:.0f} |")
    return [*lines, ""]


def _around(values: list[float], sign: str = "") -> str:
    """Mean with the half-width of its interval, which a single value has none of."""
    mean, half = interval(values)
    return f"{mean:{sign}.2f}" + ("" if math.isinf(half) else f" ± {half:.2f}")


def _made(methods: dict[str, dict[int, dict[str, Any]]]) -> str:
    """When, with what and on which device the rows of a section were made."""
    rows = [row for by_seed in methods.values() for row in by_seed.values()]
    dates = sorted({row["date"] for row in rows})
    versions = [
        f"{name} {' and '.join(sorted({row['versions'][name] for row in rows}))}"
        for name in ("torch", "torch-pruning")
    ]
    when = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"
    return ", ".join([when, *versions, *sorted({row["device"] for row in rows})])


def markdown(rows: list[dict[str, Any]]) -> str:
    """Everything, one section per task and target."""
    found = corners(rows)
    lines = [
        "# The ring",
        "",
        "Made by the commands in [../README.md](../README.md) from `results/`.",
        "",
        "Mean test accuracy ± half-width of its 95 % interval over (n) seeds; *ours less it* is the mean of the "
        "differences seed by seed with its interval, positive where the switcher is ahead. Knobs were chosen on "
        "the validation data of another seed, but in sections marked *untuned*: there they are those with which "
        "tuning would begin, and all methods are distilled. Nothing is chosen by the validation data there, so "
        "they are shown too: more images, from which no row learns (in `resnet20-pixels` the public network has). "
        "Where learning is *in bfloat16* it is so for all methods; networks are measured in float32 everywhere.",
        "",
    ]
    for corner, methods in found.items():
        lines += _section(corner, methods)
    lines += ablation(rows)
    return "\n".join(lines).rstrip() + "\n"


def ablation(rows: list[dict[str, Any]]) -> list[str]:
    """Validation accuracy of the recipe without one part at a time, paired with the whole."""
    found: dict[Corner, dict[str, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
    for row in rows:
        mine = current(row) and row["kind"] == "tune" and row["method"] in VARIANTS
        if mine and row["knobs"] == first_knobs(TASKS[row["task"]], row["method"]):
            found[corner_of(row)][row["method"]][row["seed"]] = 100 * row["val"]
    found = {corner: methods for corner, methods in found.items() if set(methods) - set(OURS)}
    if not found:
        return []
    order = [c for c in found if MAIN in found[c]]
    lines = [
        "## Ablation",
        "",
        "Validation accuracy, %, on the tuning seeds: the switcher as it is, then how each variant differs "
        "from it, the mean over (n) seeds.",
        "",
        "| variant | " + " | ".join(_title(corner).replace(" =", "") for corner in order) + " |",
        "|---|" + "---|" * len(order),
    ]
    for name in VARIANTS:
        cells = []
        for corner in order:
            base, own = found[corner][MAIN], found[corner].get(name, {})
            pairs = [value - base[seed] for seed, value in own.items() if seed in base]
            if name == MAIN:
                cells.append(f"{statistics.fmean(base.values()):.2f} ({len(base)})")
            else:
                cells.append(f"{statistics.fmean(pairs):+.2f} ({len(pairs)})" if pairs else "")
        if any(cells):
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return [*lines, ""]


def picture(rows: list[dict[str, Any]], path: Path) -> bool:
    """Accuracies of all methods per task and target; False without matplotlib."""
    try:
        import matplotlib
    except ImportError:
        return False
    matplotlib.use("Agg")
    from matplotlib import pyplot, rc_context

    found = corners(rows)
    figure, axes = pyplot.subplots(1, len(found), figsize=(3.2 * len(found), 3.4), squeeze=False)
    for axis, (corner, methods) in zip(axes[0], found.items(), strict=True):
        names = sorted(methods, key=lambda n: statistics.fmean(r["test"] for r in methods[n].values()))
        for at, name in enumerate(names):
            values = [100 * r["test"] for r in methods[name].values()]
            colour = "#c1440e" if name == MAIN else "#44617b"
            axis.plot(values, [at] * len(values), "o", ms=3, alpha=0.5, color=colour)
            axis.plot(statistics.fmean(values), at, "|", ms=14, mew=2, color=colour)
        axis.set_yticks(range(len(names)), names, fontsize=7)
        axis.set_title(_title(corner), fontsize=9)
        axis.set_xlabel("test accuracy, %", fontsize=8)
        axis.tick_params(axis="x", labelsize=7)
        axis.grid(axis="x", alpha=0.3)
    figure.tight_layout()
    with rc_context({"svg.hashsalt": path.name}):  # the same figure is the same file
        write_atomically(path, lambda p: figure.savefig(p, format="svg", metadata={"Date": None}))
    pyplot.close(figure)
    return True


def write_report(results: list[Path], folder: Path) -> str:
    """Table and picture; returns what was written."""
    rows = [row for path in results if path.exists() for row in json.loads(path.read_text())]
    text = markdown(rows)
    write_atomically(folder / "ring.md", lambda path: path.write_text(text))
    drawn = picture(rows, folder / "ring.svg")
    return f"{folder / 'ring.md'}" + (
        f", {folder / 'ring.svg'}" if drawn else " (no picture: pip install matplotlib)"
    )
