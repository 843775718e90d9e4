"""Models side by side: what is timed, what is told, and what is refused."""

from __future__ import annotations

import json
import math

import pytest
import torch
from torch import nn

import snnprune
from snnprune import Latency, Serving
from snnprune.cli.main import run
from snnprune.errors import ConfigError, ExportError
from snnprune.export import export_onnx
from snnprune.timing import bench as module
from snnprune.timing.bench import Contender, bench, bench_onnx
from snnprune.timing.clock import Measured, Timing
from snnprune.timing.latency import judged
from snnprune.timing.load import Load


def net(width):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 3), nn.Flatten()
    ).eval()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench")
    for name, width in (("small", 4), ("large", 512)):
        export_onnx(net(width), folder / f"{name}.onnx", torch.randn(2, 3, 12, 12))
    return folder / "large.onnx", folder / "small.onnx"


@pytest.fixture
def clock(monkeypatch):
    """A clock that calls everything once and tells what it is told to; what it was asked for."""

    class Clock:
        ms = (10.0, 5.0)
        ratio_off, off, ran = 0.01, 0.02, 1.0
        asked: list

        def __call__(self, calls, **options):
            self.asked.append((list(calls), options))
            times = {}
            for at, (name, call) in enumerate(calls.items()):
                call()
                ms = self.ms[min(at, 1)]
                own = ms * (1 + (self.ratio_off if at else 0.0))
                times[name] = Timing(ms, 1.1 * ms, 1.5 * ms, self.off, 40, self.ran, (own, ms))
            return Measured(times, Load(2, 0.5), options["spread"], options["limit"])

    made = Clock()
    made.asked = []
    monkeypatch.setattr(module, "measure", made)
    return made


def test_everything_is_told(files):
    found = bench_onnx(files, batch_sizes=[1, 4], calls=9, warm_up=1, engine="cpu")
    assert [(one.path, one.batch) for one in found] == [(str(f), b) for b in (1, 4) for f in files]
    for large, small in (found[:2], found[2:]):
        assert 0 < large.p10_ms <= large.median_ms <= large.p90_ms
        assert (large.provider, large.calls, large.launch_bound) == ("CPUExecutionProvider", 9, None)
        assert (large.engine, large.precision, large.threads) == ("cpu", "fp32", 1)
        assert large.device == Serving(engine="cpu").device()
        assert math.isfinite(small.spread)
        assert math.isfinite(small.ratio_spread)


def test_files_and_networks_on_every_engine_in_one_table(files, clock):
    models = {"dense": net(8), "small": net(4)}
    servings = [Serving(engine="cpu"), Serving(engine="torch", batch=3, precision="fp16", threads=1)]
    found = bench(
        models, servings, example_inputs=torch.randn(2, 3, 12, 12), limit=7, spread=0.03, calls=11, warm_up=2
    )
    assert [(o.path, o.engine, o.batch, o.precision) for o in found] == [
        ("dense", "cpu", 1, "fp32"),
        ("small", "cpu", 1, "fp32"),
        ("dense", "torch", 3, "fp16"),
        ("small", "torch", 3, "fp16"),
    ]
    for one, base in ((found[1], found[0]), (found[3], found[2])):
        assert (base.ratio, one.ratio, one.ms, one.median_ms) == (1.0, 0.5, 5.0, 5.5)
        assert (one.ratio_spread, one.spread) == (pytest.approx(0.01), 0.02)
        assert one.load == "0.5 of 2 cores were busy with other things"
    for names, options in clock.asked:
        assert len(names) == 2
        assert {n: options[n] for n in ("limit", "spread", "most", "warm_up")} == {
            "limit": 7.0,
            "spread": 0.03,
            "most": 11,
            "warm_up": 2,
        }


def test_one_thread_is_timed_by_its_own_time(files, clock):
    bench_onnx(files, batch_sizes=[1], engine="cpu", threads=1)
    bench_onnx(files, batch_sizes=[1], engine="cpu", threads=2)
    assert [options["cpu"] for _, options in clock.asked] == [module.own_time, None]


