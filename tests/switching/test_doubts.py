"""Conditions that are read when that costs nothing."""

from __future__ import annotations

import pytest
import torch

from snnprune.switching.doubts import Doubts


class Elsewhere:
    """A condition that lies on another device: reading it is noted."""

    device = torch.device("meta")

    def __init__(self, holds: bool, read: list[bool]) -> None:
        self.holds, self.read = holds, read

    def __bool__(self) -> bool:
        self.read.append(self.holds)
        return self.holds


def refuse(text):
    def error():
        return ValueError(text)

    return error


def test_on_a_cpu_a_condition_is_read_at_once():
    doubts = Doubts()
    doubts.add(torch.tensor(True), refuse("no"))
    with pytest.raises(ValueError, match="no"):
        doubts.add(torch.tensor(False), refuse("no"))
    doubts.settle()


def test_elsewhere_it_is_read_when_the_next_scales_are_begun():
    doubts, read = Doubts(), []
    doubts.begin()
    doubts.add(Elsewhere(True, read), refuse("first"))  # type: ignore[arg-type]
    doubts.add(Elsewhere(False, read), refuse("second"))  # type: ignore[arg-type]
    assert read == []
    with pytest.raises(ValueError, match="second"):
        doubts.begin()
    assert read == [True, False]
    doubts.begin()
    doubts.settle()
    assert read == [True, False], "what is told is forgotten"


def test_settling_reads_all_and_forgets_them():
    doubts, read = Doubts(), []
    doubts.add(Elsewhere(True, read), refuse("first"))  # type: ignore[arg-type]
    doubts.settle()
    doubts.settle()
    assert read == [True]
    doubts.add(Elsewhere(False, read), refuse("second"))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="second"):
        doubts.settle()
    doubts.settle()
