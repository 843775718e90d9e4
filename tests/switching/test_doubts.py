"""Conditions that are read when that costs nothing."""

from __future__ import annotations

import pytest
import torch

from snnprune.switching.doubts import Doubts


class Elsewhere:
    """A condition that lies on another device: reading it is noted."""

    device = torch.device("cuda")

    def __init__(self, holds: bool, read: list[bool]) -> None:
        self.holds, self.read = holds, read

    def __bool__(self) -> bool:
        self.read.append(self.holds)
        return self.holds


def test_on_a_cpu_a_condition_is_read_at_once():
    doubts = Doubts()
    doubts.add(torch.tensor(True), lambda: ValueError("no"))
    with pytest.raises(ValueError, match="no"):
        doubts.add(torch.tensor(False), lambda: ValueError("no"))
    doubts.settle()


def test_elsewhere_it_is_read_when_the_next_one_comes():
    doubts, read = Doubts(), []
    doubts.add(Elsewhere(True, read), lambda: ValueError("first"))  # type: ignore[arg-type]
    doubts.add(Elsewhere(False, read), lambda: ValueError("second"))  # type: ignore[arg-type]
    assert read == [True]
    with pytest.raises(ValueError, match="second"):
        doubts.add(Elsewhere(True, read), lambda: ValueError("third"))  # type: ignore[arg-type]
    doubts.settle()
    assert read == [True, False]


def test_settling_reads_all_and_forgets_them():
    doubts, read = Doubts(), []
    doubts.add(Elsewhere(True, read), lambda: ValueError("first"))  # type: ignore[arg-type]
    doubts.settle()
    doubts.settle()
    assert read == [True]
