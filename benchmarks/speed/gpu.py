"""Everything that waits for a GPU, in one go of at most ten minutes.

    python benchmarks/speed/gpu.py --results gpu-results
    python benchmarks/speed/gpu.py --results /tmp/try --device cpu --minutes 3   # tries the script itself out

The steps run one after another, each in a process of its own with a limit, the most telling ones first; what a
step has not finished in time is left out, and the next one begins. Results lie as JSON in the folder, with one log
for each step; copy them over those in this folder where they are to be reported.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Step:
    """One process.

    Attributes:
        name: of its log.
        command: after the interpreter.
        seconds: that it may take.
    """

    name: str
    command: tuple[str, ...]
    seconds: float


def steps(device: str, folder: Path) -> list[Step]:
    """All of them, in order."""
    gpu = device != "cpu"
    onnx, size = ("cuda", "224") if gpu else ("cpu", "64")
    precision = "fp16" if gpu else "fp32"
    compiled = "torch-compiled" if gpu else "torch"

    def speed(script: str, *more: str, results: str = "results.json") -> tuple[str, ...]:
        return (str(HERE / script), *more, "--results", str(folder / results), "--device", device)

    found = [Step("tests", ("-m", "pytest", "-q", str(HERE.parents[1] / "tests" / "test_gpu.py")), 120)]
    for batch in ("32", "1"):
        form = ("--engine", onnx, "--precision", precision, "--batch", batch, "--size", size)
        found.append(
            Step(
                f"targets-{onnx}-{batch}",
                speed("targets.py", "resnet18", "mobilenet_v2", "--idle", *form, results="targets.json"),
                150,
            )
        )
    form = ("--engine", compiled, "--precision", precision, "--batch", "32", "--size", size)
    found += [
        Step("targets-torch", speed("targets.py", "resnet18", "--idle", *form, results="targets.json"), 150),
        Step("onnx-32", speed("onnx_speed.py", "mobilenet_v2", "--provider", onnx, "--batch", "32"), 120),
        Step("onnx-1", speed("onnx_speed.py", "mobilenet_v2", "--provider", onnx), 120),
        Step(
            "profiles",
            speed(
                "profiles.py", "resnet50", "--engine", onnx, "--precision", precision, "--batch", "32",
                "--size", size, results="profiles.json",
            ),
            90,
        ),
        Step("overhead", speed("overhead.py", "resnet50" if gpu else "mlp", "--rounds", "3"), 90),
        Step("loop", speed("recovery.py", "resnet20", "--against-loop"), 60),
    ]  # fmt: skip
    return found


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--minutes", type=float, default=10)
    args = parser.parse_args()
    args.results.mkdir(parents=True, exist_ok=True)
    ends, done = time.monotonic() + 60 * args.minutes, {}
    for step in steps(args.device, args.results.resolve()):
        left = ends - time.monotonic()
        if left < 20:
            done[step.name] = "not begun"
            continue
        began = time.monotonic()
        with (args.results / f"{step.name}.log").open("w") as log:
            try:
                code = subprocess.run(
                    [sys.executable, *step.command],
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    timeout=min(step.seconds, left),
                    check=False,
                ).returncode
                done[step.name] = "done" if code == 0 else f"failed ({code})"
            except subprocess.TimeoutExpired:
                done[step.name] = "out of time"
        print(f"{step.name}: {done[step.name]}, {time.monotonic() - began:.0f} s", flush=True)
    (args.results / "steps.json").write_text(json.dumps(done, indent=1))


if __name__ == "__main__":
    main()
