"""Tables of the benchmarks of time, from `targets.json`, `profiles.json` and `equal_time.json`: `times.md`."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

from snnprune.files import write_atomically

HEAD = """# Time

Made by the commands in [../README.md](../README.md) from `targets.json`, `profiles.json` and `equal_time.json`,
where date, device, versions and spreads of every row stand. Networks are torchvision's, images 224 x 224.
"""
TARGETS = """
## Is half the time what one gets?

`latency=0.5` while another process keeps a core busy: a loop that does nothing, or the training of a network. Then
both files were timed by `bench`, alone: *measured*, with its spread. *tries*: what the clock said of each cut
during the run; the first was chosen by the layers' times alone, the others by the clock's corrections.

| network, seed | beside | engine, batch | tries | measured | spread | kept: MACs | params | seconds |
|---|---|---|---|---|---|---|---|---|
"""
PROFILES = """
## Do the times of layers add up?

Share of the dense time of cuts that keep three quarters, half and a quarter of every width, as the layers' times
predict it and as the clock has it, and by how much the prediction is off. No cut is one that the profile was made
with.

| network | engine, precision, batch | dense ms | 0.75 | 0.5 | 0.25 | graphs | seconds |
|---|---|---|---|---|---|---|---|
"""
EQUAL = """
## Accuracy at equal time

Networks cut to half of their measured time (ONNX Runtime, CPU, one thread, batch 1) and recovered with the same
batches, as many steps in all, the same teacher and the same rate: by `latency=0.5`, by that share of the MACs that
takes as long, and by torch-pruning's criteria likewise. Images are 128 x 128. Test accuracy in per cent; *time*:
share of the dense one, of every seed, all files timed in one run.

| network | cut by | seeds | accuracy: mean (every seed) | dense | time | kept: MACs | params |
|---|---|---|---|---|---|---|---|
"""


def write_times(folder: Path) -> str:
    """Write times.md beside the results; returns its text."""
    text = HEAD + _targets(_rows(folder / "targets.json")) + _profiles(_rows(folder / "profiles.json"))
    text += _equal(_rows(folder / "equal_time.json"))
    write_atomically(folder / "times.md", lambda p: p.write_text(text))
    return text


def _rows(path: Path) -> list[dict[str, Any]]:
    return json.loads(path.read_text()) if path.exists() else []


def _targets(rows: list[dict[str, Any]]) -> str:
    text = TARGETS
    for r in sorted(rows, key=lambda r: (r["engine"], r["batch"], r["case"])):
        beside = {True: "a loop", False: "nothing"}.get(r["busy"], r["busy"])
        said = ", ".join("?" if share is None else f"{share:.3f}" for share in r["tries"])
        measured = "refused | " if r["measured"] is None else f"{r['measured']:.3f} | {r['spread']:.3f}"
        form = f"{r['engine']} {r['precision']}, {r['batch']}"
        text += (
            f"| {r['case']} | {beside} | {form} | {said} | {measured} | {r['macs']:.2f} | {r['params']:.2f} | "
            f"{r['seconds']:.0f} |\n"
        )
    halves = [r for r in rows if r["target"] == 0.5]
    good = sum(r["measured"] is not None and 0.42 <= r["measured"] <= 0.52 for r in halves)
    return f"{text}\nBetween 0.42 and 0.52: {good} of {len(halves)} runs.\n" + _missing(rows, "targets.py")


def _profiles(rows: list[dict[str, Any]]) -> str:
    text = PROFILES
    errors = []
    for r in rows:
        cells = [f"{r['engine']} {r['precision']}, {r['batch']}", f"{r['dense_ms']:.3g}"]
        for one in r["cuts"].values():
            if one["measured"] is None:
                cells.append(f"{one['predicted']:.3f}, clock refused")
                continue
            errors.append(abs(one["error"]))
            cells.append(f"{one['predicted']:.3f}, {one['measured']:.3f}: {one['error']:+.0%}")
        text += f"| {r['case']} | {' | '.join(cells)} | {r['graphs']} | {r['seconds']:.0f} |\n"
    if errors:
        within = sum(error <= 0.1 for error in errors)
        middle = statistics.median(errors)
        text += f"\nWithin 10 %: {within} of {len(errors)} cuts; at the median {middle:.1%} off.\n"
    return text + _missing(rows, "profiles.py")


def _equal(rows: list[dict[str, Any]]) -> str:
    text = EQUAL
    for network, method in dict.fromkeys((r["network"], r["method"]) for r in rows):
        own = [r for r in rows if (r["network"], r["method"]) == (network, method)]
        every = ", ".join(f"{100 * r['accuracy']:.1f}" for r in own)
        mean, before = (100 * statistics.mean(r[key] for r in own) for key in ("accuracy", "dense"))
        shares = ", ".join("?" if r["share"] is None else f"{r['share']:.3f}" for r in own)
        macs, params = (statistics.mean(r[key] for r in own) for key in ("macs", "params"))
        name = "`latency=0.5`" if method == "latency" else "MACs, as long" if method == "macs" else method
        cells = [network, name, len(own), f"{mean:.2f} ({every})", f"{before:.2f}", shares]
        text += f"| {' | '.join(map(str, cells))} | {macs:.2f} | {params:.2f} |\n"
    return text


def _missing(rows: list[dict[str, Any]], script: str) -> str:
    done = any(r["engine"] in ("cuda", "cuda-graphs", "tensorrt") for r in rows)
    return "" if done else f"\nOn a GPU: not run (`{script} --engine cuda --device cuda`, or all by `gpu.py`).\n"
