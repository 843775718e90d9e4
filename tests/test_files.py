"""JSON from outside: bounded, regular files, plain numbers."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from snnprune.errors import RunError
from snnprune.files import missing, nearest, read_json


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"a": NaN}', "not finite"),
        (b'{"a": -Infinity}', "not finite"),
        (b'{"a": 1e999}', "not finite"),
        (b'{"a": 9223372036854775808}', "too large"),
        (b'{"a": 1, "a": 2}', "stands twice"),
        (b'{"a": "\xff"}', "no valid JSON"),
        (b"[" * 100_000, "no valid JSON"),
        (b"1" * 5000, "no valid JSON"),
        (b"", "no valid JSON"),
        (b" " * 2000 + b"1", "larger than"),
    ],
    ids=["NaN", "infinity", "overflow", "long", "twice", "bytes", "deep", "digits", "empty", "large"],
)
def test_json_that_is_refused(tmp_path, content, message):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    limit = 1000 if message == "larger than" else 2**20
    with pytest.raises(RunError, match=message) as caught:
        read_json(path, limit=limit)
    assert str(path) in str(caught.value)


def test_json_that_is_read(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('{"a": [1, -2.5e3, null, true, "\\u00e9"], "b": 9223372036854775807}')
    assert read_json(path) == {"a": [1, -2500.0, None, True, "é"], "b": 2**63 - 1}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes")
def test_pipes_and_devices_are_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("/dev/zero")
    for name in ("pipe", "link"):
        with pytest.raises(RunError, match="no regular file"):
            read_json(tmp_path / name)
    with pytest.raises(RunError, match="cannot be read"):
        read_json(Path(tmp_path))


def test_what_was_probably_meant_by_a_path_that_is_not_there(tmp_path):
    (tmp_path / "model.pt").touch()
    (tmp_path / "models").mkdir()
    wrong = tmp_path / "modell.pt"
    assert nearest(wrong) == tmp_path / "model.pt"
    assert missing(wrong) == f"there is no file {wrong}. Did you mean {tmp_path / 'model.pt'}?"
    assert nearest(tmp_path / "modls", Path.is_dir) == tmp_path / "models"
    assert nearest(tmp_path / "modl.pt", Path.is_dir) is None
    for far in (tmp_path / "weights.bin", tmp_path / "absent" / "model.pt", tmp_path / "model.pt" / "x"):
        assert missing(far) == f"there is no file {far}."
