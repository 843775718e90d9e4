"""The notebook: its form, and its cells one after the other on a small folder of photos."""

from __future__ import annotations

import json
import re
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from conftest import ROOT
from PIL import Image

FILE = ROOT / "examples" / "photos.ipynb"
NOTEBOOK = json.loads(FILE.read_text())
CODE = [cell for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]
CLASSES = ("blue", "green", "red")


def outputs() -> list[dict[str, Any]]:
    return [output for cell in CODE for output in cell["outputs"]]


def photos(folder: Path) -> None:
    """Photos of one colour each, larger than they are to be, and not square."""
    rng = np.random.default_rng(0)
    for at, name in enumerate(reversed(CLASSES)):
        (folder / name).mkdir(parents=True)
        for i in range(20):
            pixels = rng.integers(0, 80, (12, 16, 3), dtype=np.uint8)
            pixels[..., at] += 120
            image = Image.fromarray(pixels).resize((160, 120), Image.Resampling.NEAREST)
            image.save(folder / name / f"{i}.jpg", quality=95)


@pytest.fixture(scope="module")
def ran(tmp_path_factory) -> dict[str, Any]:
    """What the cells leave behind; a narrow network, from a file of weights, stands in for the pretrained one."""
    place = tmp_path_factory.mktemp("notebook")
    photos(place / "photos")
    narrow = partial(torchvision.models.mobilenet_v2, width_mult=0.25)
    torch.manual_seed(1)
    before = narrow().state_dict()
    torch.save(before, place / "weights.pth")
    space: dict[str, Any] = {"before": before}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.setattr(torchvision.models, "mobilenet_v2", narrow)
        for at, cell in enumerate(CODE):
            exec(compile("".join(cell["source"]), f"{FILE.name}, code cell {at + 1}", "exec"), space)
            if "parameters" in cell["metadata"].get("tags", ()):  # as papermill does, which sets them likewise
                assert space["PHOTOS"] == "photos"
                space |= {"WEIGHTS": "weights.pth", "SIZE": 80, "EPOCHS": 1}
        yield space


def test_notebook_runs_from_photos_to_a_class(ran):
    model, result = ran["model"], ran["result"]
    assert ran["classes"] == CLASSES
    assert model.classifier[1].out_features == len(CLASSES)
    moved = [n for n, w in model.named_parameters() if n in ran["before"] and not torch.equal(w, ran["before"][n])]
    assert len(moved) > 50, "fine-tuning changes what was loaded"
    assert result.report.dense.macs * 0.4 < result.report.compact.macs <= result.report.dense.macs * 0.5
    assert result.report.split == "test"
    assert result.report.exactness["onnx"] < 1e-3
    assert {"model.onnx", "report.html"} <= {path.name for path in Path(ran["RUN"]).iterdir()}
    assert len(ran["files"]) == 60
    assert ran["classify"](ran["files"][0]) in CLASSES


def test_notebook_prepares_a_photo_as_it_was_learned(ran, monkeypatch):
    """Without PyTorch as with it: the same pixels up to how they are resized, and the network's own answer."""
    test, small = ran["test"], ran["result"].model
    files, images = test.samples.files, test.head(len(test.labels))
    assert len(files) == 6
    for file, image in zip(files, images, strict=True):
        own = ran["prepare"](file)
        assert own.shape == (1, 3, 80, 80)
        assert own.dtype == np.float32
        with monkeypatch.context() as patch:
            patch.setitem(ran, "edge", 0.0)
            whole = ran["prepare"](file)
        assert np.abs(own[0] - image.numpy()).mean() < 0.1, "2 % of white"
        assert np.abs(whole[0] - image.numpy()).mean() > 0.2, "the photo with its edge is another"
        with torch.no_grad():
            expected = small(torch.from_numpy(own))
        (logits,) = ran["session"].run(None, {ran["session"].get_inputs()[0].name: own})
        assert np.abs(logits - expected.numpy()).max() < 1e-3
        assert ran["classify"](file) == CLASSES[int(expected.argmax())]


def test_notebook_is_of_the_form_that_every_jupyter_reads():
    assert (NOTEBOOK["nbformat"], NOTEBOOK["nbformat_minor"]) == (4, 5)
    assert set(NOTEBOOK["metadata"]) <= {"kernelspec", "language_info"}, "nothing of the machine it ran on"
    ids = [cell["id"] for cell in NOTEBOOK["cells"]]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch(r"[a-zA-Z0-9-_]{1,64}", name) for name in ids)
    for cell in NOTEBOOK["cells"]:
        known = {"cell_type", "id", "metadata", "source"}
        assert set(cell) == known | ({"execution_count", "outputs"} if cell in CODE else set())
        assert set(cell["metadata"]) <= {"tags"}
        assert cell["source"], "an empty cell"
    assert sum("parameters" in cell["metadata"].get("tags", ()) for cell in CODE) == 1
    for cell in CODE:
        assert len(cell["source"]) <= 25, "code cells are of a few lines"
        assert not re.search(r"^\s*[%!]", "".join(cell["source"]), re.MULTILINE), (
            "no magics: the cells are plain Python"
        )


def test_notebook_keeps_the_outputs_of_one_whole_run():
    """Run from top to bottom, with no picture of anybody's photos, no path of a machine and no warning."""
    assert [cell["execution_count"] for cell in CODE] == list(range(1, len(CODE) + 1))
    for output in outputs():
        assert output["output_type"] == "stream", "pictures are left out"
        assert output["name"] == "stdout"
        assert not re.search(r"/(tmp|home|root|Users|work)\b|\x1b|Traceback|[Ww]arning", "".join(output["text"]))
    text = "".join("".join(output["text"]) for output in outputs())
    assert re.search(r"accuracy \(test\)\s+\S+ %?", text)
    assert "the network says" in text


def test_notebook_links_lead_somewhere():
    text = "\n".join("".join(cell["source"]) for cell in NOTEBOOK["cells"] if cell["cell_type"] == "markdown")
    links = re.findall(r"\]\(([^)#]+)", text)
    assert len(links) >= 5
    assert all((FILE.parent / link).is_file() for link in links)
