"""int8 files: types by engine, layers by what they lose, and how much they may lose."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper
from quantised import full_file, labelled
from torch import nn

import snnprune
from snnprune import quantize_onnx, quantizer
from snnprune.errors import DataError, ExportError
from snnprune.scores import Score


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[Path, list, list]:
    return full_file(tmp_path_factory.mktemp("full") / "full.onnx")


def weights(path: Path) -> list[np.ndarray]:
    """Those of several dimensions that are of 8 bits."""
    found = map(numpy_helper.to_array, onnx.load(path).graph.initializer)
    return [w for w in found if w.dtype == np.int8 and w.ndim > 1]


def test_the_file_is_smaller_and_says_what_it_is(made, tmp_path):
    full, train, val = made
    found = quantize_onnx(full, tmp_path / "q.onnx", train, val, test=val[:1], tolerance=0.2, calibration_size=40)
    assert (found.layers, found.layers_in_all, found.quantized, found.calibrated) == (5, 5, "all", 40)
    assert found.bytes_after == (tmp_path / "q.onnx").stat().st_size
    assert found.val.fp32 == 1.0
    assert found.val.int8 == found.val.same_class > 0.8
    assert (found.val.count, found.test.count) == (48, 16)
    told = snnprune.onnx_metadata(tmp_path / "q.onnx")
    assert told["snnprune.classes"] == list("abcde")
    assert told["snnprune.accuracy"] == {"split": "test", "value": found.test.int8}
    assert told["snnprune.quantization"]["fp32_accuracy"] == 1.0
    session = onnxruntime.InferenceSession(tmp_path / "q.onnx", providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {session.get_inputs()[0].name: val[0][0].numpy()})
    assert (logits.argmax(1) == val[0][1].numpy()).mean() == found.test.int8, "the figure is this file's"
    assert [p.name for p in tmp_path.iterdir()] == ["q.onnx"]


def test_weights_are_rounded_to_one_scale_per_channel(made, tmp_path):
    """A closed form: symmetric, the largest weight of each channel at the end of the range."""
    full, train, val = made
    quantize_onnx(full, tmp_path / "q.onnx", train, val, tolerance=0.5, engine="cpu-vnni")
    proto = onnx.load(tmp_path / "q.onnx")
    own = {w.name: numpy_helper.to_array(w) for w in onnx.load(full).graph.initializer}
    new = {w.name: numpy_helper.to_array(w) for w in proto.graph.initializer}
    (scale,) = [v for n, v in new.items() if n.startswith("a.weight") and n.endswith("scale")]
    (rounded,) = [v for n, v in new.items() if n.startswith("a.weight") and v.dtype == np.int8 and v.ndim == 4]
    largest = np.abs(own["a.weight"]).max((1, 2, 3))
    assert np.allclose(scale, largest / 127, rtol=1e-2)
    assert np.array_equal(rounded, np.rint(own["a.weight"] / scale[:, None, None, None]).astype(np.int8))


def test_types_by_engine(made, tmp_path):
    full, train, val = made
    sizes = {}
    for engine in ("cpu", "cpu-vnni", "tensorrt"):
        path = tmp_path / f"{engine}.onnx"
        sizes[engine] = quantize_onnx(full, path, train, val, tolerance=0.5, engine=engine).bytes_after
        proto = onnx.load(path)
        points = {w.name: numpy_helper.to_array(w) for w in proto.graph.initializer}
        used = [n for n in proto.graph.node if n.op_type == "QuantizeLinear" and n.input[0] not in points]
        zeros = [points[n.input[2]] for n in used]
        assert len(zeros) >= 5
        if engine == "tensorrt":
            assert all(z.dtype == np.int8 and not z.any() for z in zeros)
            assert not weights(path), "TensorRT quantises them itself"
            assert not any(v.dtype == np.int32 for v in points.values()), "it takes no whole numbers as biases"
        else:
            assert all(z.dtype == np.uint8 for z in zeros)
            largest = max(np.abs(w.astype(int)).max() for w in weights(path))
            assert largest == (64 if engine == "cpu" else 127)
    assert sizes["tensorrt"] > sizes["cpu"]


def test_softmax_gates_and_norms_stay_fractions(made, tmp_path):
    full, train, val = made
    quantize_onnx(full, tmp_path / "q.onnx", train, val, tolerance=0.5)
    proto = onnx.load(tmp_path / "q.onnx")
    made_by = {out: n.op_type for n in proto.graph.node for out in n.output}
    kinds = {n.op_type: {made_by.get(i) for i in n.input} for n in proto.graph.node}
    assert "DequantizeLinear" in kinds["Add"] & kinds["Conv"]
    assert kinds["Mul"] <= {"Sigmoid", "Add", "DequantizeLinear"}
    read_by = [n.op_type for n in proto.graph.node if "Mul" in {made_by.get(i) for i in n.input}]
    assert read_by == ["ReduceMean"], "what the gate gives is not rounded"


class Chain(nn.Module):
    """Three products; the named ones get a unit beside which nothing of the others is left in 8 bits."""

    def __init__(self, *outliers: str) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.first, self.middle, self.last = nn.Linear(6, 16), nn.Linear(16, 16), nn.Linear(16, 4)
        self.huge = outliers

    def forward(self, x):
        x = self._spoil(x, "first")
        y = self._spoil(torch.tanh(self.first(x)), "middle")
        return self.last(self._spoil(torch.tanh(self.middle(y)), "last"))

    def _spoil(self, x, name):
        """A number of a thousand among those of about one, whose weights are 0."""
        if name not in self.huge:
            return x
        with torch.no_grad():
            getattr(self, name).weight[:, 0] = 0
        return torch.cat([x[:, :1] * 0 + 1e4, x[:, 1:]], 1)


@pytest.mark.parametrize(
    ("outliers", "choice", "layers"),
    [((), "all", 3), (("first", "last"), "inner", 1), (("middle",), None, 0)],
    ids=["none", "ends", "middle"],
)
def test_layers_that_cannot_bear_it_are_left_out_and_refused_where_all_else_fails(
    outliers, choice, layers, tmp_path
):
    model, x = Chain(*outliers), torch.randn(64, 6, generator=torch.Generator().manual_seed(2))
    model(x)  # which sets the weights
    full, target = tmp_path / "full.onnx", tmp_path / "q.onnx"
    snnprune.export_onnx(model, full, x[:4])
    data = labelled(full, x)
    target.write_bytes(b"precious")
    if choice is None:
        with pytest.raises(ExportError, match=r"not written") as caught:
            quantize_onnx(full, target, data, data, tolerance=0.1)
        said = str(caught.value)
        assert "in int8, 100.00% in fp32, on 64 inputs" in said
        assert "a loss of 10.00%" in said
        assert "--tolerance" in said
        assert "--calibration-method" in said
        assert target.read_bytes() == b"precious"
        # told to allow it, the same file is written
        assert quantize_onnx(full, target, data, data, tolerance=1.0).val.lost > 0.1
        return
    found = quantize_onnx(full, target, data, data, tolerance=0.1)
    assert (found.quantized, found.layers, found.layers_in_all) == (choice, layers, 3)
    assert found.val.lost <= 0.1


def test_without_labels_it_is_the_agreement_that_counts(made, tmp_path):
    full, train, val = made
    inputs = [x for x, _ in val]
    found = quantize_onnx(full, tmp_path / "q.onnx", [x for x, _ in train], inputs, tolerance=0.2)
    assert (found.val.fp32, found.val.int8) == (None, None)
    assert found.val.lost == 1 - found.val.same_class
    assert "there are no labels" in str(found.val)
    assert snnprune.onnx_metadata(tmp_path / "q.onnx")["snnprune.accuracy"] is None
    with pytest.raises(ExportError, match="in the class that fp32 says"):
        quantize_onnx(full, tmp_path / "r.onnx", [x / 50 for x, _ in train], inputs, tolerance=0.0)


def test_scores():
    assert Score(0.9, 0.85, 0.5, 10).lost == pytest.approx(0.05)
    assert Score(None, None, 0.75, 10).lost == 0.25


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.l, self.r = nn.Linear(4, 8), nn.Linear(6, 8)
        self.out = nn.Linear(8, 3)

    def forward(self, left, right):
        return self.out(torch.relu(self.l(left) + self.r(right)))


def test_several_inputs_in_tuples_and_dicts_and_a_fixed_batch(tmp_path):
    torch.manual_seed(5)
    model, left, right = Two(), torch.randn(22, 4), torch.randn(22, 6)
    snnprune.export_onnx(model, tmp_path / "two.onnx", (left, right), batch=4)
    y = model(left, right).argmax(1)
    scores = []
    for batch in (
        (left, right, y),
        ((left, right), y),
        ({"left": left, "right": right}, y),
        {"labels": y, "right": right, "left": left, "more": "x"},
    ):
        found = quantize_onnx(tmp_path / "two.onnx", tmp_path / "q.onnx", [batch], [batch], tolerance=0.5)
        assert (found.calibrated, found.val.count, found.val.fp32) == (20, 22, 1.0), "whole batches of 4"
        scores.append(found.val)
    assert len(set(scores)) == 1
    with pytest.raises(
        DataError, match=r"takes the inputs left, right, which a batch \(.*'left'.*\) does not hold"
    ):
        quantize_onnx(tmp_path / "two.onnx", tmp_path / "r.onnx", [{"left": left}], [batch])


def test_outputs_for_every_place_are_compared_by_agreement(tmp_path):
    torch.manual_seed(6)
    model, x = nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 1)), torch.randn(8, 1, 6, 6)
    snnprune.export_onnx(model, tmp_path / "seg.onnx", x)
    found = quantize_onnx(
        tmp_path / "seg.onnx", tmp_path / "q.onnx", [x], [(x, torch.zeros(8, 4, 4).long())], tolerance=0.3
    )
    assert found.val.int8 is None
    assert 0.7 <= found.val.same_class <= 1
    regression = nn.Sequential(nn.Flatten(), nn.Linear(36, 4), nn.ReLU(), nn.Linear(4, 1))
    snnprune.export_onnx(regression, tmp_path / "one.onnx", x)
    with pytest.raises(ExportError, match="holds no classes"):
        quantize_onnx(tmp_path / "one.onnx", tmp_path / "r.onnx", [x], [x])


@pytest.mark.parametrize("method", ["percentile", "entropy"])
def test_methods_of_calibration(made, tmp_path, method):
    full, train, val = made
    found = quantize_onnx(full, tmp_path / "q.onnx", train, val, tolerance=0.6, method=method, calibration_size=32)
    assert (found.method, found.layers) == (method, 5)


def test_sensitive_layers_are_the_first_the_last_and_depthwise_ones(made):
    proto = onnx.load(made[0])
    for node in proto.graph.node:
        node.name = node.output[0]
    layers = {n.name: n.input[1] for n in quantizer.layers_of(proto)}
    assert len(layers) == 5
    named = {layers[name] for name in quantizer.sensitive_layers(proto)}
    assert named == {"a.weight", "d.weight", "out.weight"}


def test_metadata_are_json(made, tmp_path):
    full, train, val = made
    quantize_onnx(full, tmp_path / "q.onnx", train, val, tolerance=0.5)
    for entry in onnx.load(tmp_path / "q.onnx").metadata_props:
        assert entry.key.startswith("snnprune.")
        json.loads(entry.value)
