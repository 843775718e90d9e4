"""The oldest supported versions: those of pyproject.toml are those that the tests are run with."""

from __future__ import annotations

import importlib.util
import tomllib

import pytest
from conftest import ROOT
from packaging.requirements import Requirement
from packaging.version import Version


def pinned() -> dict[str, Version]:
    lines = (ROOT / "tests" / "oldest.txt").read_text().splitlines()
    found = {}
    for line in lines:
        if line and not line.startswith("#"):
            name, _, version = line.partition("==")
            assert name not in found, name
            found[name] = Version(version)
    return found


def lower_bounds() -> dict[str, Version]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    found = {}
    extras = project["optional-dependencies"]
    for text in [*project["dependencies"], *extras["test"], *extras["docs"], *extras["tensorboard"]]:
        wanted = Requirement(text)
        if wanted.name == project["name"]:
            continue  # other extras of its own
        (least,) = [s.version for s in wanted.specifier if s.operator == ">="]
        found[wanted.name] = Version(least)
    return found


def test_oldest_versions_are_the_lower_bounds():
    assert pinned() == lower_bounds()
    assert len(pinned()) >= 16


def test_packages_of_other_networks_are_in_an_extra_that_nothing_else_takes():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    others = {r.name: r for r in map(Requirement, extras["others"]) if r.name != "snnprune"}
    assert set(others) == {"transformers", "ultralytics", "segmentation-models-pytorch"}
    assert all([s.operator for s in r.specifier] == [">="] for r in others.values())
    rest = [Requirement(text) for name in extras if name != "others" for text in extras[name]]
    assert not any(r.name in others or "others" in r.extras for r in rest)


@pytest.fixture
def script(monkeypatch):
    spec = importlib.util.spec_from_file_location("versions", ROOT / "tests" / "versions.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("broken", "code", "said"),
    [
        (None, 0, ["oldest: passed", "newest: passed"]),
        (("oldest", "pytest"), 1, ["oldest: tests failed", "newest: passed"]),
        (("newest", "install"), 1, ["oldest: passed", "newest: installation failed"]),
    ],
)
def test_both_sets_are_run_and_either_may_fail(script, monkeypatch, tmp_path, capsys, broken, code, said):
    done = []

    def run(*command):
        words = [str(part) for part in command]
        done.append(words)
        return int(broken is not None and any(broken[0] in w for w in words[:4]) and broken[1] in words)

    monkeypatch.setattr(script, "run", run)
    assert script.main([str(tmp_path), "--", "tests/cli"]) == code
    text = capsys.readouterr().out
    assert all(line in text for line in said), text
    installs = [words for words in done if "install" in words]
    assert str(ROOT / "tests" / "oldest.txt") in installs[0]
    assert str(ROOT / "tests" / "oldest.txt") not in installs[1]
    assert all(words[-1] == "tests/cli" for words in done if "pytest" in words)