def test_what_is_not_to_be_believed_is_no_figure(files, clock):
    clock.ratio_off, clock.ran = 0.2, 0.4
    base, one = bench_onnx(files, batch_sizes=[1], engine="cpu")
    assert (one.ms, one.ratio) == (None, None)
    assert "a core for only 40% of the time; 0.5 of 2 cores were busy" in str(one.refused)
    assert "its ratio varies by 20.0%" in str(one.ratio_refused)
    assert (base.ratio, base.ratio_refused) == (1.0, None)
    assert one.p10_ms == 5.0


def test_torch_does_not_run_onnx_files(files):
    with pytest.raises(ConfigError, match=r"large\.onnx: an ONNX file is run by ONNX Runtime alone"):
        bench(files, [Serving(engine="torch")], calls=1)
    with pytest.raises(ConfigError, match="neither an ONNX file nor a network"):
        bench([Contender("nothing")], [Serving(engine="cpu")])
    with pytest.raises(ConfigError, match="needs example_inputs"):
        bench([net(4)])


@pytest.mark.parametrize("models", ["a.onnx", 3, None, [3]])
def test_models_of_no_kind(models):
    with pytest.raises(ConfigError, match="models"):
        bench(models)


def test_servings_of_no_kind(files):
    for servings in (Serving(), ["cpu"], []):
        with pytest.raises(ConfigError, match="serving"):
            bench(files, servings)  # type: ignore[arg-type]


def test_threads_of_torch_are_put_back(clock):
    before, seen = torch.get_num_threads(), []

    class Noting(nn.Module):
        def forward(self, x):
            seen.append(torch.get_num_threads())
            return x

    bench([Noting()], [Serving(engine="torch", threads=before + 1)], example_inputs=torch.randn(2, 3))
    assert set(seen) == {before + 1}
    assert torch.get_num_threads() == before


def test_a_fixed_batch_size_is_named(tmp_path):
    one = nn.Sequential(nn.Flatten(), nn.Linear(12, 2)).eval()
    program = torch.onnx.export(one, (torch.randn(2, 3, 4),), dynamo=True, verbose=False)
    program.save(tmp_path / "fixed.onnx")
    assert bench_onnx([tmp_path / "fixed.onnx"], batch_sizes=[2], calls=1, engine="cpu")[0].batch == 2
    with pytest.raises(ExportError, match="fixed at 2; 3 was asked for"):
        bench_onnx([tmp_path / "fixed.onnx"], batch_sizes=[3], engine="cpu")


@pytest.mark.parametrize(
    "options",
    [
        {"calls": 0},
        {"batch_sizes": [0]},
        {"batch_sizes": []},
        {"warm_up": -1},
        {"engine": "tpu"},
        {"threads": -1},
        {"precision": "int8"},
        {"limit": 0},
        {"spread": 1},
    ],
)
def test_bad_numbers_are_refused(files, options):
    with pytest.raises(ConfigError):
        bench_onnx(files, **options)


def test_old_names_work_with_a_warning(files, clock):
    with pytest.warns(DeprecationWarning, match=r"provider='cpu'\) has moved: write engine='cpu'.* 0\.3"):
        assert bench_onnx(files, batch_sizes=[1], provider="cpu")[0].engine == "cpu"
    with pytest.warns(DeprecationWarning, match="threads=0"):
        assert bench_onnx(files, batch_sizes=[1], engine="cpu", threads=0)[0].threads >= 1
    with pytest.raises(ConfigError, match="provider"):
        bench_onnx(files, provider="tpu")  # type: ignore[arg-type]


def test_launch_bound_is_judged_on_the_gpu_alone():
    def one(batch, ms, provider="CUDAExecutionProvider", engine="cuda"):
        return Latency("a", provider, batch, ms, ms, ms, 5, engine=engine)

    assert judged(one(1, 1.0), [one(1, 1.0), one(32, 1.1)]).launch_bound is True
    assert judged(one(1, 1.0), [one(1, 1.0), one(32, 9.0)]).launch_bound is False
    assert judged(one(1, 1.0), [one(1, 1.0), one(2, 1.0)]).launch_bound is None
    assert judged(one(1, 1.0, "CPUExecutionProvider"), [one(32, 1.0)]).launch_bound is None
    assert judged(one(1, 1.0, "PyTorch cpu"), [one(32, 1.0)]).launch_bound is None
    assert judged(one(1, 1.0), [one(32, 1.0, engine="tensorrt")]).launch_bound is None


