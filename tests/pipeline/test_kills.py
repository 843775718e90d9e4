"""A run that is killed outright, at the moments that matter; `tests/faults/kills.py` does it at random ones."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.conftest import MADE, PAGE, SHORT, names, optimize, same, weights

# Runs the command line and kills itself at an event.
VICTIM = """
import os, signal, sys
from snnprune.cli import main
from snnprune.learner import loop

loop._CHECKPOINT_SECONDS = 0.0
event, *options = sys.argv[1:]

def kill_in(owner, name, hits, *, after):
    original = getattr(owner, name)

    def patched(*args, **kwargs):
        hit = hits(*args)
        result = original(*args, **kwargs) if after or not hit else None
        if hit:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, patched)

seen = []
if event == "between the two files of a checkpoint":
    def hits(_source, target):
        seen.append(str(target).endswith("state.previous.pt"))
        return sum(seen) == 7
    kill_in(os, "replace", hits, after=True)
elif event == "half of the report":
    kill_in(os, "chmod", lambda path, *_: ".report.json." in str(path), after=False)
elif event == "last rename":
    kill_in(os, "rename", lambda _source, target: str(target) == "out", after=True)
main(["optimize", *options])
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL on this system")
def test_nothing_is_lost_by_kills(made, model, here, said, capsys):
    (here / "victim.py").write_text(VICTIM)
    root = Path(__file__).resolve().parents[2]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)}

    def victim(event: str, *options: str) -> str:
        command = [sys.executable, "victim.py", event, model, *SHORT, "--output", "out", *options]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=env, check=False)
        assert done.returncode == -signal.SIGKILL, done.stdout + done.stderr
        return done.stdout

    victim("between the two files of a checkpoint")
    assert "state.pt" not in names(Path("out.partial/checkpoint"))
    output = victim("half of the report", "--resume")
    assert "searching" not in output
    assert [p.name for p in Path("out.partial").glob(".report.json.*.tmp")]
    victim("last rename", "--resume")
    assert names(Path("out")) == {*MADE, *PAGE, "checkpoint"}
    assert same(weights(Path("out")), weights(made / "run"))
    assert "out is finished already" in said(optimize(model, *SHORT, "--output", "out", "--resume"))
    assert names(Path("out")) == MADE | PAGE
    assert names(here) == {"digits.pt", "out", "victim.py"}


@pytest.mark.parametrize("options", [[], ["--resume"]], ids=["anew", "--resume"])
@pytest.mark.usefixtures("quick")
def test_what_was_killed_before_its_first_checkpoint_is_no_obstacle(made, model, capsys, options):
    Path("out.partial").mkdir()
    Path("out.partial.lock").write_text("process 1 on a machine")
    Path("out.partial/.model.onnx.1234.tmp").write_text("half of")
    assert optimize(model, *SHORT, "--output", "out", *options) == 0
    said = "there is no checkpoint in out.partial yet; starting from the beginning" in capsys.readouterr().out
    assert said == bool(options)
    assert names(Path("out")) == MADE
    assert names(Path()) == {"digits.pt", "out"}
    assert same(weights(Path("out")), weights(made / "run"))


@pytest.mark.usefixtures("quick")
def test_resume_finds_a_run_that_was_killed_while_loading(made, model):
    Path("runs").mkdir()
    Path("runs/digits-20260101-120000.partial.lock").write_text("process 1 on a machine")
    assert optimize(model, *SHORT, "--resume") == 0
    assert names(Path("runs")) == {"digits-20260101-120000"}
