"""Model files: read without running their code, matched with their architecture, or refused by name."""

from __future__ import annotations

import hashlib
import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torchvision import models

import snnprune
from snnprune.errors import ModelFileError, RunError, SnnPruneError, StructureError
from snnprune.layers import IndexedLinear
from snnprune.pipeline import open_model
from snnprune.registry import build, load_factory, load_model, match, torchvision_names
from snnprune.registry.files import read_model_file
from snnprune.registry.match import find_architecture, fit
from snnprune.saving import layer_sizes

ROOT = Path(__file__).resolve().parent.parent
DIGITS = f"{ROOT / 'models' / 'digits_cnn.py'}:digits_cnn"
SMALL = "mobilenet_v3_small"


class UserNet(nn.Module):
    """A class that no list of allowed ones can hold."""

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.fc = nn.Linear(4, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.conv(x).amax((2, 3)))


class Explosive:
    """Runs code when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return exec, (f"open({str(self.marker)!r}, 'w').close()",)


@pytest.fixture(scope="module")
def small() -> nn.Module:
    torch.manual_seed(0)
    return models.mobilenet_v3_small(num_classes=7).eval()


def digits(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return build(DIGITS).eval()


def same_state(a: nn.Module, b: nn.Module) -> bool:
    x, y = a.state_dict(), b.state_dict()
    return x.keys() == y.keys() and all(torch.equal(x[k], y[k]) for k in x)


def refused(path: Path, *parts: str, **options) -> str:
    with pytest.raises(ModelFileError) as caught:
        load_model(path, **options)
    text = str(caught.value)
    for part in (str(path), *parts):
        assert part in text, text
    return text


# ---- architectures by name


def test_resnet18_is_found_with_another_number_of_classes():
    state = build("resnet18", 7).state_dict()
    assert find_architecture(state) == ("resnet18", {"num_classes": 7})


def test_the_number_of_classes_can_be_demanded(small):
    assert find_architecture(small.state_dict(), 7) == (SMALL, {"num_classes": 7})
    with pytest.raises(ModelFileError, match="fits no torchvision classifier"):
        find_architecture(small.state_dict(), 8)


@pytest.mark.parametrize("name", ["squeezenet1_1", "shufflenet_v2_x0_5", SMALL])
def test_an_architecture_is_told_from_its_relatives(name):
    assert find_architecture(build(name, 10, meta=True).state_dict()) == (name, {"num_classes": 10})


def test_a_model_with_the_published_classes_needs_no_argument():
    assert find_architecture(build("squeezenet1_1", meta=True).state_dict()) == ("squeezenet1_1", {})


def test_auxiliary_heads_are_found():
    without = build("googlenet", 5, meta=True, aux_logits=False).state_dict()
    assert fit("googlenet", without) == ({"aux_logits": False, "num_classes": 5}, [])


def test_several_architectures_ask_for_a_choice(monkeypatch, small):
    monkeypatch.setattr(match, "torchvision_names", lambda: (SMALL, "resnet18", SMALL))
    with pytest.raises(ModelFileError, match=rf"several architectures \({SMALL}, {SMALL}\).*--arch"):
        find_architecture(small.state_dict())


def test_a_foreign_state_dict_fits_nothing(tmp_path):
    torch.save(digits().state_dict(), tmp_path / "w.pt")
    with pytest.raises(ModelFileError, match=r"fits no torchvision classifier.*--arch"):
        load_model(tmp_path / "w.pt")


def test_a_state_dict_of_another_width_is_no_match(small):
    state = dict(small.state_dict())
    name = next(k for k, v in state.items() if v.dim() == 4)
    state[name] = torch.cat([state[name], state[name]])
    with pytest.raises(ModelFileError, match="fits no torchvision classifier"):
        find_architecture(state)


def test_torchvision_names_are_those_of_classifiers():
    names = torchvision_names()
    assert {"resnet18", "vgg16", "mobilenet_v2"} <= set(names)
    assert not any("segmentation" in n or "rcnn" in n for n in names)


@pytest.mark.parametrize(
    ("arch", "message"),
    [
        ("resnet19", "'resnet19' is unknown"),
        ("absent.py:fn", "there is no file absent.py"),
        ("no_such_package:fn", "cannot import no_such_package"),
        ("math:no_such_function", "no function 'no_such_function'"),
        ("math:pi", "no function 'pi'"),
        (":fn", "not of the form"),
        ("math:", "not of the form"),
        ("math:floor", "cannot be built"),
        ("collections:OrderedDict", "returned OrderedDict, not a torch.nn.Module"),
    ],
)
def test_architectures_that_are_none(arch, message):
    with pytest.raises(ModelFileError, match=message):
        build(arch)


def test_code_that_fails_while_loading_is_named(tmp_path):
    (tmp_path / "broken.py").write_text("raise ValueError('half done')")
    with pytest.raises(ModelFileError, match=r"broken\.py fails while loading \(ValueError: half done\)"):
        load_factory(f"{tmp_path / 'broken.py'}:fn")


def test_code_may_import_its_neighbours_and_leaves_no_trace_in_the_path(tmp_path):
    import sys

    (tmp_path / "neighbour_of_mine.py").write_text("WIDTH = 3")
    (tmp_path / "net.py").write_text(
        "from torch import nn\nimport neighbour_of_mine\n\ndef net():\n"
        "    return nn.Linear(neighbour_of_mine.WIDTH, 2)\n"
    )
    before = list(sys.path)
    assert build(f"{tmp_path / 'net.py'}:net").in_features == 3
    assert sys.path == before


def test_classes_from_code_have_the_same_name_in_every_process():
    """It stands in structure files, which are the same for the same run; Python's own hash() is not."""
    path = DIGITS.rpartition(":")[0]
    unique = hashlib.sha256(path.encode()).hexdigest()[:16]
    assert load_factory(DIGITS).__module__ == f"_snnprune_user_digits_cnn_{unique}"


