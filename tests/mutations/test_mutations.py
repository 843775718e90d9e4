"""The command that puts faults in: it sees which are noticed, and goes on where it was stopped."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("mutmut", reason="comes with the extra [dev]")

from mutations.run import chosen

RUN = Path(__file__).with_name("run.py")
CODE = '''
import functools

LEAST = 4


@functools.lru_cache
def double(x):
    """Noticed: the test knows its value."""
    return 2 * x


def log(x):
    """Not noticed: nothing depends on what it keeps."""
    kept = []
    kept.append(x)
    return x


def idle(x):
    return x + 1
'''
TESTS = """
import sums


def test_values():
    assert sums.double(3) + sums.log(1) == 7
    assert sums.LEAST == 4
"""


def run(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(RUN), "sums.py", "--root", str(folder), "--folder", str(folder / "found")]
    command += ["--tests", "test_sums.py", *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=folder)


def test_faults_are_killed_left_or_unreached_and_none_is_tried_twice(tmp_path):
    (tmp_path / "sums.py").write_text(CODE)
    (tmp_path / "test_sums.py").write_text(TESTS)
    every = run(tmp_path)
    assert every.returncode == 1, every.stdout + every.stderr
    results = tmp_path / "found" / "results.jsonl"
    rows = [json.loads(line) for line in results.read_text().splitlines()]
    outcomes = {}
    for row in rows:
        outcomes.setdefault(row["change"].partition("\n")[0].strip("- "), set()).add(row["outcome"])
    assert outcomes == {
        "LEAST = 4": {"killed"},
        "return 2 * x": {"killed"},
        "kept = []": {"killed"},
        "kept.append(x)": {"left"},
        "return x + 1": {"unreached"},
    }
    assert (tmp_path / "sums.py").read_text() == CODE
    assert "-    kept.append(x)\n+    pass" in every.stdout
    (tmp_path / "test_sums.py").write_text(TESTS + "    assert sums.idle(1) == 2\n")
    again = run(tmp_path, "--again")
    left = sum(row["outcome"] != "killed" for row in rows)
    assert f"{len(rows)} faults, {left} to try" in again.stdout
    assert "kept.append(x)" in again.stdout
    assert "return x + 1" not in again.stdout


def test_a_larger_sample_holds_the_smaller_one(tmp_path):
    (tmp_path / "sums.py").write_text(CODE)
    some, more = ([m.id for m in chosen(tmp_path, ["sums.py"], size, seed=0)] for size in (3, 6))
    assert more[:3] == some
    assert len(set(more)) == 6
    (tmp_path / "sums.py").write_text(f"# elsewhere\n{CODE}")
    assert [m.id for m in chosen(tmp_path, ["sums.py"], 6, seed=0)] == more
