"""Timing with ONNX Runtime and NumPy alone; what is timed here is small, and no time is looked at."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from snnprune.errors import ExportError
from snnprune.timing import portable, profiling
from snnprune.timing.profiling import profile_of
from snnprune.timing.serving import Serving
from snnprune.timing.skeleton import content, strip
from timing.conftest import SERVING, engine

CPU = [("CPUExecutionProvider", {})]


def graph(op: str = "Relu", kind: int = TensorProto.FLOAT, dims=(2, 3)) -> bytes:
    ends = [helper.make_tensor_value_info(name, kind, list(dims)) for name in ("x", "y")]
    made = helper.make_graph([helper.make_node(op, ["x"], ["y"])], "g", ends[:1], ends[1:])
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()


def unrunnable() -> bytes:
    """A graph that can be opened, and fails when it is run."""
    ends = [helper.make_tensor_value_info("x", 1, [2, 3]), helper.make_tensor_value_info("y", 1, None)]
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("ReduceSum", ["x"], ["n"], keepdims=0),
        helper.make_node("Cast", ["n"], ["i"], to=7),
        helper.make_node("Unsqueeze", ["i", "zero"], ["u"]),
        helper.make_node("Concat", ["u", "seven"], ["to"], axis=0),
        helper.make_node("Reshape", ["x", "to"], ["y"]),
    ]
    weights = [helper.make_tensor("zero", 7, [1], [0]), helper.make_tensor("seven", 7, [1], [77])]
    made = helper.make_graph(nodes, "g", ends[:1], ends[1:], weights)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()


def answer(families, **options):
    return portable.answer(families, CPU, seconds=0.0, **options)


def test_every_graph_has_an_answer_and_none_is_timed_twice():
    told = []
    families = [[("a", 0, graph()), ("b", 0, graph("Abs"))], [("a", 0, graph()), ("c", 0, graph("Neg"))]]
    found = answer(families, known={"b": 7.0}, tell=lambda *args: told.append((args[0], args[1], dict(args[2]))))
    assert found.keys() == {"a", "b", "c"}
    assert found["b"] == 7.0
    assert all(ms is not None and ms > 0 for ms in found.values())
    assert [(done, total) for done, total, _ in told] == [(2, 4), (4, 4)]
    assert told[0][2].keys() == {"a", "b"}


def test_what_cannot_be_run_is_none_and_the_rest_is_timed():
    found = answer([[("bad", 0, b"nonsense"), ("late", 0, unrunnable()), ("good", 0, graph())]])
    assert found["bad"] is None
    assert found["late"] is None
    assert found["good"] is not None


@pytest.mark.parametrize("kind", [TensorProto.INT64, TensorProto.INT32, TensorProto.DOUBLE, TensorProto.FLOAT16])
def test_inputs_of_any_type(kind):
    assert answer([[("a", 0, graph("Neg" if kind != TensorProto.FLOAT16 else "Identity", kind))]])["a"] is not None
    assert answer([[("a", 0, graph("Not", TensorProto.BOOL))]])["a"] is not None


def test_a_provider_that_is_not_there_is_said(monkeypatch):
    import onnxruntime

    class Session:
        """ONNX Runtime's fall back to the CPU, which it says by this list alone."""

        def __init__(self, *_args, **_options):
            pass

        def disable_fallback(self):
            pass

        def get_providers(self):
            return ["CPUExecutionProvider"]

    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    with pytest.raises(portable.NotServed, match="CUDAExecutionProvider"):
        portable.answer([[("a", 0, graph())]], [("CUDAExecutionProvider", {}), *CPU], seconds=0.0)


