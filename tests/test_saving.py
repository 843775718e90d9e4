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
from snnprune.saving import WEIGHTS, digest
from snnprune.surgery import fold_, random_scales, remove_
from snnprune.tracing import trace


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
