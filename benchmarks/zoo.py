"""Every model of torchvision (and a choice of timm's): what can be pruned, is it exact, does it export?

Each model runs in a process of its own, with random weights, random norm statistics and float64 where
exactness is claimed. Results go to `zoo.json`; `--table` writes `zoo.md` from it. Nothing is downloaded.

    python benchmarks/zoo.py --family classification        # or: names of models
    python benchmarks/zoo.py --table
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import datetime
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import snnprune
from snnprune.budget import CostModel
from snnprune.files import write_atomically, write_json
from snnprune.graph import find_groups
from snnprune.inputs import call, tensors_in, to_dtype
from snnprune.pipeline.proof import prove_compaction
from snnprune.report import device_name, versions
from snnprune.surgery import (
    random_scales,
    randomize_norms_,
    relative_difference,
    removal_difference,
    verify_groups,
)

HERE = Path(__file__).resolve().parent
RESULTS, TABLE = HERE / "zoo.json", HERE / "zoo.md"
FAMILIES = ("classification", "segmentation", "detection", "video", "timm")
TIMM = (
    "resnet26d", "resnetv2_50", "seresnext26d_32x4d", "res2net50_26w_4s", "dla34", "hrnet_w18_small", "repvgg_a0",
    "cspresnet50", "ese_vovnet19b_dw", "skresnet18", "resnest14d", "dm_nfnet_f0", "efficientnet_lite0",
    "mobilenetv3_small_050", "ghostnet_050", "mobileone_s0", "fastvit_t8", "mobilevit_xxs", "edgenext_xx_small",
    "convnextv2_atto", "poolformer_s12", "resmlp_12_224", "mixer_s32_224", "vit_tiny_patch16_224",
    "deit3_small_patch16_224", "eva02_tiny_patch14_224", "pit_ti_224", "levit_128s",
    "swin_tiny_patch4_window7_224", "tiny_vit_5m_224", "xcit_nano_12_p16_224", "coatnet_0_rw_224",
)  # fmt: skip


def names(family: str) -> list[str]:
    """Models of a family."""
    if family == "timm":
        return list(TIMM)
    import torchvision

    module = torchvision.models if family == "classification" else getattr(torchvision.models, family)
    return list(torchvision.models.list_models(module=module))


def build(family: str, name: str, size: int | None) -> tuple[Callable[[], nn.Module], Any, dict[str, Any]]:
    """(factory, example inputs, what to say of them)."""
    if family == "timm":
        import timm

        side = size or (256 if name == "mobilevit_xxs" else 224)
        return lambda: timm.create_model(name), torch.randn(2, 3, side, side), {"input": side}
    import torchvision

    options: dict[str, Any] = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    if family in ("segmentation", "detection"):
        options["weights_backbone"] = None
    side = size or _side(family, name)
    example: Any = torch.randn(2, 3, side, side)
    if family == "video":
        frames = 32 if name == "s3d" else 16
        example = torch.randn(2, 3, frames, side, side)
        if name.startswith("mvit"):
            side, example = 224, torch.randn(2, 3, 16, 224, 224)
    if family == "detection":
        options |= {"min_size": side, "max_size": side} if "ssd" not in name else {}
        # Key points as targets must be float32, which a proof in float64 is not.
        example = _detection_inputs(side, targeted="keypoint" not in name)
    return lambda: torchvision.models.get_model(name, weights=None, **options), example, {"input": side}


def _side(family: str, name: str) -> int:
    if family == "detection":
        return 320 if name == "ssdlite320_mobilenet_v3_large" else 300 if "ssd" in name else 128
    if family == "video":
        return 224 if name == "s3d" else 64
    if name.startswith(("vit", "maxvit")):
        return 224
    return 299 if name == "inception_v3" else 128


def _detection_inputs(side: int, *, targeted: bool) -> tuple[Any, ...]:
    """(images, targets): with targets a detector also runs in training mode."""
    images, targets = [], []
    for shift in (0.0, 9.0):
        images.append(torch.rand(3, side, side))
        boxes = torch.tensor([[8.0, 8.0, 70.0, 60.0], [30.0, 20.0, 100.0, 110.0]]) + shift
        target: dict[str, Tensor] = {"boxes": boxes, "labels": torch.tensor([1, 1])}
        target["masks"] = torch.zeros(2, side, side, dtype=torch.uint8)
        target["masks"][:, 20:60, 20:60] = 1
        target["keypoints"] = torch.full((2, 17, 3), 30.0)
        targets.append(target)
    return (images, targets) if targeted else (images,)


def loss_of(output: Any) -> Tensor:
    """A scalar of any output: the sum of a detector's losses, else the mean square of everything."""
    if isinstance(output, dict) and output and all(t.dim() == 0 for t in tensors_in(output)):
        return torch.stack(tensors_in(output)).sum()
    parts = [t.float().square().mean() for t in tensors_in(output) if t.is_floating_point() and t.numel()]
    return torch.stack(parts).sum()


