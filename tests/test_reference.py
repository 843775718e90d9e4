"""The API reference: every public name has a docstring that names its arguments, and whose example is true."""

from __future__ import annotations

import dataclasses
import doctest
import html
import importlib.util
import inspect
import re
from collections.abc import Iterator
from typing import Any

import pytest
from conftest import ROOT
from digits_cnn import digits_cnn

import snnprune

PUBLIC = [name for name in snnprune.__all__ if name != "__version__"]


def functions_of(owner: type) -> Iterator[tuple[str, Any]]:
    for name, value in vars(owner).items():
        function = value.__func__ if isinstance(value, (classmethod, staticmethod)) else value
        if not name.startswith("_") and inspect.isfunction(function):
            yield f"{owner.__name__}.{name}", function


def every_function() -> Iterator[tuple[str, Any]]:
    for name in PUBLIC:
        value = getattr(snnprune, name)
        yield (name, value)
        if inspect.isclass(value):
            yield from functions_of(value)


def entries(text: str) -> set[str]:
    """Names that the sections Args and Attributes explain."""
    sections = re.findall(r"^(?:Args|Attributes):\n((?: .*\n|\n)*)", text + "\n", re.MULTILINE)
    return set(re.findall(r"^    (\w+): \S", "".join(sections), re.MULTILINE))


@pytest.mark.parametrize(("name", "value"), list(every_function()), ids=lambda v: v if isinstance(v, str) else "")
def test_docstrings_name_every_argument(name, value):
    text = inspect.getdoc(value)
    assert text, f"{name} has no docstring"
    assert text.splitlines()[0].rstrip().endswith((".", ":")), f"{name}: its first line is no sentence"
    if inspect.isclass(value) and issubclass(value, Exception):
        return
    if dataclasses.is_dataclass(value):
        wanted = {field.name for field in dataclasses.fields(value) if not field.name.startswith("_")}
    else:
        wanted = set(inspect.signature(value).parameters) - {"self", "cls"}
    assert wanted <= entries(text), f"{name} does not explain {sorted(wanted - entries(text))}"


@pytest.fixture(scope="module")
def objects() -> dict[str, Any]:
    """What examples take as given."""
    import torch
    import torchvision

    torch.manual_seed(0)
    train, val, test = snnprune.load_data("digits", batch_size=64)
    model = digits_cnn().eval()
    images = next(iter(test))[0]
    with snnprune.attach(model, images[:2]) as gated:
        gated.set_budget({"macs": 0.5})
        small = gated.compact()
    given = {"snnprune": snnprune, "torch": torch, "torchvision": torchvision, "digits_cnn": digits_cnn}
    return {**given, "train": train, "val": val, "test": test, "model": model, "small": small, "images": images}


WITH_EXAMPLES = [n for n, v in every_function() if ">>>" in (inspect.getdoc(v) or "")]


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_examples_in_docstrings(name, objects, tmp_path, monkeypatch, layer_times):
    monkeypatch.chdir(tmp_path)
    text = inspect.getdoc(dict(every_function())[name])
    case = doctest.DocTestParser().get_doctest(text, dict(objects), name, None, 0)
    said: list[str] = []
    found = doctest.DocTestRunner(verbose=False).run(case, out=said.append)
    assert found.attempted > 0
    assert found.failed == 0, "".join(said)


def test_what_needs_an_example_has_one():
    assert {*PUBLIC} - {"ArrayLoader", "GatedModel", "NeuronGroup", "Result", "SnnPruneError"} <= {*WITH_EXAMPLES}


@pytest.mark.skipif(importlib.util.find_spec("pdoc") is None, reason="pdoc is not installed (the extra docs)")
def test_the_reference_has_every_public_name(tmp_path, monkeypatch):
    """Built as the guide says; each name with the first sentence of its docstring."""
    for name in PUBLIC:  # as in a fresh process, whatever tests before have loaded
        monkeypatch.delitem(vars(snnprune), name, raising=False)
    spec = importlib.util.spec_from_file_location("reference", ROOT / "docs" / "reference.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    script.main(str(tmp_path))
    page = (tmp_path / "snnprune.html").read_text()
    for name in PUBLIC:
        section = re.search(rf'<section id="{name}">(.*?)</section>', page, re.DOTALL)
        assert section, f"{name} is not in the reference"
        said = " ".join(html.unescape(re.sub(r"<[^>]*>", "", section[1])).split())
        first = " ".join(inspect.getdoc(getattr(snnprune, name)).partition("\n\n")[0].replace("`", "").split())
        assert first in said, f"{name} is without its docstring"
    assert "DivergedError" in (tmp_path / "snnprune" / "errors.html").read_text()
    assert (tmp_path / "index.html").is_file()
    assert "python docs/reference.py" in (ROOT / "docs" / "index.md").read_text()
