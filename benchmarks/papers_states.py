"""Every row that the papers published: its command, whether it was run here, and how long it takes."""

from __future__ import annotations

import json
import statistics
import time
from pathlib import Path
from typing import Any

from published import PAPERS, PUBLISHED, STD, Row

from snnprune.files import write_json

PACE = Path(__file__).resolve().parent / "papers_pace.json"
BATCH, SKIPPED, TIMED = 64, 2, 6  # inputs a step; steps that warm up; steps that are timed, an even number
SIZES = {  # data -> channels, side, training images after the validation part is taken off
    "mnist": (1, 28, 54_000),
    "cifar10": (3, 32, 45_000),
    "cifar100": (3, 32, 45_000),
    "mini-imagenet": (3, 84, 45_000),
}
OPTIONS = {"joint": "", "separate": " --separate", "connections": " --connections"}


def command(row: Row) -> str:
    """What makes all runs of a published row."""
    length = f"--epochs {row.epochs} --runs {row.runs}"
    return f"python benchmarks/papers.py {row.network}{OPTIONS[row.mode]} {length} --data-root DIR"


def state(row: Row, rows: list[dict[str, Any]]) -> str:
    """`run`, `cut short` with what there is, or `not run`.

    What was learned at every step (`together`) counts for what the paper learned in turn; lossy images count for
    nothing.
    """
    modes = ("joint", "together") if row.mode == "joint" else (row.mode,)
    by_length: dict[tuple[str, float, str], int] = {}
    for one in rows:
        if one["network"] == row.network and one["mode"] in modes and one["data"] == _source(row):
            key = one["mode"], one["epochs"], start_of(one)
            by_length[key] = by_length.get(key, 0) + 1
    if not by_length:
        return "not run"
    whole = [key for key, runs in by_length.items() if runs >= row.runs and key[1] >= row.epochs]
    best = max(whole or by_length, key=lambda key: (by_length[key] * key[1], key[0] == row.mode))
    runs, how = by_length[best], ", learned at every step" if best[0] == "together" else ""
    told = f"{runs} run{'s' * (runs != 1)} of {best[1]:g} epoch{'s' * (best[1] != 1)}{how}{best[2]}"
    return f"run: {told}" if whole else f"cut short: {told}"


def start_of(row: dict[str, Any]) -> str:
    """How a run began where it was not as the preset does; our own loop begins at 0 where nothing else is said."""
    mean, std = row.get("fresh_mean"), row.get("separate_std", STD)
    if mean is None and row["mode"] == "together":
        mean = 0.0
    words = "" if mean is None else f", start at {mean:g}"
    return words if std == STD else f"{words}, start spread by {std:g}"


def _source(row: Row) -> str:
    return PAPERS[row.network].data


def states(rows: list[dict[str, Any]]) -> list[str]:
    """Lines of the section."""
    known = json.loads(PACE.read_text()) if PACE.exists() else {}
    lines = [
        "## Every published row",
        "",
        "*Time* is of all runs that are meant, with the networks alone beside them, from the seconds of "
        f"{TIMED} steps of each (`python benchmarks/papers.py NETWORK --pace`) on the device named below; the "
        "papers say no number of epochs. What arXiv 2103.15590 has is listed by its networks and data; we hold no "
        "figures of it. Other work ran beside them: orders of magnitude, to plan with. A GPU was not measured.",
        "",
        "| paper | network, data, learned | state | time | command |",
        "|---|---|---|---|---|",
    ]
    for row in PUBLISHED:
        found = known.get(f"{row.network} {row.mode}")
        needs = "?" if found is None else hours(row.runs * row.epochs * found["seconds_per_epoch"])
        what = f"{row.network}, {_source(row)}, {row.mode}"
        lines.append(f"| {row.paper} | {what} | {state(row, rows)} | {needs} | `{command(row)}` |")
    devices = sorted(
        {f"{one['device']}, torch {one['versions']['torch']}, {one['date']}" for one in known.values()}
    )
    return [*lines, *(["", *(f"Times: {device}." for device in devices)] if devices else [])]


def hours(seconds: float) -> str:
    """A time to plan with."""
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.0f} days"


def measure_pace(name: str, mode: str, stamp: dict[str, Any], device: str) -> None:
    """Time some steps of the search and of the network alone on made-up inputs, and write it down.

    Args:
        name: of `PAPERS`.
        mode: `joint`, `separate` or `connections`.
        stamp: date, device and versions.
        device: to run on.
    """
    import torch
    from papers import config_of, network
    from torch.nn import functional as F

    import snnprune

    paper = PAPERS[name]
    channels, side, images = SIZES[paper.data]
    generator = torch.Generator().manual_seed(0)
    classes = dict(paper.kwargs).get("num_classes", 10)
    batches = [
        (
            torch.randn(BATCH, channels, side, side, generator=generator),
            torch.randint(classes, (BATCH,), generator=generator),
        )
        for _ in range(SKIPPED + TIMED)
    ]
    ticks: list[float] = []

    def tell(event: Any) -> None:
        if event.stage == "search" and event.step:
            ticks.append(time.monotonic())

    config = config_of(mode, 0, epochs=1, separate_std=STD)
    snnprune.optimize(network(name, 0), batches, None, config, device=device, callbacks=[tell])
    # switcher and network take turns, and their steps differ: the mean of whole turns
    learning = (ticks[SKIPPED - 1 + TIMED] - ticks[SKIPPED - 1]) / TIMED
    model, alone = network(name, 0).to(device).train(), []
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)
    for x, y in batches:
        began = time.monotonic()
        loss = F.cross_entropy(model(x.to(device)), y.to(device))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        float(loss.detach())  # waits for the device
        alone.append(time.monotonic() - began)
    known = json.loads(PACE.read_text()) if PACE.exists() else {}
    steps = images // BATCH
    known[f"{name} {mode}"] = {
        "step": round(learning, 4),
        "alone": round(statistics.median(alone[SKIPPED:]), 4),
        "seconds_per_epoch": round(steps * (learning + statistics.median(alone[SKIPPED:])), 1),
        **stamp,
    }
    write_json(PACE, dict(sorted(known.items())))
