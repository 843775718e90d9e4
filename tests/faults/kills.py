"""Kills a run at random moments until nothing can be lost: `python tests/faults/kills.py --kills 50 --seed 0`.

A short run on scikit-learn's digits is started, killed with its whole process group (SIGKILL), resumed, killed
again, and so on. Whenever one comes to its end, its weights must be those of the run that nobody killed, bit for
bit; its files must be readable, and nothing else may lie beside them. Then the next one is started.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MADE = {
    *(
        "kept.json",
        "model.onnx",
        "model.safetensors",
        "pictures.safetensors",
        "probe.safetensors",
        "report.html",
        "report.json",
        "run.yaml",
    ),
    *("scales.safetensors", "structure.json", "course.png", "groups.png", "maps.png", "scales.png"),
}
COMMAND = [
    *(
        "optimize",
        str(ROOT / "models" / "digits_cnn.pt"),
        "--arch",
        f"{ROOT / 'models' / 'digits_cnn.py'}:digits_cnn",
    ),
    *("--data", "digits", "--target", "params=0.3", "--epochs", "20", "--device", "cpu", "--output", "out"),
]


def child(seconds: float) -> None:
    """The program itself, with checkpoints so often that kills hit their writing."""
    from snnprune.cli import main
    from snnprune.learner import loop

    loop._CHECKPOINT_SECONDS = seconds
    main(COMMAND + sys.argv[sys.argv.index("--") + 1 :])


def launch(folder: Path, seconds: float, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(Path(__file__).resolve()), "--child", str(seconds), "--", *options]
    env = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "PYTHONUNBUFFERED": "1",
    }
    return subprocess.Popen(
        command,
        cwd=folder,
        env=env,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def state(folder: Path, output: str) -> str:
    """How far a killed run had come, by what lies in its folder and what it had said."""
    work = folder / "out.partial"
    if (folder / "out").exists():
        return "after the last rename"
    if (work / "model.safetensors").exists():
        return "in the last files"
    if (work / "model.onnx").exists():
        return "after the export"
    if not (work / "checkpoint").exists():
        return "before the first checkpoint"
    if any((work / "checkpoint").glob(".*.tmp")):
        return "in the writing of a checkpoint"
    lines = output.splitlines()
    return " ".join(w for w in lines[-1].split("  ")[0].split() if w.isalpha()) if lines else "starting"


def check(run: Path, reference: Path) -> list[str]:
    """What is wrong with a finished run."""
    import onnx
    from safetensors import safe_open

    wrong = []
    found = {p.name for p in run.rglob("*") if p.is_file()}
    if found - MADE or MADE - found:
        wrong.append(f"files {sorted(found)}")
    if (run / "model.safetensors").read_bytes() != (reference / "model.safetensors").read_bytes():
        wrong.append("other weights")
    reports = [json.loads((p / "report.json").read_text()) for p in (run, reference)]
    wrong += [
        f"report: {k}"
        for k in reports[0]
        if k not in ("seconds", "command", "date") and reports[0][k] != reports[1].get(k)
    ]
    structures = [json.loads((p / "structure.json").read_text()) for p in (run, reference)]
    if structures[0]["weights_sha256"] != structures[1]["weights_sha256"]:
        wrong.append("structure.json")
    onnx.checker.check_model(str(run / "model.onnx"))
    with safe_open(run / "probe.safetensors", "pt") as file:
        wrong += [] if set(file.keys()) == {"inputs", "outputs"} else ["probe.safetensors"]
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--every", type=float, default=0.05, help="seconds between checkpoints")
    options = parser.parse_args()
    rng = random.Random(options.seed)
    folder = Path(tempfile.mkdtemp(prefix="kills-"))
    print(f"in {folder}", flush=True)
    began = time.monotonic()
    whole = launch(folder, options.every)
    output = whole.communicate()[0]
    if whole.returncode:
        print(output)
        return 1
    length = time.monotonic() - began
    reference = (folder / "out").rename(folder / "reference")
    print(f"an uninterrupted run takes {length:.1f} s", flush=True)
    kills = finished = starts = failures = 0
    where: Counter[str] = Counter()
    while kills < options.kills or not finished or (folder / "out.partial").exists():
        going_on = (folder / "out.partial").exists()
        process = launch(folder, options.every, *(["--resume"] if going_on else []))
        starts += not going_on
        moment = rng.uniform(0, length) if kills < options.kills else None
        try:
            output = process.communicate(timeout=moment)[0]
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            found = state(folder, process.communicate()[0])
            kills += 1
            where[found] += 1
            print(f"kill {kills:3d} at {moment:5.1f} s {'resumed' if going_on else 'new':7}: {found}", flush=True)
            if not (folder / "out").exists():
                continue
            last = launch(folder, options.every, "--resume")  # it is there already: says so, and clears up
            output = last.communicate()[0]
            if last.returncode != 1 or "is finished already" not in output:
                print(output)
                failures += 1
        else:
            if process.returncode:
                print(output, flush=True)
                failures += 1
                for path in folder.glob("out*"):
                    path.rename(folder / f"failed-{failures}-{path.name}")
                continue
        wrong = check(folder / "out", reference)
        stray = sorted(p.name for p in folder.iterdir() if p.name not in ("out", "reference"))
        finished += 1
        failures += bool(wrong or stray)
        print(f"finished {finished}: {'; '.join([*wrong, *stray]) or 'equal bit for bit'}", flush=True)
        shutil.rmtree(folder / "out")
    print(
        f"{kills} kills in {starts} runs, {finished} finished, {failures} failures; killed {dict(where)}",
        flush=True,
    )
    if not failures:
        shutil.rmtree(folder)
    return int(bool(failures))


if __name__ == "__main__":
    if "--child" in sys.argv:
        child(float(sys.argv[sys.argv.index("--child") + 1]))
    sys.exit(main())