def peak_mb() -> float:
    """Most memory that this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def examine(family: str, name: str, size: int | None, onnx: bool) -> dict[str, Any]:
    """One model from end to end; what fails is recorded under the step's name."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    factory, example, row = build(family, name, size)
    generator = torch.Generator().manual_seed(0)
    model = randomize_norms_(factory().eval(), generator)
    row |= {"family": family, "name": name, "params": sum(p.numel() for p in model.parameters())}
    began, before = time.monotonic(), peak_mb()
    groups = find_groups(model, example)
    row["graph_seconds"], row["graph_mb"] = round(time.monotonic() - began, 1), round(peak_mb() - before)
    groups = verify_groups(model, groups, example)
    row["trace_seconds"], row["trace_mb"] = round(time.monotonic() - began, 1), round(peak_mb())
    prunable = [g for g in groups if g.prunable]
    row["prunable"], row["heads"] = len(prunable), sum(bool(g.heads) for g in prunable)
    row["kept"] = [{"id": g.id, "size": g.size, "reason": g.reason} for g in groups if not g.prunable]
    row["unproved"] = [g.id for g in groups if g.reason and ("removal" in g.reason or "fails" in g.reason)]
    cost = CostModel(model, groups, example)
    row["prunable_macs"] = round(cost.prunable_share("macs"), 4)
    scales = random_scales(groups, generator)
    kept = {n: (s > 0).numpy() for n, s in scales.items()}
    row["macs_removed"] = round(1 - cost.share("macs", kept), 4)
    row["params_removed"] = round(1 - cost.share("params", kept), 4)
    wide = copy.deepcopy(model).double()
    difference = removal_difference(wide, groups, scales, to_dtype(example, torch.float64))
    row["exact"], row["floor"] = difference.relative, difference.floor
    del wide
    with _step(row, "learn"):
        compact = _learn(model, groups, example, row)
        del model  # two of the models are too large to be held twice
        with _step(row, "backward"):
            trained = _detection_inputs(row["input"], targeted=True) if family == "detection" else example
            loss_of(call(compact.train(), trained)).backward()
            bad = [n for n, p in compact.named_parameters() if p.grad is not None and not p.grad.isfinite().all()]
            assert not bad, f"gradients are not finite: {bad[0]}"
            compact.zero_grad(set_to_none=True)
        compact.eval()
        with _step(row, "save"), tempfile.TemporaryDirectory() as folder, torch.no_grad():
            snnprune.save(compact, folder)
            again = snnprune.load(folder, model=factory())
            gap = relative_difference(call(compact, example), call(again, example))
            assert gap == 0, f"the loaded model differs by {gap}"
            del again
        if onnx and family != "detection":  # PyTorch's exporter takes no list of images
            with _step(row, "onnx"), tempfile.TemporaryDirectory() as folder:
                check = snnprune.export_onnx(compact, Path(folder) / "m.onnx", example)
                row["onnx_error"] = check.relative_error
    row["seconds"], row["peak_mb"] = round(time.monotonic() - began, 1), round(peak_mb())
    row |= {
        "date": datetime.date.today().isoformat(),
        "versions": versions(),
        "device": device_name(torch.device("cpu")),
    }
    return row


def _learn(model: nn.Module, groups: Any, example: Any, row: dict[str, Any]) -> nn.Module:
    """Two steps of each phase under a budget, in place, then the proof on what was learned."""
    from snnprune.encoding import Scorer
    from snnprune.gates import attach_groups

    model.train()
    try:
        call(model, example)
    except Exception:  # a batch norm over one value: learn in evaluation mode
        model.eval()
    scorer = Scorer(model, groups)
    with attach_groups(model, groups, example, scorer=scorer) as gated:
        scores = {n: u.detach().double().numpy() for n, u in scorer(model).items()}
        least = gated.cost.floor_share("macs", scores)
        gated.set_budget({"macs": min(1.0, max(0.7, least + 0.02))})
        for phase, parameters in (
            ("switcher", gated.scorer_parameters),
            ("network", gated.network_parameters),
        ) * 2:
            gated.set_phase(phase)  # type: ignore[arg-type]
            optimizer = torch.optim.SGD(parameters(), 1e-4)
            inputs = (example,) if not isinstance(example, tuple) else example
            loss = loss_of(gated(*inputs))
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters(), 1.0)
            optimizer.step()
        model.eval().zero_grad(set_to_none=True)
        row["learned"] = prove_compaction(gated, example)["remove"]
        return gated.compact()


@contextlib.contextmanager
def _step(row: dict[str, Any], name: str) -> Any:
    try:
        yield
        row.setdefault("steps", {})[name] = "ok"
    except Exception as error:
        text = str(error).strip().splitlines()
        row.setdefault("steps", {})[name] = f"{type(error).__name__}: {text[0][:200] if text else ''}"