def test_the_command(files, capsys, here, monkeypatch, clock):
    names = [str(f) for f in files]
    assert run(["bench", *names, "--batch-size", "2", "--calls", "30", "--engine", "cpu", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [(f["path"], f["batch"], f["ms"], f["engine"]) for f in found] == [
        (names[0], 2, 10.0, "cpu"),
        (names[1], 2, 5.0, "cpu"),
    ]
    monkeypatch.setattr("snnprune.cli.bench.console.width", 200)
    flags = ["--limit", "3", "--spread", "0.04", "--warm-up", "0", "--threads", "2"]
    assert run(["bench", *names, *flags, "--precision", "fp32", "--precision", "fp16"]) == 0
    out = capsys.readouterr().out
    assert out.count("2.00x") == out.count("1.00x") == 4
    assert "speed-up" in out
    assert "CPU threads: 2" in out
    assert "0.5 of 2 cores" in out
    assert [(o["limit"], o["spread"], o["warm_up"]) for _, o in clock.asked[-4:]] == [(3.0, 0.04, 0)] * 4
    (here / "broken.onnx").write_bytes(b"no model")
    assert run(["bench", "broken.onnx"]) == 1
    assert "ONNX Runtime cannot load broken.onnx" in capsys.readouterr().err
    assert run(["bench", "nowhere.onnx"]) == 1
    assert "there is no file nowhere.onnx" in capsys.readouterr().err


def test_the_command_refuses_what_is_not_to_be_believed(files, capsys, here, monkeypatch, clock):
    monkeypatch.setattr("snnprune.cli.bench.console.width", 200)
    command = ["bench", *map(str, files), "--batch-size", "1", "--engine", "cpu"]
    clock.ran = 0.4
    assert run(command) == 0
    out = capsys.readouterr().out
    assert "2.00x" in out
    assert "a core for only 40% of the time" in out
    row = next(line for line in out.splitlines() if "2.00x" in line)
    assert row.count("?") == 4
    clock.ratio_off = 0.5
    assert run(command) == 1
    captured = capsys.readouterr()
    assert "its ratio varies by 50.0%" in captured.out
    assert "nothing that was timed can be trusted" in captured.err
    assert run([*command, "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert [(f["ms"], f["ratio"]) for f in found] == [(None, 1.0), (None, None)]


def test_old_options_of_the_command(files, capsys, here, clock):
    assert run(["bench", str(files[1]), "--batch-size", "1", "--provider", "cpu", "--threads", "0", "--json"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)[0]["engine"] == "cpu"
    assert "--provider goes in 0.3: write --engine cpu" in captured.err
    assert "--threads 0 goes in 0.3" in captured.err


def test_the_command_times_model_files_in_torch(here, capsys, clock):
    """And in ONNX Runtime, beside each other; an ONNX file alone it does not."""
    from conftest import DIGITS
    from digits_cnn import digits_cnn

    torch.save(digits_cnn().state_dict(), "digits.pt")
    engines = ["--engine", "torch", "--engine", "cpu", "--batch-size", "1", "--json"]
    assert run(["bench", "digits.pt", "--arch", DIGITS, "--image-size", "8", *engines]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [(f["engine"], f["provider"]) for f in found] == [
        ("torch", "PyTorch cpu"),
        ("cpu", "CPUExecutionProvider"),
    ]
    snnprune.export_onnx(digits_cnn().eval(), "digits.onnx", torch.rand(2, 1, 8, 8))
    assert run(["bench", "digits.onnx", *engines]) == 1
    assert "an ONNX file is run by ONNX Runtime alone" in capsys.readouterr().err
