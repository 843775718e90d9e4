"""Files of times: what they hold, and what is refused."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from snnprune.errors import TimingError
from snnprune.timing import answers as module
from snnprune.timing.answers import answers_in, cache_file, cache_folder, keep, load, read_answers, serving_of
from snnprune.timing.serving import Serving

KEY = {"engine": "cpu", "batch": 4, "precision": "fp32", "threads": 2, "device": "x", "version": "y"}


def test_what_is_kept_is_found_again(tmp_path):
    keep(KEY, {"a": 1.5, "b": None}, tmp_path)
    keep(KEY, {"c": 2.0, "a": 1.25}, tmp_path)
    assert load(KEY, tmp_path) == {"a": 1.25, "c": 2.0}, "what could not be run is tried again"
    assert serving_of(KEY) == Serving(engine="cpu", batch=4, threads=2)


@pytest.mark.parametrize("name", KEY)
def test_keys_are_apart(tmp_path, name):
    keep(KEY, {"a": 1.5}, tmp_path)
    other = {**KEY, name: "cuda" if name == "engine" else "fp16" if name == "precision" else 9}
    assert load(other, tmp_path) == {}
    os.replace(cache_file(KEY, tmp_path), cache_file(other, tmp_path))
    assert load(other, tmp_path) == {}, "the file says itself what it is of"


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"3", b"\xff\xfe", b'{"format": 1}'])
def test_a_damaged_cache_is_measured_anew(tmp_path, caplog, data):
    path = cache_file(KEY, tmp_path)
    path.parent.mkdir(parents=True)
    path.write_bytes(data)
    assert load(KEY, tmp_path) == {}
    assert "measured anew" in caplog.text
    keep(KEY, {"a": 1.0}, tmp_path)
    assert load(KEY, tmp_path) == {"a": 1.0}


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    keep(KEY, {"a": 1.0}, tmp_path / "file")
    assert "are not kept" in caplog.text
    assert load(KEY, tmp_path / "file") == {}


def test_the_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("SNNPRUNE_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("SNNPRUNE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "snnprune"
    monkeypatch.delenv("XDG_CACHE_HOME")

    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(module.Path, "home", homeless)
    assert cache_folder().name == "snnprune"


@pytest.mark.parametrize(
    "ms", ["NaN", "-1", "-0.001", '"3"', "true", "Infinity", "1e400", "1e300", "1" + "0" * 30, "[1]", "{}"]
)
def test_hostile_times(tmp_path, ms):
    path = tmp_path / "times.json"
    path.write_text(json.dumps(answers_in({"a": 77}, KEY)).replace("77", ms))
    with pytest.raises(TimingError, match="times"):
        read_answers(path)


@pytest.mark.parametrize(
    "changed",
    [
        {"format": 2},
        {"format": None},
        {"key": []},
        {"key": {}},
        {"key": {**KEY, "engine": "quantum"}},
        {"key": {**KEY, "batch": 0}},
        {"key": {**KEY, "threads": "2"}},
        {"answers": [1]},
        {"answers": None},
    ],
)
def test_files_of_another_form(tmp_path, changed):
    path = tmp_path / "times.json"
    path.write_text(json.dumps({**answers_in({"a": 1}, KEY), **changed}))
    with pytest.raises(TimingError, match=r"times\.json holds no times .* Write it anew"):
        read_answers(path)
    for name in ("format", "key", "answers"):
        path.write_text(json.dumps({k: v for k, v in answers_in({"a": 1}, KEY).items() if k != name}))
        with pytest.raises(TimingError, match=name):
            read_answers(path)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(TimingError, match="none"):
        read_answers(tmp_path / "none.json")
