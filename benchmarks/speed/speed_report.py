"""Tables of the speed benchmarks, from their results file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from snnprune.files import write_atomically

HEAD = """# Speed

Made by the commands in [../README.md](../README.md) from `results.json`, where date, device and versions of
every row stand.
"""
OVERHEAD = """
## A step of the search against a plain training step

Ratios to the same network, batch and optimiser without a switcher, measured side by side. *together* is the
default: switcher and network learn at every step. *hold 8*: the switcher at every eighth. *in turn*: one step of
the switcher, one of the network with held scales. *teacher*: both sides also run the original model. Where a ratio
is below 1, other work has disturbed it. By default the search is 5 % of a run's steps; the others cost what plain
training with a teacher costs.

| network | batch | device | together: time, memory | together, teacher | hold 8 | in turn |
|---|---|---|---|---|---|---|
"""
RECOVERY = """
## A step of the recovery with `--channels-last`, `--compile` and `--precision bfloat16`

Time as a share of the step without them, measured side by side. *first*: the longest first step, in seconds, which
compiles. *both*: channels last, compiled.

| network | batch | device | channels last | compiled | both | both, bfloat16 | first |
|---|---|---|---|---|---|---|---|
"""
LOOP = """
## A step of the recovery against a loop written by hand

Time and launched operations (views left out) as a share of the same step in a script, of the same precision.

| network | batch | device | float32: time, operations | bfloat16: time, operations |
|---|---|---|---|---|
"""
PRECISION = """
## What half precision costs

Test accuracy of the compact model, mean over the seeds; runs differ in the precision of their learning alone.

| task | device | seeds | float32 | bfloat16 |
|---|---|---|---|---|
"""
GROWTH = """
## One pass of the switcher against the number of parameters

Forward and backward over all weights. *extra memory* is the peak without weights and their gradients, in sizes of
the largest weight tensor.

| network | params | neurons | device | seconds | ns per param | extra memory, largest tensors |
|---|---|---|---|---|---|---|
"""
OPERATIONS = """
## Operations that a step launches

Views left out, by `operations.py`; a GPU waits for each of them to be launched. *search*: switcher and network
learn at every step, no teacher. *scorer*: the switcher's own forward and backward in it. Optimisers update all
parameters by one call, as they do on a GPU by default; in the last column the plain step's goes from parameter to
parameter, as it does on a CPU by default (the search's own never does).

| network | plain | search | search / plain | scorer | search / plain by parameter |
|---|---|---|---|---|---|
"""
ONNX = """
## Speed in ONNX Runtime against MACs

One thread on a CPU. *latency*: cut to a share of the dense time. *speed-up* is the ratio of the fastest tenth of
the calls, which other work on the machine disturbs least; medians may tell another one.
*yield* is speed-up over MACs reduction: 1 is ideal.

| network, cut | batch | provider | kept: MACs | params | median ms | speed-up | yield |
|---|---|---|---|---|---|---|---|
"""


def write_speed(results: Path) -> str:
    """Write speed.md beside the results; returns its text."""
    rows: list[dict[str, Any]] = json.loads(results.read_text()) if results.exists() else []
    kinds = {
        kind: [r for r in rows if r["benchmark"] == kind]
        for kind in ("overhead", "recovery", "loop", "precision", "growth", "operations", "onnx")
    }
    text = HEAD + OVERHEAD
    for r in kinds["overhead"]:
        both = {kind: f"{r['time'][kind]:.2f}, {r['memory'][kind]:.2f}" for kind in r["time"]}
        cells = [both.get(k, "") for k in ("together", "together, teacher", "hold 8", "in turn")]
        text += f"| {r['case']} | {r['batch']} | {_device(r)} | {' | '.join(cells)} |\n"
    text += _missing(kinds["overhead"], "resnet50 at batch 64, vgg16, vit_b_16: `--device cuda`")
    text += RECOVERY
    for r in kinds["recovery"]:
        shown = ("channels_last", "compile", "both", "both, bfloat16")
        cells = [f"{r['time'][k]:.2f}" for k in shown] + [f"{max(r['first'].values()):.0f}"]
        text += f"| {r['case']} | {r['batch']} | {_device(r)} | {' | '.join(cells)} |\n"
    text += _missing(kinds["recovery"], "resnet50, vgg16, vit_b_16: `recovery.py --device cuda`")
    text += LOOP
    for r in kinds["loop"]:
        cells = [f"{r['time'][p]:.2f}, {r['launches'][p]:.2f}" for p in ("float32", "bfloat16")]
        text += f"| {r['case']} | {r['batch']} | {_device(r)} | {' | '.join(cells)} |\n"
    text += _missing(kinds["loop"], "`recovery.py --against-loop --device cuda`")
    text += PRECISION
    for r in kinds["precision"]:
        cells = [f"{r['mean'][p]:.4f}" for p in ("float32", "bfloat16")]
        text += f"| {r['case']} | {_device(r)} | {len(r['accuracy']['float32'])} | {' | '.join(cells)} |\n"
    text += _missing(kinds["precision"], "`recovery.py --accuracy --device cuda`")
    text += GROWTH
    for r in sorted(kinds["growth"], key=lambda r: r["params"]):
        text += (
            f"| {r['case']} | {r['params'] / 1e6:.2f}M | {r['neurons']} | {_device(r)} | {r['seconds']:.3g} | "
            f"{r['ns_per_param']:.0f} | {r['extra_over_largest_layer']:.1f} |\n"
        )
    text += OPERATIONS
    for r in kinds["operations"]:
        cells = [r["plain"], r["search"], f"{r['ratio']:.2f}", r["scorer"], f"{r['ratio_by_parameter']:.2f}"]
        text += f"| {r['case']} | {' | '.join(map(str, cells))} |\n"
    text += ONNX
    for r in kinds["onnx"]:
        text += (
            f"| {r['case']} | {r['batch']} | {r['provider'].removesuffix('ExecutionProvider')} | "
            f"{r['macs']:.3f} | {r.get('params', float('nan')):.3f} | "
            f"{r['median_ms']:.3g} | {r['speed_up']:.2f} | {r['yield']:.2f} |\n"
        )
    text += _missing(kinds["onnx"], "`--provider cuda --batch 32`", cuda="CUDAExecutionProvider")
    write_atomically(results.parent / "speed.md", lambda p: p.write_text(text))
    return text


def _device(row: dict[str, Any]) -> str:
    return row["device"] if not row["device"].startswith("cpu") else f"CPU, {row['threads']} thread(s)"


def _missing(rows: list[dict[str, Any]], what: str, cuda: str | None = None) -> str:
    done = any(r.get("provider") == cuda if cuda else not r["device"].startswith("cpu") for r in rows)
    return "" if done else f"\nOn a GPU: not run ({what}).\n"
