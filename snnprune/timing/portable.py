"""Times graphs with ONNX Runtime and NumPy alone: here, and as a script on any other machine.

Nothing of the package is imported, so that this file with its graphs is the script that `profile --script` writes.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import io
import json
import platform
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

FILES = {"weights.f32": np.float32, "weights.f16": np.float16}
TYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(bool)": np.bool_,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
}
Providers = Sequence[Sequence[Any]]  # pairs of a name and its settings
Call = Callable[[], object]
Asked = Sequence[Any]  # name, bytes of weights, graph
TOGETHER = 2**29  # bytes of weights of graphs that are open at the same time


class NotServed(Exception):
    """The provider that was asked for does not serve on this machine."""


def write_weights(folder: Path, size: int) -> None:
    """Random numbers for all weights, of both signs and small: activations neither vanish nor overflow."""
    block = 0.05 * np.random.default_rng(0).standard_normal(2**20)
    for name, kind in FILES.items():
        data = block.astype(kind).tobytes()
        with (folder / name).open("wb") as file:  # piece by piece: a small device has no memory for all of it
            for at in range(0, size, len(data)):
                file.write(data[: size - at])


def open_graph(data: bytes, folder: Path, providers: Providers, threads: int) -> Call:
    """A call of a graph with everything bound.

    `providers` are pairs of a name and its settings; the first is who has to serve.
    """
    import onnxruntime

    if len(providers) > 1 and hasattr(onnxruntime, "preload_dlls"):
        with contextlib.redirect_stdout(io.StringIO()):
            onnxruntime.preload_dlls()  # CUDA's libraries from where pip put them
    path = folder / "graph.onnx"
    path.write_bytes(data)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    onnxruntime.set_default_logger_severity(4)  # what goes wrong is seen below, and said in our words
    session = onnxruntime.InferenceSession(
        str(path), options, providers=[tuple(p) for p in providers], enable_fallback=0
    )
    session.disable_fallback()
    if session.get_providers()[0] != providers[0][0]:
        raise NotServed(f"ONNX Runtime does not get the {providers[0][0]} here.")
    device = "cpu" if len(providers) == 1 else "cuda"
    binding = session.io_binding()
    random = np.random.default_rng(0)
    for entry in session.get_inputs():
        values = 0.1 * random.standard_normal(entry.shape)
        value = onnxruntime.OrtValue.ortvalue_from_numpy(values.astype(TYPES[entry.type]), device, 0)
        binding.bind_ortvalue_input(entry.name, value)
    for entry in session.get_outputs():
        binding.bind_output(entry.name, device)

    def call() -> None:
        session.run_with_iobinding(binding)
        binding.synchronize_outputs()

    call()  # some graphs that can be opened cannot be run
    return call


def clock_for(providers: Providers, threads: int) -> Callable[[], float]:
    """What tells the time of a call.

    One thread of the CPU is timed by the time that it had a core: on a busy machine calls that are longer than a
    slice of the scheduler's would else never be seen undisturbed.
    """
    alone = len(providers) == 1 and threads == 1 and sys.platform != "win32"
    return time.thread_time if alone else time.perf_counter


def time_together(
    calls: Sequence[Call],
    seconds: float,
    clock: Callable[[], float] = time.perf_counter,
    least: int = 5,
    most: int = 400,
) -> list[float]:
    """Milliseconds of every call, a low quantile of calls in turn: what is above is other work of the machine."""
    for call in calls:
        call()
    times: list[list[float]] = [[] for _ in calls]
    began = time.perf_counter()
    while len(times[0]) < most and (len(times[0]) < least or time.perf_counter() - began < seconds):
        for call, own in zip(calls, times):
            at = clock()
            call()
            own.append(clock() - at)
    return [1000 * float(np.quantile(own, 0.1)) for own in times]


def answer(
    families: Sequence[Sequence[Asked]],
    providers: Providers,
    threads: int = 1,
    seconds: float = 0.05,
    known: Mapping[str, float | None] | None = None,
    tell: Callable[[int, int, dict[str, float | None]], None] | None = None,
) -> dict[str, float | None]:
    """Time all graphs.

    Args:
        families: lists of (name, bytes of weights, graph); those of one list are timed in turn. The first list has
            whole networks, and ten times as long.
        providers: see `open_graph`.
        threads: on a CPU.
        seconds: for each graph.
        known: name -> milliseconds, of graphs that need not be timed.
        tell: called after each list with the number of graphs done, the number of all, and all times so far.

    Returns:
        name -> milliseconds; None where the engine cannot run a graph.
    """
    found = dict(known or {})
    total, done = sum(len(family) for family in families), 0
    need = max([size for family in families for _, size, _ in family] or [0])
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write_weights(folder, need + 4096 * 64)
        for number, family in enumerate(families):
            todo = list({item[0]: item for item in family if item[0] not in found}.values())
            opened, held = [], 0
            for at, (name, size, data) in enumerate(todo):
                try:
                    opened.append((name, open_graph(data, folder, providers, threads)))
                except (NotServed, OSError):  # a full disk says nothing about the graph
                    raise
                except Exception:  # of ONNX Runtime, which has many
                    found[name] = None
                held += size
                if opened and (at + 1 == len(todo) or held > TOGETHER):
                    share = (10 if number == 0 else 1) * seconds * len(opened)
                    times = time_together([call for _, call in opened], share, clock_for(providers, threads))
                    found.update(zip([name for name, _ in opened], times))
                    opened, held = [], 0
            done += len(family)
            if tell is not None:
                tell(done, total, found)
    return found


def device_name(providers: Providers) -> str:
    """The CPU or GPU that computes."""
    if len(providers) > 1:
        asked = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
        try:
            return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.splitlines()[0].strip()
        except (OSError, subprocess.SubprocessError, IndexError):
            return "GPU"
    try:
        with Path("/proc/cpuinfo").open() as file:
            for line in file:
                name, _, value = line.partition(":")
                if name.strip() in ("model name", "Hardware", "Model") and value.strip():
                    return value.strip()
    except OSError:
        pass
    return platform.processor() or platform.machine() or "CPU"


def known_answers(output: Path, key: Mapping[str, Any]) -> dict[str, float | None]:
    """What an earlier call has timed in the same way; a file of anything else is not written over."""
    if not output.exists():
        return {}
    try:
        before = json.loads(output.read_text())
        found, answers = before["key"], dict(before["answers"])
        if any(type(ms) not in (int, float, type(None)) for ms in answers.values()):
            raise ValueError("a time is none")
    except (ValueError, KeyError, TypeError):
        sys.exit(f"error: {output} is there, and holds no times of this script. Name another file.")
    return answers if found == key else {}


def main(payload: dict[str, Any]) -> None:
    """Time what came with this script, and write the answers."""
    parser = argparse.ArgumentParser(description="Times the layers of a network on this machine, for snnprune.")
    parser.add_argument("output", nargs="?", default="times.json", help="file for the answers (times.json)")
    parser.add_argument("--seconds", type=float, default=0.05, help="for each graph (0.05)")
    options = parser.parse_args()
    try:
        import onnxruntime
    except ImportError:
        sys.exit("error: ONNX Runtime is not installed here (pip install onnxruntime, or onnxruntime-gpu).")
    output = Path(options.output)
    families = [
        [(name, size, zlib.decompress(base64.b64decode(data))) for name, size, data in family]
        for family in payload["families"]
    ]
    key = dict(payload["serving"])
    key["device"] = device_name(payload["providers"])
    key["version"] = "onnxruntime " + onnxruntime.__version__

    def tell(done: int, total: int, found: dict[str, float | None]) -> None:
        sys.stderr.write(f"\r{done} of {total} graphs")
        sys.stderr.flush()
        write(found)

    def write(found: dict[str, float | None]) -> None:
        partial = output.with_name(output.name + ".partial")
        partial.write_text(json.dumps({"format": 1, "key": key, "answers": found}))
        partial.replace(output)

    try:
        known = known_answers(output, key)  # goes on where it was stopped
        write(known)
        write(answer(families, payload["providers"], payload["serving"]["threads"], options.seconds, known, tell))
    except NotServed as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        sys.exit(f"error: {output} cannot be read or written ({error}).")
    except KeyboardInterrupt:
        sys.exit(f"\nstopped; the same command goes on from {output}")
    sys.stderr.write(f"\nwrote {output}\n")
