"""Times graphs with ONNX Runtime and NumPy alone: here, and as a script on any other machine.

Nothing of the package is imported, so that this file with its graphs is the script that `profile --script` writes.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import tempfile
import time

import numpy as np

FILES = {"weights.f32": np.float32, "weights.f16": np.float16}
TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(int64)": np.int64, "tensor(int32)": np.int32}
PROVIDERS = {
    "cpu": ["CPUExecutionProvider"],
    "cuda": [("CUDAExecutionProvider", {"prefer_nhwc": "1"}), "CPUExecutionProvider"],
    "tensorrt": ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"],
}
TOGETHER = 2**29  # bytes of weights of graphs that are open at the same time


def write_weights(folder, size):
    """Random numbers for all weights: of both signs, and small, so that activations neither vanish nor overflow."""
    values = 0.05 * np.random.default_rng(0).standard_normal(size // 2 + 1)
    for name, kind in FILES.items():
        values.astype(kind).tofile(os.path.join(folder, name))


def open_graph(data, folder, engine, threads):
    """A call of a graph with everything bound."""
    import onnxruntime

    path = os.path.join(folder, "graph.onnx")
    with open(path, "wb") as file:
        file.write(data)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(path, options, providers=PROVIDERS[engine], enable_fallback=0)
    session.disable_fallback()
    first = PROVIDERS[engine][0]
    wanted = first if isinstance(first, str) else first[0]
    if session.get_providers()[0] != wanted:
        raise RuntimeError("ONNX Runtime does not get the %s here." % wanted)
    device = "cpu" if engine == "cpu" else "cuda"
    binding = session.io_binding()
    random = np.random.default_rng(0)
    for entry in session.get_inputs():
        values = 0.1 * random.standard_normal(entry.shape)
        value = onnxruntime.OrtValue.ortvalue_from_numpy(values.astype(TYPES[entry.type]), device, 0)
        binding.bind_ortvalue_input(entry.name, value)
    for entry in session.get_outputs():
        binding.bind_output(entry.name, device)

    def call():
        session.run_with_iobinding(binding)
        binding.synchronize_outputs()

    return call


def clock_for(engine, threads):
    """What tells the time of a call.

    One thread on a CPU is timed by the time that it really ran: on a busy machine calls that are longer than a slice of
    the scheduler's would else never be seen undisturbed.
    """
    fine = time.get_clock_info("thread_time").resolution <= 1e-6
    return time.thread_time if engine == "cpu" and threads == 1 and fine else time.perf_counter


def time_together(calls, seconds, clock=time.perf_counter, least=5, most=400):
    """Milliseconds of every call, a low quantile of calls in turn: what is above is other work of the machine."""
    for call in calls:
        call()
        call()
    times = [[] for _ in calls]
    began = time.perf_counter()
    while len(times[0]) < most and (len(times[0]) < least or time.perf_counter() - began < seconds):
        for call, own in zip(calls, times):
            at = clock()
            call()
            own.append(clock() - at)
    return [1000 * float(np.quantile(own, 0.1)) for own in times]


def answer(families, engine="cpu", threads=1, seconds=0.05, known=None, tell=None):
    """Time all graphs.

    Args:
        families: lists of (name, bytes of weights, graph); those of one list are timed in turn.
        engine: who serves.
        threads: on a CPU.
        seconds: for each graph.
        known: name -> milliseconds, of graphs that need not be timed.
        tell: called with the number of graphs done, and of all.

    Returns:
        name -> milliseconds; None where the engine cannot run a graph.
    """
    found = dict(known or {})
    total, done = sum(len(family) for family in families), 0
    need = max([size for family in families for _, size, _ in family] or [0])
    with tempfile.TemporaryDirectory() as folder:
        write_weights(folder, need + 4096 * 64)
        for family in families:
            chunk, held = [], 0
            todo = [item for item in family if item[0] not in found]
            for at, (name, size, data) in enumerate(todo):
                try:
                    chunk.append((name, open_graph(data, folder, engine, threads)))
                except Exception as error:
                    if "ONNX Runtime does not get" in str(error):
                        raise
                    found[name] = None
                held += size
                last = at + 1 == len(todo)
                if chunk and (last or held > TOGETHER):
                    times = time_together([call for _, call in chunk], seconds * len(chunk), clock_for(engine, threads))
                    found.update(zip([name for name, _ in chunk], times))
                    chunk, held = [], 0
            done += len(family)
            if tell is not None:
                tell(done, total)
    return found


def machine(engine, threads):
    """What sets times apart: the engine with its version, and the device."""
    import onnxruntime

    name = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo") as file:
            name = next((line.split(":", 1)[1].strip() for line in file if line.startswith("model name")), name)
    except OSError:
        pass
    return {
        "engine": engine,
        "version": onnxruntime.__version__,
        "device": name if engine == "cpu" else _gpu(),
        "threads": threads if engine == "cpu" else 0,
    }


def _gpu():
    import subprocess

    asked = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.splitlines()[0].strip()
    except (OSError, subprocess.SubprocessError, IndexError):
        return "GPU"
