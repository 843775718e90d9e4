"""Every model of torchvision (and a choice of others): what can be pruned, is it exact, does it export?

Each model runs in a process of its own, with random weights, random norm statistics and float64 where
exactness is claimed. Results go to `zoo.json`; `--table` writes `zoo.md` from it. Nothing is downloaded.

    python benchmarks/zoo.py --family classification        # or: names of models
    python benchmarks/zoo.py --family others                # what `pip install ".[others]"` brings
    python benchmarks/zoo.py --table
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import datetime
import gc
import json
import multiprocessing
import os
import resource
import tempfile
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from zoo_models import FAMILIES, build, detection_inputs, names
from zoo_others import OTHERS, package
from zoo_table import table

import snnprune
from snnprune.budget import CostModel
from snnprune.errors import first_line
from snnprune.files import write_atomically, write_json
from snnprune.graph import find_groups
from snnprune.inputs import call, tensors_in, to_dtype
from snnprune.proof import random_scales, randomize_norms_, relative_difference, removal_difference, verify_groups
from snnprune.runs.report import device_name, versions
from snnprune.switching.proving import prove_neurons

HERE = Path(__file__).resolve().parent
RESULTS, TABLE = HERE / "zoo.json", HERE / "zoo.md"
# What every process needs is imported once, in the server that they are forked from.
IMPORTED = ("torch._dynamo", "torch.onnx", "torchvision", "networkx", "onnxscript", "onnxruntime", "snnprune")


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
    began, before = time.process_time(), peak_mb()
    groups = find_groups(model, example)
    row["graph_seconds"], row["graph_mb"] = round(time.process_time() - began, 1), round(peak_mb() - before)
    groups = verify_groups(model, groups, example)
    row["trace_seconds"], row["trace_mb"] = round(time.process_time() - began, 1), round(peak_mb())
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
    row["exact"], row["floor"] = difference.relative, difference.noise
    del wide
    with _step(row, "learn"):
        compact = _learn(model, groups, example, row)
        del model  # two of the models are too large to be held twice
        with _step(row, "backward"):
            trained = detection_inputs(row["input"], targeted=True) if family == "detection" else example
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
    row["seconds"], row["peak_mb"] = round(time.process_time() - began, 1), round(peak_mb())
    row |= {
        "date": datetime.date.today().isoformat(),
        "versions": versions()
        | ({package(family): metadata.version(package(family))} if family in OTHERS else {}),
        "device": device_name(torch.device("cpu")),
    }
    return row


def _learn(model: nn.Module, groups: Any, example: Any, row: dict[str, Any]) -> nn.Module:
    """Two steps of each phase under a budget, in place, then the proof on what was learned."""
    from snnprune.switching import switch_neurons

    model.train()
    try:
        call(model, example)
    except Exception:  # a batch norm over one value: learn in evaluation mode
        model.eval()
    with switch_neurons(model, groups, example) as gated:
        scores = {n: u.detach().double().numpy() for n, u in gated.segments.split(gated.scorer(model)).items()}
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
        row["learned"] = prove_neurons(gated, example)["remove"]
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
    os.environ.setdefault("PYTHONWARNINGS", "ignore")
    context = multiprocessing.get_context("forkserver")
    packages = {OTHERS[family] for family, _ in wanted if family in OTHERS}
    context.set_forkserver_preload([*IMPORTED, *sorted(packages)])
    for family, name in wanted:
        began = time.monotonic()
        row = {"family": family, "name": name, **_in_process(context, args, family, name)}
        rows = json.loads(args.results.read_text()) if args.results.exists() else []
        rows = [r for r in rows if (r["family"], r["name"]) != (family, name)] + [row]
        write_json(args.results, sorted(rows, key=lambda r: (FAMILIES.index(r["family"]), r["name"])))
        print(f"{name}: {row.get('error') or summary(row)} ({time.monotonic() - began:.0f} s)", flush=True)


def _in_process(context: Any, args: argparse.Namespace, family: str, name: str) -> dict[str, Any]:
    """What a process of its own finds out about a model within the time."""
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_tell, args=(sender, family, name, args.size, not args.no_onnx))
    process.start()
    sender.close()
    try:
        if not receiver.poll(args.timeout):
            return {"error": f"not done after {args.timeout} s"}
        return receiver.recv()
    except EOFError:
        process.join()
        return {"error": f"the process ended with {process.exitcode}"}
    finally:
        process.kill()
        process.join()


def _tell(sender: Any, family: str, name: str, size: int | None, onnx: bool) -> None:
    """Send a model's row, or what it failed with."""
    gc.freeze()  # a million objects of what is imported need not be searched for garbage again and again
    try:
        row = examine(family, name, size, onnx)
    except Exception as error:
        row = {"error": f"{type(error).__name__}: {first_line(error)}"[:300]}
    sender.send(row)


def summary(row: dict[str, Any]) -> str:
    """One line on a result."""
    steps = {k: v for k, v in row["steps"].items() if v != "ok"}
    return (
        f"{row['prunable']} prunable, {len(row['kept'])} kept, {row['prunable_macs']:.0%} of MACs, "
        f"exact {row['exact']:.1e}, learned {row.get('learned', float('nan')):.1e}, "
        f"onnx {row.get('onnx_error', float('nan')):.1e}, {steps or ''} {row['unproved'] or ''}"
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", help="names; by default the whole family")
    parser.add_argument("--family", choices=[*FAMILIES, "all", "others"], default="classification")
    parser.add_argument("--size", type=int, help="side of the input images")
    parser.add_argument("--timeout", type=int, default=1200, help="seconds per model")
    parser.add_argument("--no-onnx", action="store_true")
    parser.add_argument("--missing", action="store_true", help="only models that are not in the results yet")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--table", action="store_true", help=f"write {TABLE.name} from the results")
    args = parser.parse_args()
    if not args.table:
        ours = tuple(f for f in FAMILIES if f not in OTHERS)
        families = {"all": ours, "others": tuple(OTHERS)}.get(args.family, (args.family,))
        wanted = [(f, n) for f in families for n in names(f) if not args.models or n in args.models]
        if lost := [n for n in args.models if n not in {known for _, known in wanted}]:
            parser.error(f"--family {args.family} has no {', '.join(lost)}")
        wanted.sort(key=lambda w: args.models.index(w[1]) if args.models else 0)
        if args.missing and args.results.exists():
            have = {(r["family"], r["name"]) for r in json.loads(args.results.read_text()) if "error" not in r}
            wanted = [w for w in wanted if w not in have]
        run_all(wanted, args)
    if args.table:
        write_atomically(TABLE, lambda path: path.write_text(table(json.loads(args.results.read_text()))))
        print(TABLE)


if __name__ == "__main__":
    main()