def test_num_classes_for_code_that_takes_none(tmp_path):
    (tmp_path / "net.py").write_text("from torch import nn\n\ndef net():\n    return nn.Linear(3, 2)\n")
    with pytest.raises(ModelFileError, match="takes no num_classes"):
        build(f"{tmp_path / 'net.py'}:net", 5)
    assert build(DIGITS, 5).classifier.out_features == 5


# ---- state dicts


def dressed(state: dict[str, Tensor], how: str) -> object:
    if how == "module.":
        return {f"module.{k}": v for k, v in state.items()}
    if how in ("state_dict", "model_state_dict", "model"):
        return {how: state, "epoch": 3, "optimizer": {"lr": 0.1}}
    if how == "state_dict of DataParallel":
        return {"state_dict": {f"module.{k}": v for k, v in state.items()}}
    if how == "before PyTorch 0.4.1":
        return {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}
    assert how == "plain"
    return state


@pytest.mark.parametrize(
    "how",
    [
        "plain",
        "module.",
        "state_dict",
        "model_state_dict",
        "model",
        "state_dict of DataParallel",
        "before PyTorch 0.4.1",
    ],
)
def test_a_state_dict_is_found_in_what_people_save(tmp_path, small, how, monkeypatch):
    monkeypatch.setattr(match, "torchvision_names", lambda: (SMALL, "mobilenet_v3_large"))  # for speed
    torch.save(dressed(small.state_dict(), how), tmp_path / "w.pth")
    loaded = load_model(tmp_path / "w.pth")
    assert (loaded.arch, loaded.kwargs) == (SMALL, {"num_classes": 7})
    assert same_state(loaded.model, small)
    assert not loaded.model.training


def test_both_kinds_of_files_give_the_same_model(tmp_path):
    model = digits()
    torch.save(model.state_dict(), tmp_path / "new.pt")
    torch.save(model.state_dict(), tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    save_file(model.state_dict(), tmp_path / "w.safetensors")
    for name in ("new.pt", "old.pt", "w.safetensors"):
        assert same_state(load_model(tmp_path / name, arch=DIGITS).model, model), name


def test_num_classes_is_read_off_the_weights_of_code_too(tmp_path):
    torch.save(build(DIGITS, 4).state_dict(), tmp_path / "w.pt")
    loaded = load_model(tmp_path / "w.pt", arch=DIGITS)
    assert loaded.kwargs == {"num_classes": 4}
    assert loaded.model.classifier.out_features == 4
    refused(
        tmp_path / "w.pt",
        "does not fit",
        "classifier.weight is (4, 56) in the file, (10, 56) in the model",
        arch=DIGITS,
        num_classes=10,
    )


def test_what_does_not_fit_the_named_architecture_is_listed(tmp_path):
    state = digits().state_dict()
    state["extra"] = state.pop("features.0.weight")
    torch.save(state, tmp_path / "w.pt")
    refused(tmp_path / "w.pt", "does not fit", "features.0.weight is missing", "extra is unknown", arch=DIGITS)
    torch.save(digits().state_dict(), tmp_path / "w.pt")
    refused(tmp_path / "w.pt", "does not fit resnet18", "more", arch="resnet18")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(tmp_path, value):
    state = digits().state_dict()
    state["hidden.0.bias"][3] = value
    torch.save(state, tmp_path / "w.pt")
    refused(tmp_path / "w.pt", "hidden.0.bias holds NaN or infinite values", arch=DIGITS)
    whole = nn.Sequential(nn.Linear(3, 2))
    whole[0].weight.data[0, 0] = value
    torch.save(whole, tmp_path / "whole.pt")
    refused(tmp_path / "whole.pt", "0.weight holds NaN or infinite values")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "holds list"),
        ({}, "holds dict"),
        ({"epoch": 3}, "'epoch': int"),
        ({1: torch.ones(2)}, "1: Tensor"),
        (torch.ones(3), "holds Tensor"),
    ],
    ids=["list", "empty", "number", "key", "tensor"],
)
def test_files_that_hold_no_model(tmp_path, content, message):
    torch.save(content, tmp_path / "w.pt")
    refused(tmp_path / "w.pt", message)


