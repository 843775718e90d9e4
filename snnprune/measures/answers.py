"""Which inputs a model got right, so that two models can be compared input by input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..ranks import Ranks


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """This process's inputs in the order that they were read in.

    Attributes:
        right: bool of shape (inputs,), whether the model's class was the right one.
        inputs: float64 of shape (inputs,), a number by which an input is known again: a loader that shuffles, or
            that changes images at random, gives others the second time.
    """

    right: Tensor
    inputs: Tensor

    @classmethod
    def of(cls, right: Sequence[Tensor], inputs: Sequence[Tensor]) -> Answers:
        """All batches' together, in the CPU's memory."""
        return cls(torch.cat(list(right)).cpu(), torch.cat(list(inputs)).cpu().double())

    def both(self, other: Answers | None, ranks: Ranks) -> int | None:
        """How many inputs both models got right; None where they were not measured on the same ones.

        Args:
            other: of the other model.
            ranks: the processes that call this together; all get the same number.
        """
        same = other is not None and torch.equal(self.inputs, other.inputs)
        both = int((self.right & other.right).sum()) if other is not None and same else 0
        strange, both = ranks.total(float(not same), both)
        return None if strange else int(both)


def mark_of(images: Tensor) -> Tensor:
    """A number for each input of a batch, of shape (inputs,), that hardly another one has."""
    return images.flatten(1).float().sum(1) if images.dim() > 1 else images.float()
