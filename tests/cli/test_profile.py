"""`snnprune profile`: times of layers, here and on another device, and what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import TIMES

from cli.conftest import ARCH, command, tree
from snnprune.cli.main import run
from snnprune.cli.progress import Display
from snnprune.learner import Event
from snnprune.runs.timer import Timer
from snnprune.timing.answers import cache_folder, read_answers
from snnprune.timing.compared import Compared
from snnprune.timing.questions import Questions, ask
from snnprune.timing.serving import Serving

PROFILE = ["profile", "digits.pt", *ARCH, "--engine", "cpu"]


@pytest.fixture(autouse=True)
def asked_once(monkeypatch) -> None:
    """The model of these tests is exported once for each form; that takes seconds, and is tested elsewhere."""
    for place in ("timing.profiling", "analysis.profiling", "analysis.foretold"):
        monkeypatch.setattr(f"snnprune.{place}.ask", _ask)


def _ask(model, groups, cost, example, serving):
    form = serving.batch, serving.precision, *((name, group.size) for name, group in sorted(cost.groups.items()))
    if form not in _ASKED:
        _ASKED[form] = ask(model, groups, cost, example, serving)
    return _ASKED[form]


_ASKED: dict[tuple, Questions] = {}


def told(capsys, *args: str) -> tuple[dict, str]:
    """What a command with --json says, and what it tells people."""
    assert run([*args, "--json"]) == 0
    out, err = capsys.readouterr()
    return json.loads(out), err


def test_it_says_what_takes_longest_and_keeps_the_times(capsys, layer_times, here):
    before = tree(here)
    found, said = told(capsys, *PROFILE)
    assert tree(here) == before, "without --output nothing is written here"
    assert found["serving"]["engine"] == "cpu"
    assert found["graphs"] == len(layer_times) > 20
    assert found["predicted_ms"] == pytest.approx(sum(part["ms"] for part in found["parts"]))
    slowest = max(found["parts"], key=lambda part: part["ms"])
    assert slowest["name"] == "hidden.0", "which has most of the weights"
    rows = [line for line in said.splitlines() if "│" in line]
    assert slowest["name"] in rows[0], "the slowest comes first"
    assert f"{slowest['ms'] / found['predicted_ms']:.1%}" in rows[0]
    for check in found["checks"]:
        assert check["error"] == pytest.approx(check["predicted_ms"] / check["measured_ms"] - 1)
    assert f"{found['dense_ms']:.3g} ms measured" in said
    assert found["cuts"] == []

    timed = len(layer_times)
    again, _ = told(capsys, *PROFILE)
    assert len(layer_times) == timed, "all of it was kept"
    assert again == found
    told(capsys, *PROFILE, "--anew")
    assert len(layer_times) == 2 * timed
    told(capsys, *PROFILE, "--batch-size", "4")
    assert len(layer_times) > 2 * timed, "other batches take other times"


def test_the_file_holds_the_times_and_a_run_takes_it(capsys, layer_times):
    found, _ = told(capsys, *PROFILE, "--batch-size", "2", "--output", "times.json")
    key, answers = read_answers(Path("times.json"))
    assert key == found["serving"]
    assert len(answers) == found["graphs"]
    timed = len(layer_times)
    plan, _ = told(capsys, *command(), *ARCH, "--target", "latency=0.8", "--profile", "times.json", "--dry-run")
    assert len(layer_times) == timed, "nothing is timed where a profile is given"
    (at,) = plan["at"].items()
    assert at == ("latency", pytest.approx(0.8 * found["dense_ms"] / found["predicted_ms"]))
    assert plan["start"]["latency"] <= plan["at"]["latency"]
    assert 0 < plan["least"]["latency"] < plan["at"]["latency"]
    assert "batch size 2" in plan["notes"][0]


def test_a_dry_run_says_what_is_not_known_yet(capsys, layer_times):
    args = [*command(), *ARCH, "--engine", "cpu", "--target", "latency=0.8", "--dry-run"]
    plan, _ = told(capsys, *args)
    assert layer_times == [], "a plan times nothing"
    assert plan["at"] == {"macs": 0.8}
    assert "latency" not in plan["least"]
    found, _ = told(capsys, *PROFILE)
    assert f"{found['graphs']} graphs" in plan["notes"][0]
    plan, said = told(capsys, *args)
    assert set(plan["at"]) == {"latency"}
    assert f"takes {plan['start']['latency']:.1%} of the time" in said
    ms, _ = told(capsys, *args[:-2], f"latency={0.8 * found['dense_ms']:.6f}ms", "--dry-run")
    assert ms["at"]["latency"] == pytest.approx(plan["at"]["latency"], rel=1e-4)


def test_check_times_real_cuts(capsys, layer_times, monkeypatch):
    """What is known of the time says how far off each prediction is; what is not known is a question mark."""
    sizes = []

    class Clock:
        def __init__(self, dense, _example, serving, *, limit):
            assert (serving.engine, limit) == ("cpu", 3.0)
            self.dense = sum(p.numel() for p in dense.parameters())

        def __call__(self, compact, *, predicted_ms):
            sizes.append(sum(p.numel() for p in compact.parameters()) / self.dense)
            known = len(sizes) < 3
            return Compared(
                dense_ms=1.0,
                compact_ms=2 * predicted_ms if known else None,
                share=0.4321 if known else None,
                spread=0.01,
                dense_spread=0.01,
                compact_spread=0.0123,
                refused=None if known else "it was a bad day",
                engine="cpu",
                version="",
                device="",
                batch=1,
                precision="fp32",
                threads=1,
                load="0.0 of 2 cores were busy with other things",
                predicted_ms=predicted_ms,
            )

    monkeypatch.setattr("snnprune.analysis.profiling.SideBySide", Clock)
    found, said = told(capsys, *PROFILE, "--check", "--limit", "3")
    assert [cut["width"] for cut in found["cuts"]] == [0.75, 0.5, 0.25]
    assert sizes == sorted(sizes, reverse=True)
    assert 0.4 < sizes[0] < 0.8
    assert [cut["error"] for cut in found["cuts"]] == [-0.5, -0.5, None]
    predicted = [cut["predicted_ms"] for cut in found["cuts"]]
    assert found["predicted_ms"] > predicted[0] > predicted[1] > predicted[2]
    assert "-50.0%" in said
    assert "0.43" in said
    assert "? widths 0.25: it was a bad day" in said
    assert said.count("0.0 of 2 cores") == 1


def test_a_script_for_another_device(capsys, layer_times, here, tmp_path):
    """The script times with ONNX Runtime, and a run here takes what it wrote."""
    found, said = told(capsys, *PROFILE, "--script", "there.py")
    assert (found["script"], found["engine"]) == ("there.py", "cpu")
    assert "python there.py times.json" in said
    assert layer_times == []
    own = [sys.executable, "-c", "import runpy, sys; sys.argv[0] = sys.argv.pop(1)\nrunpy.run_path(sys.argv[0], "]
    own[-1] += "run_name='__main__')"
    subprocess.run([*own, "there.py", "times.json", "--seconds", "0.0001"], check=True, capture_output=True)
    key, answers = read_answers(Path("times.json"))
    assert len(answers) == found["graphs"]
    plan, _ = told(capsys, *command(), *ARCH, "--target", "latency=0.99", "--profile", "times.json", "--dry-run")
    assert plan["at"].keys() == {"latency"}
    assert key["device"] in plan["notes"][0]


def test_ctrl_c_keeps_what_was_timed(capsys, layer_times, monkeypatch):
    from snnprune.timing import portable

    whole = portable.answer

    def stopped(families, *args, tell, **options):
        def once(done, total, found):
            tell(done, total, found)
            raise KeyboardInterrupt

        return whole(families, *args, tell=once, **options)

    monkeypatch.setattr(portable, "answer", stopped)
    assert run(PROFILE) == 130
    assert "stopped: what was timed so far is kept, and the same command goes on" in capsys.readouterr().err
    begun = len(layer_times)
    assert begun == 5, "the whole networks, and nothing after"
    monkeypatch.setattr(portable, "answer", whole)
    found, _ = told(capsys, *PROFILE)
    assert len(layer_times) == found["graphs"], "none of them twice"


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--engine", "torch", "--script", "s.py"], ("engine='torch'", "layer by layer")),
        (["--engine", "fast"], ("engine='fast' is unknown", "cuda-graphs")),
        (["--precision", "int8"], "precision='int8' is unknown"),
        (["--batch-size", "0"], "batch=0"),
        (["--threads", "-1"], "threads=-1"),
        (["--limit", "0"], "limit=0"),
        (["--engine", "auto", "--script", "s.py"], ("engine='auto'", "another device", "cpu or cuda")),
        (["--engine", "tensorrt", "--script", "s.py"], ("engine='tensorrt'", "script")),
        (["--script", "s.py", "--check"], "--check is for times of this machine"),
        (["--script", "s.py", "--output", "t.json"], "--output is for times of this machine"),
        (["--script", "s.py", "--anew"], "--anew is for times of this machine"),
        (["--script", "absent/s.py"], ("absent/s.py cannot be written", "no folder absent")),
        (["--output", "absent/t.json"], "absent/t.json cannot be written"),
        (["--output", "."], ". is a folder"),
        (["--image-size", "0"], "--image-size 0"),
        (["--keep", "*"], "nothing in this model can be pruned"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_makes_no_sense_is_refused(refused, layer_times, args, says):
    refused(*PROFILE, *args, says=says)
    assert layer_times == []


def test_a_missing_model_and_an_engine_that_does_not_serve(refused):
    refused("profile", "absent.pt", says="absent.pt")
    refused(*PROFILE, "--engine", "cuda", says="CUDA")


WRONG = {
    "nothing": "",
    "a list": "[]",
    "no times": "{}",
    "another format": json.dumps({"format": 9, "key": {}, "answers": {}}),
    "a time below 0": json.dumps({"format": 1, "key": Serving().to_dict(), "answers": {"a": -1}}),
    "no serving": json.dumps({"format": 1, "key": {}, "answers": {}}),
}


@pytest.mark.parametrize("content", WRONG.values(), ids=list(WRONG))
def test_a_file_that_is_no_profile(refused, content):
    Path("times.json").write_text(content)
    refused(*command(), *ARCH, "--target", "latency=0.5", "--profile", "times.json", says="times.json")


def test_a_profile_that_does_not_fit(refused, capsys, layer_times):
    refused(*command(), "--target", "latency=0.5", "--profile", "absent.json", says="absent.json")
    told(capsys, *PROFILE, "--output", "times.json", "--batch-size", "2")
    for flag, value in (("--engine", "cuda"), ("--serve-batch-size", "1"), ("--serve-precision", "fp16")):
        refused(
            *command(), *ARCH, "--target", "latency=0.5", "--profile", "times.json", flag, value,
            says=(f"{flag} {value}, but the times in times.json are of", "Leave it out"),
        )  # fmt: skip
    for more in ([], ["--dry-run"]):
        refused(
            *command(), *ARCH, "--target", "latency=0.5", "--profile", "times.json", "--keep", "features.3", *more,
            says="Make them anew, with this model and these options",
        )  # fmt: skip


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--profile", "times.json"], "--profile belongs to a target latency=..."),
        (["--target", "latency=0.5", "--engine", "quick"], "engine='quick'"),
        (["--target", "latency=0.5", "--serve-batch-size", "0"], "batch=0"),
        (["--target", "latency=0.5", "--granularity", "connection"], "latency=0.5 cannot be met by switching"),
        (["--target", "latency=3ms", "--granularity", "connection", "--dry-run"], "latency=3ms cannot be met"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_options_of_time_that_have_no_meaning(refused, options, says):
    refused(*command(), *ARCH, *options, says=says)


def test_what_serves_reaches_the_run(capsys, layer_times, monkeypatch):
    told(capsys, *PROFILE, "--output", "times.json", "--batch-size", "2")
    given = []

    def stop(model, train, val, config, **_kwargs):
        given.append(config)
        raise KeyboardInterrupt

    monkeypatch.setattr("snnprune.pipeline.optimize", stop)
    timed = [*command(), *ARCH, "--output", "out", "--target", "latency=0.5"]
    run([*timed, "--engine", "cuda", "--serve-batch-size", "8", "--serve-precision", "fp16", "--threads", "3"])
    assert given[-1].serving == Serving(engine="cuda", batch=8, precision="fp16", threads=3)
    run([*timed, "--profile", "times.json"])
    assert given[-1].serving == Serving(engine="cpu", batch=2)
    assert given[-1].profile == Path("times.json")
    run(timed)
    assert given[-1].serving == Serving()


def test_the_time_of_a_result_is_not_taken_where_it_is_not_wanted(capsys, timed):
    found, _ = told(capsys, *command(), *ARCH, "--output", "out", "--no-time")
    assert not timed
    assert found["latency"] is None
    found, _ = told(capsys, *command(), *ARCH, "--output", "again")
    assert len(timed) == 1
    assert found["latency"]["share"] > 0


def test_the_whole_way_by_real_clocks(capsys, monkeypatch):
    """Whatever the clocks say of so small a network: a run by them ends, and says what it saw."""
    monkeypatch.setattr(Timer, "__call__", TIMES)
    monkeypatch.setattr("snnprune.runs.timer._MOST", 0.5)
    found, said = told(
        capsys, *command(), *ARCH, "--target", "latency=0.9", "--engine", "cpu", "--floor", "0.02",
        "--limit", "256", "--output", "out",
    )  # fmt: skip
    assert found["target"] == {"latency": 0.9}
    assert "timing layers" in said
    trials = json.loads(Path("out/report.json").read_text())["trials"]
    assert trials[-1]["final"] is True
    assert all(trial["predicted_ms"] > 0 for trial in trials[:-1])
    assert [p.name.partition("-")[0] for p in (cache_folder() / "times").iterdir()] == ["cpu"]


def test_stages_have_titles(capsys):

    display = Display()
    display(Event("latency", 5, 44))
    display.last = 0.0
    display(Event("settle", 1, 5))
    said = "".join(capsys.readouterr())
    assert "timing layers 5/44" in said
    assert "timing the cut 1/5" in said
