"""Run folders are opened without trusting what stands in them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch
from conftest import DIGITS, SMALL, same_state
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import snnprune
from snnprune import memory
from snnprune.errors import RunError, SnnPruneError, StructureError
from snnprune.layers import IndexedLinear
from snnprune.registry import build
from snnprune.runs import folder as runs
from snnprune.runs.examples import example_for
from snnprune.runs.folder import open_model
from snnprune.runs.shrinking import layer_sizes


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    """A compact network with an index selection, as a run would save it."""
    torch.manual_seed(0)
    model = build(DIGITS)
    model.features[0] = nn.Conv2d(1, 20, 3, padding=1, bias=False)
    model.features[1] = nn.BatchNorm2d(20)
    model.features[3] = nn.Conv2d(20, 48, 3, padding=1, bias=False)
    index = torch.arange(0, 768, 2)
    model.hidden[0] = IndexedLinear(384, 56, source_features=768, index=index)
    folder = tmp_path_factory.mktemp("saved") / "run"
    snnprune.save(model.eval(), folder, extra={"factory": {"arch": DIGITS, "kwargs": {}}})
    return folder


@pytest.fixture
def run(saved, tmp_path) -> Path:
    """A copy to damage."""
    folder = tmp_path / "run"
    folder.mkdir()
    for file in saved.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


def change(folder: Path, **entries) -> None:
    path = folder / "structure.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **entries}))


def change_weights(folder: Path, **tensors: Tensor) -> None:
    """Other weights, with a digest that fits."""
    path = folder / "model.safetensors"
    save_file({**load_file(path), **tensors}, path)
    change(folder, weights_sha256=hashlib.sha256(path.read_bytes()).hexdigest())


def test_a_run_opens_with_its_architecture_and_asks_for_it(run):
    with pytest.raises(RunError, match=r"--arch \(it was .*digits_cnn\.py:digits_cnn\)"):
        open_model(run)
    opened = open_model(run, arch=DIGITS)
    assert layer_sizes(opened.model)["hidden.0"] == {"in": 384, "out": 56, "source": 768}
    assert opened.structure is not None
    assert opened.model(torch.zeros(2, 1, 8, 8)).shape == (2, 10)


def test_a_run_of_a_torchvision_model_needs_no_architecture(tmp_path, small):
    snnprune.save(small, tmp_path / "run", extra={"factory": {"arch": SMALL, "kwargs": {"num_classes": 7}}})
    opened = open_model(tmp_path / "run")
    assert opened.arch == SMALL
    assert same_state(opened.model, small)


@pytest.mark.parametrize("kind", ["module", "file"])
def test_a_factory_in_a_structure_file_is_never_run(run, tmp_path, kind):
    marker = tmp_path / "ran"
    (tmp_path / "bomb.py").write_text(f"open({str(marker)!r}, 'w').close()\n\ndef fn(**k):\n    pass\n")
    arch = f"{tmp_path / 'bomb.py'}:fn" if kind == "file" else "os:system"
    change(run, factory={"arch": arch, "kwargs": {"command": f"touch {marker}"}})
    with pytest.raises(RunError, match="--arch") as caught:
        open_model(run)
    assert arch in str(caught.value)
    assert not marker.exists()
    open_model(run, arch=DIGITS)
    assert not marker.exists()


@pytest.mark.parametrize("factory", [None, [], "resnet18", {"arch": ["resnet18"]}, {"arch": 3}, {"kwargs": 3}])
def test_a_malformed_factory_asks_for_the_architecture(run, factory):
    change(run, factory=factory)
    with pytest.raises(RunError, match="--arch"):
        open_model(run)
    open_model(run, arch=DIGITS)


def test_only_known_arguments_of_a_recorded_factory_are_used(tmp_path, small):
    kwargs = {"num_classes": 7, "weights": "DEFAULT", "progress": True, "aux_logits": "yes"}
    snnprune.save(small, tmp_path / "run", extra={"factory": {"arch": SMALL, "kwargs": kwargs}})
    assert open_model(tmp_path / "run").kwargs == {"num_classes": 7}


@pytest.mark.parametrize(
    "entry",
    [
        {"in": 56, "out": -10},
        {"in": 56, "out": 0},
        {"in": 56, "out": 2**40},
        {"in": 2**31, "out": 10},
        {"in": 56, "out": True},
        {"in": 56, "out": 10.0},
        {"in": 56, "out": "10"},
        {"in": 56, "out": None},
        {"in": 56, "out": 10, "evil": 1},
        {"in": 56},
        {"out": 10},
        [56, 10],
        {"in": 56, "out": 11},
        {"in": 2**30, "out": 10},
        {"in": 55, "out": 10},
        {"in": 56, "out": 9},
    ],
    ids=str,
)
def test_sizes_that_make_no_sense_are_refused(run, entry):
    sizes = json.loads((run / "structure.json").read_text())["layers"]
    change(run, layers={**sizes, "classifier": entry})
    with pytest.raises(StructureError):
        open_model(run, arch=DIGITS)


@pytest.mark.parametrize("layers", [None, [], {}, {"classifier": {"in": 56, "out": 10}}], ids=str)
def test_a_table_of_other_layers_is_refused(run, layers):
    change(run, layers=layers)
    with pytest.raises(StructureError):
        open_model(run, arch=DIGITS)


def test_groups_that_the_model_does_not_have_are_refused(run):
    sizes = json.loads((run / "structure.json").read_text())["layers"]
    change(run, layers={**sizes, "features.3": {"in": 20, "out": 48, "groups": 4}})
    with pytest.raises(StructureError, match=r"features.3 has .*'groups': 4"):
        open_model(run, arch=DIGITS)


@pytest.mark.parametrize("value", [768, -1, 10**6, -(2**63)])
def test_an_index_outside_its_source_is_refused(run, value):
    index = torch.arange(0, 768, 2)
    index[5] = value
    change_weights(run, **{"hidden.0.index": index})
    with pytest.raises(StructureError, match=r"hidden\.0: its index selection is missing or out of range"):
        open_model(run, arch=DIGITS)


def test_an_index_into_more_than_the_model_has_is_refused(run):
    """The network has 768 features at this place, whatever the structure file says."""
    sizes = json.loads((run / "structure.json").read_text())["layers"]
    change(run, layers={**sizes, "hidden.0": {**sizes["hidden.0"], "source": 2**30}})
    change_weights(run, **{"hidden.0.index": torch.arange(384) + 10_000})
    with pytest.raises(StructureError, match=r"hidden\.0"):
        open_model(run, arch=DIGITS)


@pytest.mark.parametrize("index", [torch.arange(10), torch.arange(384).float(), torch.arange(384)[None]])
def test_an_index_of_another_form_is_refused(run, index):
    change_weights(run, **{"hidden.0.index": index})
    with pytest.raises(StructureError, match="index selection"):
        open_model(run, arch=DIGITS)


def test_weights_of_another_shape_are_refused(run):
    change_weights(run, **{"classifier.bias": torch.zeros(12)})
    with pytest.raises(StructureError, match="does not fit"):
        open_model(run, arch=DIGITS)


def test_changed_weights_are_noticed(run):
    path = run / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(StructureError, match=r"model\.safetensors is not the file that structure\.json"):
        open_model(run, arch=DIGITS)
    path.unlink()
    with pytest.raises(StructureError, match=r"holds no model\.safetensors"):
        open_model(run, arch=DIGITS)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"format": 99}', '{"format": 1}', "[" * 100_000])
def test_a_structure_file_that_is_none(run, text):
    (run / "structure.json").write_text(text)
    with pytest.raises(SnnPruneError, match=r"structure\.json"):
        open_model(run, arch=DIGITS)


def test_a_run_of_another_architecture_is_refused(run):
    with pytest.raises(StructureError):
        open_model(run, arch="squeezenet1_1")


def test_the_weights_of_a_run_alone_name_their_folder(run):
    with pytest.raises(SnnPruneError, match=f"Name the folder instead: {run}"):
        open_model(run / "model.safetensors")


@pytest.mark.parametrize(
    ("arch", "classes", "message"),
    [
        (SMALL, 2**20, "classes in its structure.json make no sense"),
        (SMALL, -3, "classes in its structure.json make no sense"),
        ("resnet18", 2**20 - 1, "of memory, but"),
    ],
)
def test_a_number_of_classes_that_would_fill_the_memory(run, monkeypatch, arch, classes, message):
    monkeypatch.setattr(memory, "available_memory", lambda: 2**30)
    monkeypatch.setattr(runs, "load", lambda *a, **k: pytest.fail("the model was built"))
    change(run, factory={"arch": arch, "kwargs": {"num_classes": classes}})
    with pytest.raises(RunError, match=message):
        open_model(run)


def test_flags_are_no_numbers_of_classes(run):
    change(run, factory={"arch": DIGITS, "kwargs": {"num_classes": True, "aux_logits": 2, "progress": 3}})
    assert open_model(run, arch=DIGITS).kwargs == {}


@pytest.mark.parametrize("shape", [[2**15] * 3, [1] * 3 + [2**40], [2, -1, 3], [1.5], "x"])
def test_a_recorded_input_that_would_fill_the_memory_is_passed_over(run, shape):
    change(run, input_shape=shape)
    opened = open_model(run, arch=DIGITS)
    assert example_for(opened).shape == (2, 1, 8, 8)
