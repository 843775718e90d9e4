"""Table and figures from papers.json, like those of arXiv 2110.05954."""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from pathlib import Path
from typing import Any

from papers_states import start_of, states
from published import AS_JPEG, PAPERS

from snnprune.files import write_atomically

MODES = {
    "joint": "in turn, as published",
    "together": "at every step, with momentum and weight decay",
    "separate": "switcher alone, network trained before and frozen",
    "connections": "connections",
}
COLOURS = {"off": "#e8e8e8", "weakened": "#8fb4d9", "strengthened": "#c1440e"}


def write_papers(results: Path, folder: Path) -> str:
    """Write papers.md and, where matplotlib is there, the figures; returns what was written."""
    rows = json.loads(results.read_text()) if results.exists() else []
    write_atomically(folder / "papers.md", lambda path: path.write_text(markdown(rows)))
    return f"{folder / 'papers.md'}" + ("" if figures(rows, folder) else " (no figures: pip install matplotlib)")


def markdown(rows: list[dict[str, Any]]) -> str:
    """One line per network and mode: ours over the runs, beside what was published."""
    found: dict[tuple[str, str, float, str, str], list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        found[row["network"], row["mode"], row["epochs"], start_of(row), row["data"]].append(row)
    lines = [
        "# The papers' experiments",
        "",
        "Made by the commands in [README.md](README.md) from `papers.json`. Fresh weights, free mode, no "
        "fine-tuning; test accuracies, mean ± standard deviation over the runs. *baseline* is the network alone, "
        "trained equally long, with momentum. *removed* counts weights without biases and norms, of FC layers "
        "alone where the paper does and where connections are switched. *start at* is the mean of the scores "
        "before the ReLU, where it is not the preset's (0.1). *kept* is of the first run. *published* is arXiv "
        "2110.05954.",
        "",
        "| network, data | learned | runs, epochs | baseline % | ours % | removed % | kept | "
        "published: baseline %, switcher %, removed % | published: kept |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    order = {name: i for i, name in enumerate(PAPERS)}
    for (name, mode, epochs, start, data), runs in sorted(
        found.items(), key=lambda kv: (order[kv[0][0]], kv[0][1:])
    ):
        paper = PAPERS[name]
        removed = "fc_removed" if paper.fc_only or mode == "connections" else "removed"
        published = {"joint": paper.joint, "together": paper.joint, "separate": paper.separate}.get(mode)
        beside = ("", "")
        if published is not None and not data.endswith(AS_JPEG):
            beside = (f"{paper.baseline:.2f}, {published[0]:.2f}, {published[1]:.2f}", published[2])
        cells = [
            f"{name}, {data}",
            MODES[mode] + start,
            f"{len(runs)}, {epochs:g}",
            spread([100 * r["baseline"] for r in runs]),
            spread([100 * r["accuracy"] for r in runs]),
            spread([100 * r[removed] for r in runs]),
            kept_widths(runs[0]),
            *beside,
        ]
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", *states(rows)]
    if rows:
        made = sorted({(r["date"], r["versions"]["torch"], r["device"]) for r in rows})
        lines += ["", f"Rows of {'; '.join(f'{date}, torch {torch}, {device}' for date, torch, device in made)}."]
    return "\n".join(lines) + "\n"


def spread(values: list[float]) -> str:
    """Mean, and the deviation where there are several."""
    mean = f"{statistics.fmean(values):.2f}"
    return mean if len(values) < 2 else f"{mean} ± {statistics.stdev(values):.2f}"


def kept_widths(row: dict[str, Any]) -> str:
    """Kept numbers of all groups of the first run."""
    return "-".join(str(g["kept"]) for g in row["groups"])


def figures(rows: list[dict[str, Any]], folder: Path) -> bool:
    """Pixel pattern, counts per epoch and patterns per layer of the first run of each network."""
    try:
        import matplotlib
    except ImportError:
        return False
    matplotlib.use("Agg")
    first: dict[str, dict[str, Any]] = {}
    for row in rows:
        if row["mode"] == "joint":
            first.setdefault(row["network"], row)
    for name, row in first.items():
        _counts(row, folder / "figures" / f"{name}-counts.svg")
        _patterns(row, folder / "figures" / f"{name}-patterns.svg")
        pixels = next((g["id"] for g in row["groups"] if g["size"] == 784), None)
        if pixels in row["scales"]:
            _pixels(row["scales"][pixels], folder / "figures" / f"{name}-pixels.svg")
    return True


def _save(figure: Any, path: Path) -> None:
    from matplotlib import pyplot, rc_context

    figure.tight_layout()
    path.parent.mkdir(exist_ok=True)
    with rc_context({"svg.hashsalt": path.name}):  # the same figure is the same file
        write_atomically(path, lambda p: figure.savefig(p, format="svg", metadata={"Date": None}))
    pyplot.close(figure)


def _kind(scale: float) -> int:
    return 0 if scale == 0 else 1 if scale < 1 else 2


def _legend(axis: Any) -> None:
    from matplotlib.patches import Patch

    axis.legend(handles=[Patch(color=c, label=n) for n, c in COLOURS.items()], fontsize=7, loc="best")


def _counts(row: dict[str, Any], path: Path) -> None:
    """Neurons that are off, weakened and strengthened, per group and epoch (the paper's figure 4, right)."""
    from matplotlib import pyplot

    sizes = {g["id"]: g["size"] for g in row["groups"]}
    figure, axes = pyplot.subplots(1, len(sizes), figsize=(2.8 * len(sizes), 2.6), squeeze=False)
    for axis, (group, size) in zip(axes[0], sizes.items(), strict=True):
        seen = [h["counts"][group] for h in row["history"]]
        epochs = range(1, len(seen) + 1)
        parts = [[size - k for k, _, _ in seen], [w for _, w, _ in seen], [s for _, _, s in seen]]
        axis.stackplot(epochs, parts, colors=list(COLOURS.values()))
        axis.set_title(group, fontsize=8)
        axis.set_xlabel("epoch", fontsize=7)
        axis.tick_params(labelsize=6)
    _legend(axes[0][0])
    _save(figure, path)


def _patterns(row: dict[str, Any], path: Path) -> None:
    """Every neuron of every group as a cell in its order in the layer (the paper's figure 5)."""
    from matplotlib import pyplot
    from matplotlib.colors import ListedColormap

    groups = {g["id"]: row["scales"][g["id"]] for g in row["groups"] if g["id"] in row["scales"]}
    figure, axes = pyplot.subplots(len(groups), 1, figsize=(7, 0.9 * len(groups) + 0.3), squeeze=False)
    for axis, (name, scales) in zip(axes[:, 0], groups.items(), strict=True):
        width = min(len(scales), 100)
        cells = [_kind(s) for s in scales] + [-1] * (-len(scales) % width)
        grid = [cells[i : i + width] for i in range(0, len(cells), width)]
        axis.imshow(grid, cmap=ListedColormap(["white", *COLOURS.values()]), vmin=-1, vmax=2, aspect="auto")
        axis.set_title(f"{name} ({len(scales)})", fontsize=7)
        axis.set_xticks([])
        axis.set_yticks([])
    _save(figure, path)


def _pixels(scales: list[float], path: Path) -> None:
    """Which pixels of a 28x28 image are read, and how strongly (the paper's figure 4, left)."""
    from matplotlib import pyplot
    from matplotlib.colors import ListedColormap

    figure, axis = pyplot.subplots(figsize=(3, 3))
    grid = [[_kind(scales[28 * y + x]) for x in range(28)] for y in range(28)]
    axis.imshow(grid, cmap=ListedColormap(list(COLOURS.values())), vmin=0, vmax=2)
    axis.set_xticks([])
    axis.set_yticks([])
    _save(figure, path)
