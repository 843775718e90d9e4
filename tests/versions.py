"""Run the tests with the oldest and with the newest supported versions: `python tests/versions.py [folder]`.

Two virtual environments are made in the folder (a temporary one by default) and used again if they are there;
pip brings about 6 GB for each. What stands after `--` goes to pytest, as in
`python tests/versions.py envs -- tests/cli`. Ends with 1 if either fails.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OLDEST = ROOT / "tests" / "oldest.txt"


def run(*command: object) -> int:
    """A command in the repository's root, with no other copy of the package in sight; its exit code."""
    print("+", *command, flush=True)
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
    return subprocess.run([str(part) for part in command], cwd=ROOT, env=environment).returncode


def check(name: str, folder: Path, tests: list[str]) -> str:
    """Install and test one set; returns "passed", or what failed."""
    python = folder / name / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if not python.exists() and run(sys.executable, "-m", "venv", folder / name):
        return "no virtual environment"
    choice = ["--constraint", OLDEST] if name == "oldest" else ["--upgrade", "--upgrade-strategy", "eager"]
    if run(python, "-m", "pip", "install", "--quiet", *choice, "--editable", f"{ROOT}[test]"):
        return "installation failed"
    if run(python, "-m", "snnprune", "--version"):
        return "the package does not start"
    return "tests failed" if run(python, "-m", "pytest", "-q", *tests) else "passed"


def main(arguments: list[str]) -> int:
    """Both sets, one after the other, and a summary."""
    at = arguments.index("--") if "--" in arguments else len(arguments)
    own, tests = arguments[:at], arguments[at + 1 :]
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", nargs="?", type=Path, help="for the environments; a temporary one by default")
    parser.add_argument("--only", choices=("oldest", "newest"))
    options = parser.parse_args(own)
    with tempfile.TemporaryDirectory() as temporary:
        folder = (options.folder or Path(temporary)).resolve()
        results = {}
        for name in ("oldest", "newest"):
            if options.only in (None, name):
                began = time.monotonic()
                outcome = check(name, folder, tests)
                results[name] = f"{outcome} ({time.monotonic() - began:.0f} s)"
    for name, outcome in results.items():
        print(f"{name}: {outcome}")
    return int(any(not outcome.startswith("passed") for outcome in results.values()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
