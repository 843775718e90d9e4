"""The script for other devices, run as its user does: with ONNX Runtime and NumPy alone."""

from __future__ import annotations

import json
import subprocess
import sys
from types import SimpleNamespace

import pytest

from snnprune.errors import ConfigError
from snnprune.timing.answers import read_answers
from snnprune.timing.questions import Question
from snnprune.timing.script import write_script
from snnprune.timing.serving import Serving
from timing.test_portable import graph

ALONE = """
import runpy, sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "onnx", "snnprune", "onnxscript"):
            raise ImportError(name + " is not to be needed")
sys.meta_path.insert(0, Blocked())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
SERVING = Serving(engine="cpu", batch=2)


def questions(*ops: str) -> SimpleNamespace:
    return SimpleNamespace(families=[[Question(op, 0, graph(op))] for op in ops])


def run(folder, *args):
    command = [sys.executable, "-c", ALONE, "times.py", *args]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)


def test_it_runs_alone_and_goes_on_where_it_was_stopped(tmp_path):
    write_script(questions("Relu", "Abs"), SERVING, tmp_path / "times.py")
    done = run(tmp_path, "out.json", "--seconds", "0")
    assert done.returncode == 0, done.stderr
    assert done.stderr.endswith("2 of 2 graphs\nwrote out.json\n")
    key, found = read_answers(tmp_path / "out.json")
    assert found.keys() == {"Relu", "Abs"}
    assert all(found.values())
    assert key.items() >= SERVING.to_dict().items()
    assert key["device"]
    assert "onnxruntime" in key["version"]

    kept = json.loads((tmp_path / "out.json").read_text())
    kept["answers"] = {"Relu": 123.0}
    (tmp_path / "out.json").write_text(json.dumps(kept))
    assert run(tmp_path, "out.json", "--seconds", "0").returncode == 0
    again = read_answers(tmp_path / "out.json")[1]
    assert again["Relu"] == 123.0
    assert again["Abs"] not in (None, 123.0)

    (tmp_path / "out.json").write_text(json.dumps({**kept, "key": {**key, "threads": 2}}))
    assert run(tmp_path, "out.json", "--seconds", "0").returncode == 0
    assert read_answers(tmp_path / "out.json")[1]["Relu"] != 123.0, "times of other threads are no times of these"


@pytest.mark.parametrize("other", ["my notes", "[1]", '{"key": 1}', '{"key": {}, "answers": {"a": "1"}}'])
def test_a_file_of_something_else_is_not_written_over(tmp_path, other):
    write_script(questions("Relu"), SERVING, tmp_path / "times.py")
    (tmp_path / "times.json").write_text(other)
    done = run(tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("error: times.json is there, and holds no times of this script")
    assert (tmp_path / "times.json").read_text() == other


def test_what_does_not_serve_there_is_said(tmp_path):
    import onnxruntime

    write_script(questions("Relu"), Serving(engine="cuda"), tmp_path / "times.py")
    done = run(tmp_path)
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        assert done.returncode == 1
        assert "error: " in done.stderr
        assert "CUDA" in done.stderr
    done = run(tmp_path, "no/such/folder/times.json")
    assert done.returncode == 1
    assert done.stderr.startswith("error: no/such/folder/times.json cannot be read or written")


@pytest.mark.parametrize("engine", ["auto", "torch", "torch-compiled", "tensorrt", "cuda-graphs"])
def test_engines_that_no_script_can_have(tmp_path, engine):
    with pytest.raises(ConfigError, match=f"engine='{engine}'"):
        write_script(questions("Relu"), Serving(engine=engine), tmp_path / "times.py")
    assert not (tmp_path / "times.py").exists()


def test_the_same_questions_make_the_same_script(tmp_path):
    for name in ("a.py", "b.py"):
        write_script(questions("Relu", "Abs"), SERVING, tmp_path / name)
    assert (tmp_path / "a.py").read_bytes() == (tmp_path / "b.py").read_bytes()
    assert "snnprune" not in [
        line.split()[1]
        for line in (tmp_path / "a.py").read_text().splitlines()
        if line.startswith(("import ", "from "))
    ]
