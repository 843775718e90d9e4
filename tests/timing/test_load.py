"""What else a machine does while it is timed, and which figures that spoils."""

from __future__ import annotations

import pytest

from snnprune.errors import SnnPruneError, TimingError
from snnprune.timing import load
from snnprune.timing.clock import measure
from timing.machines import Machine


def test_who_had_no_core_has_a_ratio_but_no_time(monkeypatch):
    monkeypatch.setattr(load.os, "cpu_count", lambda: 2)
    found = Machine(share=0.6, others=1.5).measure(a=0.02, b=0.01)
    assert found["a"].ran == pytest.approx(0.6)
    assert "had a core for only 60% of the time; 1.5 of 2 cores" in str(found.refused("a"))
    assert found.ratio_refused("b") is None
    assert Machine(share=0.8, others=1.5).measure(a=0.02).trusted
    elsewhere = measure({"a": lambda: None}, most=6, cpu=None, used=lambda: None, least=0.0)
    assert elsewhere["a"].ran is None


def test_a_call_that_lets_others_compute_is_refused(monkeypatch):
    """Waiting for other threads takes no time of one's own: with cores free, that is not how it is to be timed."""
    monkeypatch.setattr(load.os, "cpu_count", lambda: 4)
    found = Machine(share=0.8, others=1.0).measure(a=0.02, b=0.01)
    assert "ran for only 80% of the time though cores were free" in str(found.ratio_refused("b"))
    assert "though cores were free" in str(found.refused("a"))
    assert Machine(share=0.8, others=3.0).measure(a=0.02, b=0.01).trusted


def test_the_load_is_told(monkeypatch):
    monkeypatch.setattr(load.os, "cpu_count", lambda: 2)
    found = Machine(others=1.7).measure({"limit": 3.0}, a=lambda t, _n: 0.01 * 2**t)
    assert found.load == load.Load(2, pytest.approx(1.7))
    assert "1.7 of 2 cores were busy with other things" in str(found.why)
    with pytest.raises(TimingError, match=r"Its time varies by .*1\.7 of 2 cores.* Stop what else runs .*now 3 s"):
        found.require()
    assert issubclass(TimingError, SnnPruneError)


def test_the_load_of_a_machine(monkeypatch, tmp_path):
    stat = tmp_path / "stat"
    stat.write_text("cpu  100 20 30 9999 999 4 5 6 77 88\ncpu0 1 2 3\n")
    monkeypatch.setattr(load, "_STAT", stat)
    monkeypatch.setattr(load.os, "sysconf", lambda _name: 10)
    monkeypatch.setattr(load.time, "process_time", lambda: 1.5)
    assert load.others_seconds() == (100 + 20 + 30 + 4 + 5 + 6) / 10 - 1.5
    stat.write_text("")
    assert load.others_seconds() is None
    monkeypatch.setattr(load.os, "cpu_count", lambda: 4)
    monkeypatch.setattr(load.os, "getloadavg", lambda: (2.25, 0, 0))
    assert load.Watch(lambda: 0.0, lambda: None).load() == load.Load(4, 1.25)
    monkeypatch.delattr(load.os, "getloadavg")
    assert str(load.Watch(lambda: 0.0, lambda: None).load()) == ""
