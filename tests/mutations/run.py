"""Puts faults into the code, one at a time, and counts those that no test notices.

`python tests/mutations/run.py budget surgery --sample 100 --seed 0` tries 100 of all faults in these packages;
all without `--sample`. A fault is a small change of the code (a number, a comparison, an argument, a statement
that goes), made in memory; the tests that reach its lines run, fastest first, in a child that has torch loaded
already. The folder of `--folder` keeps what was found, so that the same command goes on where it stopped;
`--again` tries those once more that were left, after tests were written for them.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import json
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from mutations.mutants import Faulty, Mutant
from mutations.trial import in_child, load, put_in, reached, run_tests

ROOT = Path(__file__).resolve().parents[2]
MODULES = ("budget", "surgery", "graph", "switching", "learner/loss.py")
TESTS = (  # of the packages above; those that pass in a moment first
    *(
        "test_costs.py",
        "test_scales.py",
        "test_resize.py",
        "test_neuron_labels.py",
        "test_moves.py",
        "test_compare.py",
        "test_floors.py",
        "test_ties.py",
        "test_keep.py",
        "test_graph_joined.py",
        "test_proof_limits.py",
        "test_macs.py",
    ),
    *(
        "test_budget.py",
        "test_target.py",
        "test_gates_rule.py",
        "test_surgery.py",
        "test_gates.py",
        "test_graph.py",
    ),
    *(
        "test_proof.py",
        "test_proof_obstacles.py",
        "test_attention.py",
        "test_attention_heads.py",
        "test_patches.py",
    ),
    *("test_sensitivity.py", "test_invariants.py", "test_saving.py", "test_evidence.py", "test_memory.py"),
    *(
        "connections",
        "learner/test_task_loss.py",
        "learner/test_loss.py",
        "learner/test_guards.py",
        "learner/test_search.py",
        "user_models",
    ),
)


def files_of(root: Path, names: Iterable[str]) -> list[str]:
    """Files of packages of `snnprune`, or files by their paths."""
    found = []
    for name in names:
        path = root / "snnprune" / name if (root / "snnprune" / name).exists() else root / name
        if not path.exists():
            raise SystemExit(f"{path}: there is no such package or file.")
        inside = sorted(path.glob("*.py")) if path.is_dir() else [path]
        found += [str(p.relative_to(root)) for p in inside if p.name != "__init__.py"]
    return found


def test_files(root: Path, names: Iterable[str]) -> list[str]:
    """Files of tests, folders opened, in the given order."""
    paths = [root / "tests" / name if (root / "tests" / name).exists() else root / name for name in names]
    inside = [sorted(path.glob("test_*.py")) if path.is_dir() else [path] for path in paths]
    return [str(path.relative_to(root)) for group in inside for path in group]


def digest(*paths: Path) -> str:
    """Of the contents of files."""
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in paths)).hexdigest()[:16]


def reach(root: Path, tests: list[str], folder: Path) -> dict[str, Any]:
    """What every test reaches; what is known already is read from the folder."""
    watched = [root / name for name in files_of(root, MODULES)] if root == ROOT else sorted(root.rglob("*.py"))
    sources = digest(*watched)
    found: dict[str, Any] = {}
    for test in tests:
        path = folder / f"{test.replace('/', '+')}-{digest(root / test)}-{sources}.json"
        if not path.exists():
            print(f"what {test} reaches", flush=True)
            in_child(lambda: reached(test, watched, path), seconds=900, log=folder / "log")  # noqa: B023
        if path.exists():
            found.update(json.loads(path.read_text()))
        else:
            print(f"{test} could not be watched; see {folder / 'log'}")
    return found


def tests_for(mutant: Mutant, known: dict[str, Any], most: float) -> tuple[list[str], float]:
    """The tests that run its lines, fastest first, for so many seconds; and their time."""
    lines = set(range(mutant.lines[0], mutant.lines[1] + 1))
    here = {name: test for name, test in known.items() if mutant.file in test["lines"]}
    exact = {name: test for name, test in here.items() if lines & set(test["lines"][mutant.file])}
    chosen, total = [], 0.0
    # Lines outside functions run while the tests are imported: then all that reach the file.
    for name, test in sorted((exact or ({} if mutant.inside else here)).items(), key=lambda t: t[1]["seconds"]):
        if chosen and total + test["seconds"] > most:
            break
        chosen.append(name)
        total += test["seconds"]
    return chosen, total


def outcome(root: Path, mutant: Mutant, known: dict[str, Any], most: float, folder: Path) -> str:
    """`killed`, `timeout`, `left`, or `unreached` where no test runs its lines."""
    tests, seconds = tests_for(mutant, known, most)
    if not tests:
        return "unreached"

    def work() -> int:
        put_in(root / mutant.file, mutant.code)
        return run_tests(tests)

    code = in_child(work, seconds=15 + 4 * seconds, log=folder / "log")
    return "timeout" if code == "timeout" else "left" if code == 0 else "killed"


def chosen(root: Path, files: list[str], sample: int | None, seed: int) -> list[Mutant]:
    """A sample over all faults of the files: a larger one holds the smaller one."""
    every = [(faulty, at) for faulty in (Faulty(root, file) for file in files) for at in range(len(faulty.ids))]
    every.sort(key=lambda fault: hashlib.sha256(f"{seed} {fault[0].ids[fault[1]]}".encode()).digest())
    return [faulty.build(at) for faulty, at in every[:sample]]


def table(rows: list[dict[str, Any]], files: list[str]) -> str:
    """Per package: tried, killed, timeouts, left."""
    counts: dict[str, Counter[str]] = {}
    for row in rows:
        if row["file"] in files:
            path = Path(row["file"])
            package = path.parent.name if path.parent.name != "learner" else path.name
            counts.setdefault(package, Counter())[row["outcome"]] += 1
    lines = [f"{'':16}{'tried':>8}{'killed':>8}{'timeout':>8}{'left':>8}"]
    for name, count in [*sorted(counts.items()), ("all", sum(counts.values(), Counter()))]:
        left = count["left"] + count["unreached"]
        lines.append(f"{name:16}{count.total():>8}{count['killed']:>8}{count['timeout']:>8}{left:>8}")
    return "\n".join(lines)


def main(arguments: list[str]) -> int:
    """Try the faults that are not known yet, print the table and what is left; 1 when something is."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("modules", nargs="*", default=MODULES, help="packages of snnprune, or files")
    parser.add_argument("--sample", type=int, help="so many faults, over all modules; all by default")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument("--most", type=float, default=30, help="seconds of tests for one fault")
    parser.add_argument("--again", action="store_true", help="those that were left, once more")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "snnprune-mutations")
    parser.add_argument("--tests", nargs="+", default=TESTS, help="files or folders of tests")
    parser.add_argument("--root", type=Path, default=ROOT, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    root, folder = options.root.resolve(), options.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    results = folder / "results.jsonl"
    files = files_of(root, options.modules)
    os.chdir(root)
    sys.dont_write_bytecode, sys.pycache_prefix = False, str(folder / "compiled")  # not into the repository
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the child ends too
    os.environ.update(PYTEST_DISABLE_PLUGIN_AUTOLOAD="1", OMP_NUM_THREADS="1")
    rows = [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []
    latest = {row["id"]: row for row in rows}
    mutants = chosen(root, files, options.sample, options.seed)
    again = {"left", "unreached"} if options.again else set()
    open_ = [m for m in mutants if m.id not in latest or latest[m.id]["outcome"] in again]
    print(f"{len(mutants)} faults, {len(open_)} to try")
    if open_:
        tests = test_files(root, options.tests)
        with contextlib.redirect_stdout(io.StringIO()) as said:
            code = load(tests)
        if code:
            raise SystemExit(f"the tests cannot be loaded:\n{said.getvalue()}")
        known = reach(root, tests, folder)
        for at, mutant in enumerate(open_):
            began = time.monotonic()
            result = outcome(root, mutant, known, options.most, folder)
            row = {"id": mutant.id, "file": mutant.file, "line": mutant.lines[0], "outcome": result}
            latest[mutant.id] = {**row, "seconds": round(time.monotonic() - began, 1), "change": mutant.change}
            with results.open("a") as file:
                file.write(json.dumps(latest[mutant.id]) + "\n")
            print(f"{at + 1}/{len(open_)} {result} {mutant.file}:{mutant.lines[0]}", flush=True)
    mine = [latest[m.id] for m in mutants]
    print(table(mine, files))
    left = [row for row in mine if row["outcome"] in ("left", "unreached")]
    for row in sorted(left, key=lambda row: (row["file"], row["line"])):
        print(f"\n{row['file']}:{row['line']} ({row['outcome']})\n{row['change']}")
    return int(bool(left))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