@pytest.mark.parametrize("name", ["w.pt", "w.safetensors"])
def test_damaged_files_are_refused(tmp_path, name):
    path = tmp_path / name
    refused(path, "there is no file")
    path.write_bytes(b"")
    refused(path, "is empty")
    good = tmp_path / f"good-{name}"
    if name == "w.pt":
        torch.save(digits().state_dict(), good)
    else:
        save_file(digits().state_dict(), good)
    data = good.read_bytes()
    for damaged in (data[: len(data) // 2], data[:10], bytes(range(256)) * 40, b"some text, not a model"):
        path.write_bytes(damaged)
        text = refused(path, arch=DIGITS)
        assert "damaged" in text or "no readable safetensors" in text
        assert "\n" not in text
    path.unlink()
    path.mkdir()
    refused(path, "is a folder")


# ---- pickles


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("wrap", [False, True], ids=["bare", "in a state dict"])
def test_code_in_a_pickle_never_runs_and_is_named(tmp_path, zipped, wrap):
    marker = tmp_path / "ran"
    path = tmp_path / "w.pt"
    content = Explosive(marker)
    torch.save(
        {"state_dict": {"weight": content}} if wrap else content, path, _use_new_zipfile_serialization=zipped
    )
    refused(path, "exec", "--trust-pickle")
    refused(path, "exec", "--trust-pickle", arch=DIGITS)
    assert not marker.exists()
    with pytest.raises(ModelFileError):  # nothing useful is in it, but now it has run
        read_model_file(path, trust_pickle=True)
    assert marker.exists()


def test_a_plain_pickle_does_not_run_either(tmp_path):
    marker = tmp_path / "ran"
    for protocol in (2, 5):
        (tmp_path / "w.pkl").write_bytes(pickle.dumps(Explosive(marker), protocol=protocol))
        refused(tmp_path / "w.pkl")
    assert not marker.exists()


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_a_whole_model_of_a_class_of_ones_own_must_be_trusted(tmp_path, zipped):
    path = tmp_path / "w.pt"
    model = UserNet().eval()
    torch.save(model, path, _use_new_zipfile_serialization=zipped)
    refused(path, f"{UserNet.__module__}.UserNet", "--trust-pickle", "state_dict()")
    loaded = load_model(path, trust_pickle=True)
    assert isinstance(loaded.model, UserNet)
    assert loaded.arch is None
    assert same_state(loaded.model, model)


@pytest.mark.parametrize(
    "name", [SMALL, "squeezenet1_1", "resnet18", "efficientnet_b0", "shufflenet_v2_x0_5", "mnasnet0_5"]
)
def test_whole_torchvision_models_are_allowed(tmp_path, name):
    torch.manual_seed(0)
    model = build(name, 10).eval()
    torch.save(model, tmp_path / "w.pt")
    loaded = load_model(tmp_path / "w.pt")
    assert type(loaded.model) is type(model)
    assert loaded.arch is None
    assert same_state(loaded.model, model)


def test_a_whole_model_gives_its_weights_to_a_named_architecture(tmp_path, small):
    torch.save(small, tmp_path / "w.pt")
    loaded = load_model(tmp_path / "w.pt", arch=SMALL)
    assert (loaded.arch, loaded.kwargs) == (SMALL, {"num_classes": 7})
    assert same_state(loaded.model, small)


def test_no_class_that_runs_code_while_loading_is_allowed():
    from snnprune.registry.allowed import allowed_classes

    found = allowed_classes()
    assert nn.Conv2d in found
    assert models.ResNet in found
    assert all(issubclass(c, nn.Module) or c is models.vision_transformer.ConvStemConfig for c in found)
    assert not any(issubclass(c, (torch.fx.GraphModule, torch.jit.ScriptModule)) for c in found)


# ---- run folders


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
