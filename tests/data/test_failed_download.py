"""A download that fails leaves everything as it was."""

from __future__ import annotations

from pathlib import Path

import pytest
from torchvision import datasets

import snnprune
from snnprune.data.sources import _CLASSES
from snnprune.errors import DataError

OTHERS = ["logs", "a/b/c", ".git/refs/tags", ".git/objects/info", "cifar", "MNIST2/raw"]


def offline(self) -> None:
    """What each set does before the net is asked."""
    for folder in (Path(self.root), Path(getattr(self, "raw_folder", self.root))):
        folder.mkdir(parents=True, exist_ok=True)
    if hasattr(self, "base_folder"):
        (Path(self.root) / self.base_folder).mkdir(exist_ok=True)
    raise OSError("no route to host")


def folders(root: Path) -> set[str]:
    return {str(p.relative_to(root)) for p in root.rglob("*")}


@pytest.mark.parametrize("name", sorted(_CLASSES))
@pytest.mark.parametrize("root", [".", "data", "deep/er/data", "~/data"])
def test_only_what_it_has_made_goes(tmp_path, monkeypatch, name, root):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(getattr(datasets, _CLASSES[name]), "download", offline)
    for other in OTHERS:
        Path(other).mkdir(parents=True)
    before = folders(tmp_path)
    with pytest.raises(DataError, match="could not be downloaded"):
        snnprune.load_data(name, root)
    assert folders(tmp_path) == before


def test_empty_folders_of_a_data_set_that_were_there_stay(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.MNIST, "download", offline)
    (tmp_path / "MNIST" / "raw").mkdir(parents=True)
    with pytest.raises(DataError, match="could not be downloaded"):
        snnprune.load_data("mnist", tmp_path)
    assert (tmp_path / "MNIST" / "raw").is_dir()


def test_files_that_were_loaded_stay(tmp_path, monkeypatch):
    def halfway(self) -> None:
        Path(self.raw_folder).mkdir(parents=True)
        (Path(self.raw_folder) / "train-images.gz").write_bytes(b"half")
        raise OSError("no route to host")

    monkeypatch.setattr(datasets.MNIST, "download", halfway)
    with pytest.raises(DataError, match="could not be downloaded"):
        snnprune.load_data("mnist", tmp_path / "data")
    assert folders(tmp_path) == {"data", "data/MNIST", "data/MNIST/raw", "data/MNIST/raw/train-images.gz"}