def run_all(wanted: list[tuple[str, str]], args: argparse.Namespace) -> None:
    """One process per model; the rows of the file are replaced as results come in."""
    for family, name in wanted:
        command = [sys.executable, "-W", "ignore", __file__, "--one", family, name]
        command += ["--size", str(args.size)] if args.size else []
        command += ["--no-onnx"] if args.no_onnx else []
        began = time.monotonic()
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=args.timeout)
            lines = done.stdout.strip().splitlines()
            row = (
                json.loads(lines[-1]) if done.returncode == 0 else {"error": _last(done.stderr) or done.returncode}
            )
        except subprocess.TimeoutExpired:
            row = {"error": f"not done after {args.timeout} s"}
        row = {"family": family, "name": name, **row}
        rows = json.loads(args.results.read_text()) if args.results.exists() else []
        rows = [r for r in rows if (r["family"], r["name"]) != (family, name)] + [row]
        write_json(args.results, sorted(rows, key=lambda r: (FAMILIES.index(r["family"]), r["name"])))
        print(f"{name}: {row.get('error') or summary(row)} ({time.monotonic() - began:.0f} s)", flush=True)


def _last(text: str) -> str:
    lines = [line for line in text.strip().splitlines() if line.strip()]
    return lines[-1][:300] if lines else ""


def summary(row: dict[str, Any]) -> str:
    """One line on a result."""
    steps = {k: v for k, v in row["steps"].items() if v != "ok"}
    return (
        f"{row['prunable']} prunable, {len(row['kept'])} kept, {row['prunable_macs']:.0%} of MACs, "
        f"exact {row['exact']:.1e}, learned {row.get('learned', float('nan')):.1e}, "
        f"onnx {row.get('onnx_error', float('nan')):.1e}, {steps or ''} {row['unproved'] or ''}"
    )


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


def table(rows: list[dict[str, Any]]) -> str:
    """The results as Markdown, one table per family."""
    done = [r for r in rows if "error" not in r]
    newest = max(done, key=lambda r: r["date"])
    made = ", ".join(
        f"{k} {v}" for k, v in newest["versions"].items() if k in ("torch", "torchvision", "onnxruntime-gpu")
    )
    lines = [
        "# What can be pruned, model by model",
        "",
        "Made by `python benchmarks/zoo.py --family all && python benchmarks/zoo.py --table` from `zoo.json`, "
        f"{newest['date']}, {made}, {newest['device']}. Random weights and norms, two inputs.",
        "",
        "- **groups**: prunable groups of neurons, with those that are heads of attention in brackets; **kept**: "
        "groups that stay whole, with the reason.",
        "- **MACs in reach**: share of the multiply-adds in layers that lose something when neurons go.",
        "- **removed**: params and MACs that go when 30 % of every group's neurons, at random, have scale 0.",
        "- **exact**: largest difference of gated and compact model in float64, over the outputs' standard "
        "deviation, with random scales, and (**learned**) after four steps of learning under a budget.",
        "- **ONNX**: largest difference of ONNX Runtime (CPU) from PyTorch, float32, on the same scale.",
        "- **graph**: seconds to find the groups, and with the proof; **MB**: additional memory for finding them, "
        "and the most that the whole process held.",
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
                f"| {row['graph_seconds']}, {row['trace_seconds']} | {row['seconds']:.0f} "
                f"| {row['graph_mb']}, {row['peak_mb']} |"
            )
        failed = [(r["name"], k, v) for r in mine if "error" not in r for k, v in r["steps"].items() if v != "ok"]
        lines += ["", *(f"- {name}, {step}: {text}" for name, step, text in failed), ""]
    return "\n".join(lines).rstrip() + "\n"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", help="names; by default the whole family")
    parser.add_argument("--family", choices=[*FAMILIES, "all"], default="classification")
    parser.add_argument("--size", type=int, help="side of the input images")
    parser.add_argument("--timeout", type=int, default=1200, help="seconds per model")
    parser.add_argument("--no-onnx", action="store_true")
    parser.add_argument("--missing", action="store_true", help="only models that are not in the results yet")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--table", action="store_true", help=f"write {TABLE.name} from the results")
    parser.add_argument("--one", nargs=2, metavar=("FAMILY", "NAME"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(examine(*args.one, args.size, not args.no_onnx)))
        return
    if not args.table:
        families = FAMILIES if args.family == "all" else (args.family,)
        wanted = [(f, n) for f in families for n in (args.models or names(f))]
        if args.missing and args.results.exists():
            have = {(r["family"], r["name"]) for r in json.loads(args.results.read_text()) if "error" not in r}
            wanted = [w for w in wanted if w not in have]
        run_all(wanted, args)
    if args.table:
        write_atomically(TABLE, lambda path: path.write_text(table(json.loads(args.results.read_text()))))
        print(TABLE)


if __name__ == "__main__":
    main()
