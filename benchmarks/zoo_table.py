"""The zoo's results as Markdown."""

from __future__ import annotations

from typing import Any

from zoo_models import FAMILIES
from zoo_others import OTHERS, package

_PACKAGES = ("torch", "torchvision", "timm", "onnxruntime-gpu", *map(package, OTHERS))

_SHORT = (
    ("output of the model", "output"),
    ("layer norm", "layer norm"),
    ("group norm", "group norm"),
    ("taken apart", "shuffled by the code"),
    ("fails without its neurons", "width fixed in the code"),
    ("removal changes", "found out by the proof"),
    ("single neuron", "single neuron"),
    ("picked by their position", "picked by position"),
    ("no rule for the operation", "operation without a rule"),
    ("reads across its channels", "read across channels"),
    ("split by a constant", "split by a constant"),
    ("broadcast over", "broadcast"),
    ("is no plain layer", "layer of the model's own"),
)


def _why(kept: list[dict[str, Any]]) -> str:
    """Reasons of the kept groups with their numbers."""
    counts: dict[str, int] = {}
    for group in kept:
        text = next((short for key, short in _SHORT if key in group["reason"]), group["reason"].split(" (")[0])
        counts[text] = counts.get(text, 0) + 1
    return ", ".join(f"{n} {text}" for text, n in sorted(counts.items(), key=lambda item: -item[1]))


def _cell(row: dict[str, Any], step: str, key: str) -> str:
    """A measured difference, or what went wrong."""
    state = row["steps"].get(step, "-")
    return f"{row[key]:.0e}" if key in row else state.split(":")[0]


def _seconds(row: dict[str, Any]) -> str:
    """Seconds for the groups, with the proof, and for all; a dash where they were not taken as the others were."""
    taken = row["graph_seconds"] is not None
    return f"{row['graph_seconds']}, {row['trace_seconds']} | {row['seconds']:.0f}" if taken else "- | -"


def _measured(rows: list[dict[str, Any]]) -> str:
    """When, with what and on what the rows of a family were measured."""
    done = [r for r in rows if "error" not in r]
    if not done:
        return "Not measured."
    dates = sorted({r["date"] for r in done})
    newest = max(done, key=lambda r: r["date"])
    made = ", ".join(f"{k} {v}" for k, v in newest["versions"].items() if k in _PACKAGES)
    return f"{' to '.join(dict.fromkeys((dates[0], dates[-1])))}; {made}; {newest['device']}."


def table(rows: list[dict[str, Any]]) -> str:
    """The results as Markdown, one table per family."""
    lines = [
        "# What can be pruned, model by model",
        "",
        'Made by `python benchmarks/zoo.py --family all`, `--family others` (after `pip install ".[others]"`) and '
        "`--table`, from `zoo.json`. Random weights and norms, two inputs; nothing is downloaded.",
        "",
        "- **from end to end**: found, proved, learned, cut; gradients of the compact model are finite, it "
        "is saved, loaded into a fresh model and equal to the last bit, and exported to ONNX.",
        "- **groups**: prunable groups of neurons, with those that are heads of attention in brackets; **kept**: "
        "groups that stay whole, with the reason.",
        "- **MACs in reach**: share of the multiply-adds in layers that lose something when neurons go.",
        "- **removed**: params and MACs that go when 30 % of every group's neurons, at random, have scale 0.",
        "- **exact**: largest difference of gated and compact model in float64, over the outputs' standard "
        "deviation, with random scales, and (**learned**) after four steps of learning under a budget.",
        "- **ONNX**: largest difference of ONNX Runtime (CPU) from PyTorch, float32, on the same scale.",
        "- **graph**: seconds to find the groups, and with the proof (rows of 27 November and later: "
        "of CPU time, on a busy machine); **MB**: additional memory for finding them, and the most that the whole "
        "process held.",
        "",
    ]
    for family in FAMILIES:
        mine = [r for r in rows if r["family"] == family]
        if not mine:
            continue
        good = [r for r in mine if "error" not in r and all(v == "ok" for v in r["steps"].values())]
        lines += [
            f"## {family.capitalize()}: {len(good)} of {len(mine)} from end to end"
            + (" (without ONNX: PyTorch's exporter takes no list of images)" if family == "detection" else ""),
            "",
            _measured(mine),
            "",
            "| model | input | groups | kept | MACs in reach | params, MACs removed | exact | learned | ONNX "
            "| graph, s | all, s | MB |",
            "|---|---|---|---|---|---|---|---|---|---|---|---|",
        ]
        for row in mine:
            if "error" in row:
                lines.append(f"| {row['name']} | | {row['error']} | | | | | | | | | |")
                continue
            heads = f" ({row['heads']})" if row["heads"] else ""
            lines.append(
                f"| {row['name']} | {row['input']} | {row['prunable']}{heads} | {_why(row['kept'])} "
                f"| {row['prunable_macs']:.0%} | {row['params_removed']:.0%}, {row['macs_removed']:.0%} "
                f"| {row['exact']:.0e} | {_cell(row, 'learn', 'learned')} | {_cell(row, 'onnx', 'onnx_error')} "
                f"| {_seconds(row)} "
                f"| {row['graph_mb']}, {row['peak_mb']} |"
            )
        failed = [(r["name"], k, v) for r in mine if "error" not in r for k, v in r["steps"].items() if v != "ok"]
        lines += ["", *(f"- {name}, {step}: {text}" for name, step, text in failed), ""]
    return "\n".join(lines).rstrip() + "\n"
