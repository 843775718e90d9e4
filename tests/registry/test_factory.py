"""Architectures by name, from torchvision and from the user's code."""

from __future__ import annotations

import hashlib

import pytest
from conftest import DIGITS

from snnprune.errors import ModelFileError
from snnprune.registry import build, load_factory, torchvision_names


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
    (tmp_path / "tidy.py").write_text(
        "import sys\nsys.path.remove(__file__.rpartition('/')[0])\nfrom torch import nn\n\n"
        "def net():\n    return nn.Linear(2, 2)\n"
    )
    assert build(f"{tmp_path.resolve() / 'tidy.py'}:net").in_features == 2
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
