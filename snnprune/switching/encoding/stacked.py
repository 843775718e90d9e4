"""The papers' input for fully connected layers: all weight matrices as channels of one matrix.

arXiv 2110.05954, section 3.3.1: one input channel per layer, zero-padded to the largest, one row per
neuron. The neurons of layer k are its *inputs*, so a row holds the weights that leave a neuron.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ... import layers
from ...graph import NeuronGroup
from .sources import Source, over_rms, sources_of


def fc_source(model: nn.Module, group: NeuronGroup) -> Source | None:
    """The FC matrix whose input columns are exactly this group's neurons, if there is one."""
    for source in sources_of(model, group):
        module = model.get_submodule(source.module)
        if source.side == "outgoing" and source.per_neuron == 1 and isinstance(module, nn.Linear):
            return source
    return None


class StackedMatrices(nn.Module):
    """FC weight matrices as channels of one zero-padded matrix."""

    def __init__(self, model: nn.Module, groups: Sequence[NeuronGroup]) -> None:
        super().__init__()
        self.sources: list[Source] = []
        for group in groups:
            source = fc_source(model, group)
            assert source is not None, group.id
            self.sources.append(source)
        self.ids = [group.id for group in groups]
        self.sizes = [group.size for group in groups]
        self.height = max(self.sizes)
        self.width = max(s.length for s in self.sources)

    def forward(self, model: nn.Module) -> Tensor:
        """(layers, height, width), each matrix divided by its own root mean square."""
        sheets = []
        for source, size in zip(self.sources, self.sizes, strict=True):
            rows = over_rms(source.rows(model).float())
            sheets.append(F.pad(rows, (0, self.width - source.length, 0, self.height - size)))
        return torch.stack(sheets)


def is_fc_group(model: nn.Module, group: NeuronGroup) -> bool:
    """True for groups that the papers feed to the switcher as an FC weight matrix."""
    producers = [model.get_submodule(m.module) for m in group.producers]
    return fc_source(model, group) is not None and not any(layers.is_conv(p) for p in producers)
