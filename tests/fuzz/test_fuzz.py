"""A few hundred damaged files for every reader; `run.py` feeds many more."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fuzz.mutate import mutate_onnx
from fuzz.mutate.archives import members_of
from fuzz.targets import TARGETS, draw, loads

HERE = Path(__file__).resolve().parent
EVERY = settings(
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
JSON = ("structure", "report", "trials", "latency")
REFUSED = {"image": (6, 7)}  # GIF and EPS: formats that are not read

pytestmark = pytest.mark.filterwarnings("ignore")  # of the libraries that parse


@pytest.mark.parametrize("name", TARGETS)
def test_what_is_valid_loads(name):
    target = TARGETS[name]
    for at, data in enumerate(target.valid()):
        assert loads(target, data) == (at not in REFUSED.get(name, ())), at


@pytest.mark.parametrize("name", TARGETS)
def test_damaged_files_load_or_are_refused(name):
    target, found = TARGETS[name], set()

    @settings(EVERY, max_examples=120)
    @given(st.integers(0, 2**32))
    def feed(seed):
        found.add(loads(target, draw(target, Random(seed))))

    feed()
    assert found == {True, False}, "some damage is harmless and some is not"


@pytest.mark.parametrize("name", TARGETS)
@settings(EVERY, max_examples=40)
@given(data=st.binary(max_size=300))
def test_any_bytes_are_refused(name, data):
    assert not loads(TARGETS[name], data)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.parametrize("name", JSON)
@settings(EVERY, max_examples=60)
@given(value=VALUES, data=st.data())
def test_any_value_in_any_entry_loads_or_is_refused(name, value, data):
    content = json.loads(TARGETS[name].valid()[0])
    content[data.draw(st.sampled_from(sorted(content)))] = value
    loads(TARGETS[name], json.dumps(content).encode())


@pytest.mark.parametrize(
    ("body", "word"),
    [
        ("raise KeyError('defect')", "defect"),
        ("began = time.process_time()\n    while time.process_time() < began + 1.3: pass", "s were taken"),
        ("return bytearray(120_000_000)", "MB were taken"),
    ],
    ids=["raises", "slow", "large"],
)
def test_the_command_counts_and_keeps_what_crashes(tmp_path, body, word):
    script = tmp_path / "broken.py"
    script.write_text(
        "import sys, time\n"
        f"sys.path.insert(0, {str(HERE.parent)!r})\n"
        "from dataclasses import replace\n"
        "from pathlib import Path\n"
        "from fuzz import run\n"
        "from fuzz.targets import TARGETS\n"
        "valid = TARGETS['report'].valid()\n"
        "def feed(data):\n"
        "    if data in valid: return\n"
        f"    {body}\n"
        "TARGETS['report'] = replace(TARGETS['report'], feed=feed)\n"
        "counts = run.fuzz('report', 3, 0, Path('keep'), Path('last'))\n"
        "assert counts['crashes'] == 3, counts\n"
        "assert len(list(Path('keep').glob('*.bin'))) == 3\n"
        f"assert {word!r} in next(Path('keep').glob('*.txt')).read_text()\n"
    )
    subprocess.run([sys.executable, str(script)], cwd=tmp_path, check=True, timeout=120)


def test_new_shapes_are_drawn():
    """Among what is fed are archives of two contents, costly pickles, and tensors that lie elsewhere."""
    random = Random(0)
    members = members_of(io.BytesIO(TARGETS["state-dict"].valid()[0]))
    forms = Counter()
    for _ in range(300):
        data = draw(TARGETS["state-dict"], random)
        forms["two directories"] += data.count(b"PK\5\6") == 1 and data.count(b"/data.pkl") > 2
        forms["two records"] += b"PK\6\7" in data and data.count(b"PK\6\6") > 1
        forms["costly"] += any(shape in data for shape in (b"__setstate__", b"]" * 100, b"h\xf0" * 8))
        try:
            forms["whole"] += members_of(io.BytesIO(data)) == members
        except Exception:
            forms["damaged"] += 1
    for at in range(100):
        data = mutate_onnx(Random(at), TARGETS["onnx"].valid()[0])
        forms["address"] += b"_ORT_MEM_ADDR_" in data
        forms["two locations"] += data.count(b"location") > 1
    assert len(forms) == 7
    assert min(forms.values()) > 0, forms


def test_the_command_ends_well_where_nothing_crashes(tmp_path):
    command = [sys.executable, str(HERE / "run.py")]
    options = ["--inputs", "20", "--target", "report", "--keep", str(tmp_path / "none")]
    done = subprocess.run([*command, *options], capture_output=True, text=True, timeout=120, check=True)
    name, *counts = done.stdout.splitlines()[-1].split()
    assert name == "all"
    assert sum(map(int, counts)) == 20
    assert int(counts[2]) == 0
    assert not (tmp_path / "none").exists()
