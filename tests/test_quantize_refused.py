"""int8 files that are refused, and what a failure or Ctrl-C leaves behind: nothing."""

from __future__ import annotations

import tempfile
from pathlib import Path

import onnx
import pytest
import torch
from quantised import full_file
from torch import nn

import snnprune
from snnprune import quantize_onnx, quantizer
from snnprune.errors import ConfigError, DataError, ExportError


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[Path, list, list]:
    return full_file(tmp_path_factory.mktemp("full") / "full.onnx")


def test_the_test_data_refuse_too(made, tmp_path):
    full, train, val = made
    wrong = [(x, (y + 1) % 5) for x, y in val]  # labels that the fp32 file never gives
    train = [x / 50 for x, _ in train]  # ranges that cut off what comes later
    found = quantize_onnx(full, tmp_path / "q.onnx", train, wrong, tolerance=0.0)
    assert (found.val.fp32, found.val.lost <= 0) == (0.0, True), "int8 cannot lose what is not there"
    with pytest.raises(ExportError, match=r"on the test data it has accuracy .* in int8, 100.00% in fp32"):
        quantize_onnx(full, tmp_path / "r.onnx", train, wrong, test=val, tolerance=0.0)
    assert not (tmp_path / "r.onnx").exists()


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"tolerance": -0.1}, r"tolerance=-0.1 must be a number in \[0, 1\]"),
        ({"tolerance": 5}, "tolerance=5"),
        ({"tolerance": float("nan")}, "tolerance=nan"),
        ({"calibration_size": 0}, "calibration_size=0"),
        ({"method": "best"}, "use one of minmax, entropy, percentile"),
        ({"engine": "gpu"}, "use one of cpu, cpu-vnni, tensorrt"),
    ],
)
def test_options_that_make_no_sense(made, tmp_path, given, says):
    with pytest.raises(ConfigError, match=says):
        quantize_onnx(made[0], tmp_path / "q.onnx", made[1], made[2], **given)


def test_sources_that_will_not_do(made, tmp_path):
    full, train, val = made
    target = tmp_path / "q.onnx"
    quantize_onnx(full, tmp_path / "int8.onnx", train, val, tolerance=0.5)
    from snnprune.protos import in_form

    (tmp_path / "half.onnx").write_bytes(in_form(full.read_bytes(), fp16=True))
    (tmp_path / "broken.onnx").write_bytes(full.read_bytes()[:500])
    snnprune.export_onnx(nn.Sequential(nn.ReLU(), nn.Flatten()), tmp_path / "none.onnx", torch.randn(2, 3, 8, 8))
    reaching = onnx.load(full)
    weight = reaching.graph.initializer[0]
    weight.data_location = onnx.TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="../full.onnx")
    (tmp_path / "reaching.onnx").write_bytes(reaching.SerializeToString())
    for name, says in (
        ("int8", "quantised already"),
        ("half", "half-precision weights"),
        ("broken", "cannot load"),
        ("none", "nothing to quantise"),
        ("reaching", "no file in its own folder"),
        ("missing", "there is no file"),
    ):
        with pytest.raises(ExportError, match=says):
            quantize_onnx(tmp_path / f"{name}.onnx", target, train, val)
    with pytest.raises(DataError, match="iterator"):
        quantize_onnx(full, target, train, iter(val))
    with pytest.raises(DataError, match="hold no inputs"):
        quantize_onnx(full, target, [], val)
    with pytest.raises(DataError, match="yield no batch"):
        quantize_onnx(full, target, train, [])
    with pytest.raises(DataError, match="does not run on images of shape"):
        quantize_onnx(full, target, [torch.randn(8, 3, 4)], val)
    assert not target.exists()


def test_ctrl_c_and_failures_leave_nothing_behind(made, tmp_path, monkeypatch):
    """Also not in the system's folder for such files, nor a random number drawn of the caller's."""
    full, train, val = made
    room = tmp_path / "tmp"
    room.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(room))
    state = torch.get_rng_state()

    class Stops:
        def __init__(self, error: type[BaseException]) -> None:
            self.error = error

        def __iter__(self):
            torch.rand(3)
            yield val[0]
            raise self.error

    for error in (KeyboardInterrupt, ZeroDivisionError):
        for train_now, val_now in ((Stops(error), val), (train, Stops(error))):
            with pytest.raises(error):
                quantize_onnx(full, tmp_path / "out" / "q.onnx", train_now, val_now, tolerance=0.5)
            assert not list(room.iterdir())
    monkeypatch.setattr(quantizer.Quantizer, "made", lambda *_: 1 / 0)
    with pytest.raises(ExportError, match=r"cannot quantise it \(division by zero\)"):
        quantize_onnx(full, tmp_path / "out" / "q.onnx", train, val, tolerance=0.5)
    assert [p.name for p in tmp_path.iterdir()] == ["tmp"]
    assert not list(room.iterdir())
    assert torch.equal(torch.get_rng_state(), state)


def test_nothing_is_printed(made, tmp_path, capfd):
    full, train, val = made
    quantize_onnx(full, tmp_path / "q.onnx", train, val, tolerance=0.6, method="percentile")
    out = capfd.readouterr()
    assert (out.out, out.err) == ("", "")