def test_a_disk_that_is_full_is_no_answer(monkeypatch):
    def full(*_args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(portable, "open_graph", full)
    with pytest.raises(OSError, match="No space"):
        answer([[("a", 0, graph())]])


def test_heavy_graphs_are_not_open_together(monkeypatch):
    open_at_once = []
    monkeypatch.setattr(portable, "open_graph", lambda *_: lambda: None)
    monkeypatch.setattr(portable, "write_weights", lambda *_: None)
    monkeypatch.setattr(
        portable, "time_together", lambda calls, *_: open_at_once.append(len(calls)) or [1.0] * len(calls)
    )
    heavy = portable.TOGETHER // 2 + 1
    found = answer([[(name, heavy, b"") for name in "abcde"]])
    assert open_at_once == [2, 2, 1]
    assert found == dict.fromkeys("abcde", 1.0)


@pytest.mark.parametrize("size", [1, 4096, 2**22 + 4, 3 * 2**23 + 12])
def test_the_weights_are_as_long_as_asked_and_small(tmp_path, size):
    portable.write_weights(tmp_path, size)
    for name, kind in portable.FILES.items():
        assert (tmp_path / name).stat().st_size == size
        values = np.fromfile(tmp_path / name, kind)
        assert len(values) == 0 or (np.isfinite(values).all() and np.abs(values).max() < 1)


def test_a_low_quantile_of_calls_in_turn():
    now, order = [0.0], []

    def call(name, *times):
        left = iter(times)

        def one():
            order.append(name)
            now[0] += next(left)

        return one

    calls = [call("a", 9, 1, 2, 3, 4, 50), call("b", 9, 10, 10, 10, 10, 10)]
    found = portable.time_together(calls, 0.0, lambda: now[0])
    assert order == ["a", "b"] * 6
    assert found == pytest.approx([1400.0, 10000.0])


def test_ctrl_c_keeps_what_was_timed(tiny, tmp_path, monkeypatch):
    """The second call times the rest alone."""
    ms = engine()

    def fake(families, providers, threads, known=None, tell=None):
        found, asked[:] = dict(known or {}), []
        for number, family in enumerate(families):
            if stop and number == 2:
                raise KeyboardInterrupt
            new = {name: ms(data) for name, _, data in family if name not in found}
            asked.extend(new)
            found |= new
            tell(number, len(families), found)
        return found

    asked, stop = [], True
    monkeypatch.setattr(portable, "answer", fake)
    args = (tiny.model, tiny.groups, tiny.cost, tiny.example, SERVING)
    with pytest.raises(KeyboardInterrupt):
        profile_of(*args, cache=tmp_path)
    first, stop = set(asked), False
    found = profile_of(*args, cache=tmp_path)
    assert first
    assert not first & set(asked)
    assert first | set(asked) == tiny.questions.graphs.keys() == found.answers.keys()
    profile_of(*args, cache=tmp_path)
    assert not asked, "all is known"
    profile_of(*args, cache=tmp_path, anew=True)
    assert set(asked) == tiny.questions.graphs.keys()


def test_processes_without_a_clock_take_the_numbers_of_the_one_that_has_it(tiny, tmp_path, monkeypatch):
    known = {name: engine()(question.data) for name, question in tiny.questions.graphs.items()}
    one = next(iter(next(reversed(tiny.questions.points.values())).values()))
    known[one] = None
    given = [-1.0 if known[name] is None else known[name] for name in sorted(known)]
    monkeypatch.setattr(portable, "answer", None)  # which would fail
    args = (tiny.model, tiny.groups, tiny.cost, tiny.example, SERVING)
    found = profile_of(*args, cache=tmp_path, times=False, agree=lambda own: given)
    assert found.answers == known
    assert not list(tmp_path.iterdir())


def test_times_of_another_device_are_taken_and_none_is_made_here(tiny, tmp_path, monkeypatch):
    from snnprune.timing.answers import answers_in

    key = {**SERVING.to_dict(), "device": "elsewhere", "version": "x"}
    known = {name: engine()(question.data) for name, question in tiny.questions.graphs.items()}
    (tmp_path / "times.json").write_text(json.dumps(answers_in(known, key)))
    monkeypatch.setattr(portable, "answer", None)
    other = Serving(engine="cuda", batch=64)
    found = profile_of(
        tiny.model,
        tiny.groups,
        tiny.cost,
        tiny.example,
        other,
        answers=tmp_path / "times.json",
        cache=tmp_path / "no",
    )
    assert found.key == key
    assert found.answers == known


def test_half_precision_runs(tiny, tmp_path):
    from snnprune.timing.cuts import skeleton_of

    half = skeleton_of(tiny.model, tiny.example, batch=2, fp16=True)
    assert {w.data_type for w in half.graph.initializer if len(w.dims) == 2} == {10}
    portable.write_weights(tmp_path, 2**18 + 2**18)
    portable.open_graph(content(half), tmp_path, CPU, 1)


def test_a_skeleton_has_no_weights_and_the_network_s_shapes(residual):
    whole = residual.questions.cuts[0].skeleton
    data = content(whole)
    assert len(data) < 20000
    read = onnx.load_from_string(data)
    floats = [w for w in read.graph.initializer if w.data_type == 1 and len(w.dims)]
    assert floats
    assert all(w.data_location == 1 and not w.raw_data for w in floats)
    shapes = sorted(tuple(w.dims) for w in floats if len(w.dims) == 4)
    model = residual.model
    assert shapes == sorted(tuple(p.shape) for p in model.parameters() if p.dim() == 4)
    assert content(strip(whole)) == data


@pytest.mark.skipif(torch.cuda.is_available(), reason="CUDA serves here")
@pytest.mark.parametrize("name", ["cuda", "cuda-graphs", "tensorrt"])
def test_an_engine_that_does_not_serve_is_refused_before_any_work(tiny, tmp_path, monkeypatch, capfd, name):
    monkeypatch.setattr(profiling, "ask", lambda *_args, **_options: pytest.fail("exported for nothing"))
    monkeypatch.setattr(profiling, "coarse_profile", lambda *_args, **_options: pytest.fail("timed for nothing"))
    with pytest.raises(ExportError, match=f"engine='{name}': ONNX Runtime does not get the"):
        profile_of(tiny.model, tiny.groups, tiny.cost, tiny.example, Serving(engine=name), cache=tmp_path)
    assert capfd.readouterr().err == ""
