"""Saved models: what is refused, and that bits survive."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from conftest import NETWORKS, make_network
from safetensors.torch import load_file, save_file

import snnprune
from snnprune.errors import RunError, StructureError
from snnprune.files import STRUCTURE
from snnprune.proof import random_scales
from snnprune.proof.tracing import trace
from snnprune.runs.saving import WEIGHTS, digest
from snnprune.runs.sparse import unpack
from snnprune.surgery import fold_, remove_


@pytest.fixture
def saved(tmp_path):
    _, model, x = make_network("lenet5_caffe", seed=2)
    groups = trace(model, x)
    scales = random_scales(groups, torch.Generator().manual_seed(2))
    compact = remove_(fold_(copy.deepcopy(model), groups, scales), groups, scales)
    snnprune.save(compact, tmp_path, extra={"note": "x"})
    return tmp_path, compact, x


def fresh(name="lenet5_caffe"):
    return NETWORKS[name][0]().double()


def rewrite(folder, change):
    content = json.loads((folder / STRUCTURE).read_text())
    change(content)
    (folder / STRUCTURE).write_text(json.dumps(content))


def test_bits_survive(saved):
    folder, compact, x = saved
    loaded = snnprune.load(folder, model=fresh())
    assert torch.equal(loaded(x), compact(x))
    assert loaded.get_submodule("fc1").weight.requires_grad
    assert json.loads((folder / STRUCTURE).read_text())["note"] == "x"


def test_another_architecture_is_refused(saved):
    with pytest.raises(StructureError, match="only in one"):
        snnprune.load(saved[0], model=fresh("mlp"))


def test_changed_weights_are_noticed(saved):
    folder = saved[0]
    state = load_file(folder / WEIGHTS)
    state["fc2.bias"][0] += 1
    save_file(state, folder / WEIGHTS)
    with pytest.raises(StructureError, match="was changed"):
        snnprune.load(folder, model=fresh())


@pytest.mark.parametrize(
    "value",
    [-1, 0, 2**40, True, 1.5, "8", None, [8]],
    ids=["negative", "zero", "huge", "bool", "float", "str", "null", "list"],
)
def test_malformed_sizes_are_refused(saved, value):
    folder = saved[0]
    rewrite(folder, lambda c: c["layers"]["conv1"].update(out=value))
    with pytest.raises(StructureError, match="conv1"):
        snnprune.load(folder, model=fresh())


def test_larger_than_the_model_is_refused_before_memory_is_taken(saved):
    folder = saved[0]
    rewrite(folder, lambda c: c["layers"]["fc1"].update({"in": 2**30}))
    with pytest.raises(StructureError, match="fc1"):
        snnprune.load(folder, model=fresh())


@pytest.mark.parametrize("bad", [-1, 10_000])
def test_an_index_outside_its_source_is_refused(saved, bad):
    folder = saved[0]
    state = load_file(folder / WEIGHTS)
    state["fc1.index"][0] = bad
    save_file(state, folder / WEIGHTS)
    rewrite(folder, lambda c: c.update(weights_sha256=digest(folder / WEIGHTS)))
    with pytest.raises(StructureError, match="index"):
        snnprune.load(folder, model=fresh())


@pytest.mark.parametrize("content", ["", "{", "[]", '{"format": 99}', '{"format": 1}', "[" * 100_000])
def test_damaged_structure_files_are_refused(saved, content):
    folder = saved[0]
    (folder / STRUCTURE).write_text(content)
    with pytest.raises((RunError, StructureError)):
        snnprune.load(folder, model=fresh())


def test_missing_files_are_named(saved, tmp_path):
    with pytest.raises(RunError, match="nowhere"):
        snnprune.load(tmp_path / "nowhere", model=fresh())
    (saved[0] / WEIGHTS).unlink()
    with pytest.raises(StructureError, match=WEIGHTS):
        snnprune.load(saved[0], model=fresh())


def test_frozen_parameters_stay_frozen_through_surgery():
    _, model, x = make_network("digits_cnn")
    model.features[0].weight.requires_grad_(False)
    groups = trace(model, x)
    scales = random_scales(groups, torch.Generator().manual_seed(2))
    compact = remove_(fold_(copy.deepcopy(model), groups, scales), groups, scales)
    assert not compact.features[0].weight.requires_grad
    assert compact.features[3].weight.requires_grad


def forged(folder, change):
    """Weights of one's own, with the digest that belongs to them."""
    state = load_file(folder / WEIGHTS)
    change(state)
    save_file(state, folder / WEIGHTS)
    rewrite(folder, lambda c: c.update(weights_sha256=digest(folder / WEIGHTS)))


@pytest.mark.parametrize("rows", [0, 3])
def test_weights_smaller_than_their_layer_are_refused(saved, rows):
    folder, compact, _ = saved
    assert compact.conv1.out_channels > 3
    forged(folder, lambda state: state.update({"conv1.weight": state["conv1.weight"][:rows].contiguous()}))
    with pytest.raises(StructureError, match="does not fit"):
        snnprune.load(folder, model=fresh())


def test_weights_of_a_type_that_pytorch_lacks_are_refused(saved):
    folder = saved[0]
    data = (folder / WEIGHTS).read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = data[8 : 8 + length].replace(b'"F64"', b'"F99"')
    (folder / WEIGHTS).write_bytes(data[:8] + header + data[8 + length :])
    rewrite(folder, lambda c: c.update(weights_sha256=digest(folder / WEIGHTS)))
    with pytest.raises(StructureError, match="no readable safetensors"):
        snnprune.load(folder, model=fresh())


@pytest.mark.parametrize("shape", [[None, None], "x", None, [1.0, 2.0], [True, True]])
def test_sparse_shapes_that_no_layer_has_are_refused(shape):
    for sizes in ({"a": {"heads": 2}}, {"a": {"out": 1, "in": 2}}, {}):
        with pytest.raises(StructureError, match="which no layer has"):
            unpack({}, {"a.weight": shape}, sizes)


def test_nothing_is_unpacked_to_a_size_that_the_model_lacks(saved, monkeypatch):
    """A bit per weight becomes four bytes: sizes are compared before."""
    folder = saved[0]
    size = 2**12

    def change(content):
        content["layers"]["fc1"].update({"in": size, "out": size})
        content["sparse"] = {"fc1.weight": [size, size]}

    def bits(state):
        state["fc1.weight.nonzero"], state["fc1.weight.bits"] = (
            torch.zeros(0),
            torch.zeros(size * size // 8).byte(),
        )

    forged(folder, bits)
    rewrite(folder, change)
    monkeypatch.setattr("snnprune.runs.saving.unpack", lambda *a: pytest.fail("it was unpacked"))
    with pytest.raises(StructureError, match="fc1 has"):
        snnprune.load(folder, model=fresh())
