"""Fuzz every reader of files: python tests/fuzz/run.py --inputs 100000 --seed 0.

Each input is a valid file, damaged at random, or one that was made to ask for much. It must load, or be refused by
an error of this package, within one second and 100 MB beyond what a plain file of its size takes. The table counts
both; anything else is a crash, kept in the folder that --keep names.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import multiprocessing
import os
import resource
import signal
import sys
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

SECONDS, GROWTH = 1.0, 100 * 10**6  # of the processor, and bytes, beyond what a valid file takes
BYTE = 3e-7  # seconds that a byte of a plain list of numbers takes
HANG, HEADROOM = 30, 4 * 2**30


class Hang(BaseException):
    """An input took too long; not an Exception, so that no reader takes it for damage."""


def limit_memory() -> None:
    """Let this process take a few GiB more than it has, so that a bomb ends in a MemoryError."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * os.sysconf("SC_PAGE_SIZE") + HEADROOM
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def alarm(_signal: int, _frame: Any) -> None:
    raise Hang(f"longer than {HANG} s")


def memory(what: str) -> int:
    """Bytes of this process: `VmRSS` now, `VmHWM` at most since `forget_peak`."""
    text = Path("/proc/self/status").read_text()
    return 1024 * int(text.partition(f"{what}:")[2].split()[0])


def forget_peak() -> None:
    with contextlib.suppress(OSError):  # not allowed in every container; then the peak of all inputs counts
        Path("/proc/self/clear_refs").write_text("5")


def fuzz(name: str, inputs: int, seed: int, keep: Path, last: Path) -> Counter[str]:
    """Feed one reader; returns how many were loaded, refused, or crashed it."""
    from fuzz.targets import TARGETS, draw, loads

    target, counts = TARGETS[name], Counter[str]()
    random = Random(f"{seed} {name}")
    seconds = 0.0
    for data in target.valid() * 2:
        began = time.process_time()
        with contextlib.suppress(Exception):  # what is valid warms up; tests check that it loads
            loads(target, data)
        seconds = time.process_time() - began
    signal.signal(signal.SIGALRM, alarm)
    for at in range(inputs):
        data = draw(target, random)
        last.write_bytes(data)
        forget_peak()
        before, began = max(memory("VmRSS"), memory("VmHWM")), time.process_time()
        signal.alarm(HANG)
        try:
            counts["loaded" if loads(target, data) else "refused"] += 1
            took, grown = time.process_time() - began - seconds - BYTE * len(data), memory("VmHWM") - before
            if grown > GROWTH:
                raise MemoryError(f"{grown // 10**6} MB were taken")
            if took > SECONDS:
                raise Hang(f"{took:.2f} s were taken")
        except (Exception, Hang):
            signal.alarm(0)
            counts["crashes"] += 1
            keep.mkdir(parents=True, exist_ok=True)
            (keep / f"{name}-{seed}-{at}.bin").write_bytes(data)
            (keep / f"{name}-{seed}-{at}.txt").write_text(traceback.format_exc(), errors="replace")
        finally:
            signal.alarm(0)
    return counts


def child(name: str, inputs: int, seed: int, keep: Path, last: Path, pipe: Any) -> None:
    import torch

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    from fuzz import targets

    targets.TARGETS[name].valid()  # what is needed once, the exporter among it, is not counted
    limit_memory()
    pipe.send(fuzz(name, inputs, seed, keep, last))


def one(job: tuple[str, int, int, Path]) -> tuple[str, Counter[str], float]:
    """A reader in a process of its own, so that one that dies is a crash as well."""
    name, inputs, seed, keep = job
    began = time.monotonic()
    keep.mkdir(parents=True, exist_ok=True)
    last = keep / f".{name}-{os.getpid()}.last"
    context = multiprocessing.get_context("spawn")
    mine, theirs = context.Pipe(duplex=False)
    process = context.Process(target=child, args=(name, inputs, seed, keep, last, theirs))
    process.start()
    theirs.close()
    try:
        counts = mine.recv()
    except EOFError:
        counts = Counter(died=1, crashes=1)
        if last.exists():
            (keep / f"{name}-{seed}-died.bin").write_bytes(last.read_bytes())
    process.join()
    last.unlink(missing_ok=True)
    return name, counts, time.monotonic() - began


def main() -> int:
    from fuzz.targets import TARGETS

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--inputs", type=int, default=100_000, help="over all targets")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--target", choices=TARGETS, action="append", help="may be repeated; default: all")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--keep", type=Path, default=Path("fuzz-crashes"), help="folder for inputs that crash")
    options = parser.parse_args()
    names = options.target or list(TARGETS)
    each = -(-options.inputs // len(names))
    jobs = [(name, each, options.seed, options.keep) for name in names]
    print(f"{'target':16}{'loaded':>9}{'refused':>9}{'crashes':>9}{'s':>7}", flush=True)
    total: Counter[str] = Counter()
    with multiprocessing.pool.ThreadPool(options.processes) as pool:
        for name, counts, seconds in pool.imap_unordered(one, jobs):
            total += counts
            shown = "".join(f"{counts[key]:>9}" for key in ("loaded", "refused", "crashes"))
            print(f"{name:16}{shown}{seconds:>7.0f}{'  the process died' if counts['died'] else ''}", flush=True)
    print(f"{'all':16}" + "".join(f"{total[key]:>9}" for key in ("loaded", "refused", "crashes")))
    with contextlib.suppress(OSError):
        options.keep.rmdir()  # where nothing was kept
    return 1 if total["crashes"] else 0


if __name__ == "__main__":
    import multiprocessing.pool

    sys.exit(main())
