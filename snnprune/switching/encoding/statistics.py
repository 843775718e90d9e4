"""Four numbers per neuron that stand beside its features."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

STATISTICS = 4  # relative joint norm, z-scores of incoming and outgoing norm, and the importance
_UNIT = 1e-6  # keeps a group of equals at zero
_ENERGY = (1e-12, 1e-8, 1e-8)  # added to mean squares: joint, incoming, outgoing


class Statistics(nn.Module):
    """Norms of every neuron, relative to its group.

    The first one is the norm of all weights of the neuron relative to the group's mean, less 1: comparable between
    groups, so that a group of equals is not ranked as if half of it were weak, and dead neurons do not hide the
    rest; in one unit for all groups. Then come standardised log norms of the neuron's own weights and of those
    that read it, and the importance. A side without weights (pixels have none of their own) is 0.

    Means and units are constants for the gradient, so it is one number per statistic and neuron, which `forward`
    leaves behind for `gradient`.

    Args:
        sizes: of the groups.
        terms: (groups, 2), how many weight tensors stand on each side.
        importance: (neurons,), standardised.
    """

    def __init__(self, sizes: Sequence[int], terms: Tensor, importance: Tensor) -> None:
        super().__init__()
        self.register_buffer("importance", importance)
        lengths = torch.tensor(sizes)
        group = torch.arange(len(sizes)).repeat_interleave(lengths)
        both = torch.cat([terms.sum(1, keepdim=True), terms], 1)
        mean = torch.zeros(len(sizes), len(group)).index_put_((group, torch.arange(len(group))), torch.ones(()))
        present = torch.cat([torch.ones(len(sizes), 1), (terms > 0).float()], 1)
        for name, value in (
            ("group", group),
            ("weight", (1 / both.clamp_min(1)).index_select(0, group)),
            ("least", torch.tensor(_ENERGY)),
            ("mean", mean / lengths[:, None]),
            ("share", (lengths / len(group)).sqrt()),
            ("present", present),
        ):
            self.register_buffer(name, value, persistent=False)

    importance: Tensor
    group: Tensor
    weight: Tensor
    least: Tensor
    mean: Tensor
    share: Tensor
    present: Tensor

    def forward(self, energy: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The statistics, what `gradient` needs, and the joint norms.

        Args:
            energy: (neurons, 2), sums of the mean squares of every weight tensor's rows, by side.

        Returns:
            (neurons, STATISTICS); (neurons, 3), derivatives of the first three by joint, incoming and outgoing
            mean square; (neurons,).
        """
        sums = torch.cat([energy.sum(1, keepdim=True), energy], 1)
        squares = torch.addcmul(self.least, sums, self.weight)
        values = squares.log()
        torch.sqrt(squares[:, 0], out=values[:, 0])
        norm = values[:, 0]
        means = self._mean(values)
        centred = values - means.index_select(0, self.group)
        unit = self._mean(centred.square()).sqrt_()  # of logarithms of squares: twice those of norms
        relative = torch.linalg.vector_norm(unit[:, 0] / means[:, 0] * self.share)
        unit.add_(2 * _UNIT)
        torch.mul(relative + _UNIT, means[:, 0], out=unit[:, 0])
        inverse = (self.present / unit).index_select(0, self.group)
        statistics = torch.cat([centred.mul_(inverse), self.importance[:, None]], 1)
        slope = inverse.div_(squares)
        slope[:, 0].mul_(norm).mul_(0.5)
        return statistics, slope, norm

    def gradient(self, of_statistics: Tensor, slope: Tensor) -> Tensor:
        """By `energy`, (neurons, 2)."""
        found = of_statistics[:, :3] * slope
        found.mul_(self.weight)
        return found[:, 1:] + found[:, :1]

    def _mean(self, values: Tensor) -> Tensor:
        """Of every group, (neurons, n) -> (groups, n)."""
        return self.mean @ values
