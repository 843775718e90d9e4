"""Which outputs matter: others keep no neurons."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import snnprune
from snnprune.errors import ConfigError
from snnprune.graph import selected
from snnprune.graph.outputs import paths_of
from snnprune.proof import random_scales, relative_difference

X = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))


@dataclasses.dataclass
class Found:
    logits: torch.Tensor
    features: list[torch.Tensor]


class Detector(nn.Module):
    """Returns its features beside what it is for, in training mode under another name."""

    def __init__(self, form: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.neck, self.head = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 12, 3), nn.Conv2d(12, 4, 1)
        self.form = form

    def forward(self, x):
        stem = F.silu(self.stem(x))
        neck = F.silu(self.neck(stem))
        logits = self.head(neck)
        if self.form == "dict":
            return {"raw": [stem, neck], "logits": logits} if self.training else {"logits": logits, "aux": [stem]}
        if self.form == "dataclass":
            return Found(logits, [stem, neck])
        return logits if self.form == "tensor" else (logits, (stem, neck))


def test_paths_are_keys_fields_and_places():
    a, b, c = torch.zeros(1), torch.ones(1), torch.ones(2)
    value = {"x": a, "aux": [b, (c, None)], 3: Found(a, [b])}
    assert [path for path, _ in paths_of(value)] == ["x", "aux.0", "aux.1.0", "3.logits", "3.features.0"]
    assert [path for path, _ in paths_of(a)] == [""]
    assert [path for path, _ in paths_of(torch.zeros(2, 3).max(1))] == ["0", "1"]
    assert selected(value, ("aux", "3.logits")) == [b, c, a]
    assert selected(value, ("*.0",)) == [b, c, b]
    assert len(selected(value, ())) == 5


def prunable(form, **options):
    return {g.id for g in snnprune.trace(Detector(form).eval(), X, **options) if g.prunable}


@pytest.mark.parametrize(
    ("form", "outputs", "expected"),
    [
        ("tuple", ("0",), {"stem", "neck"}),
        ("tuple", ("0", "1.0"), {"neck"}),
        ("tuple", ("1.1",), {"stem"}),
        ("dataclass", ("logits",), {"stem", "neck"}),
        ("dataclass", ("logits", "features.1"), {"stem"}),
        ("dict", ("logits",), {"stem", "neck"}),
        ("dict", ("logits", "aux"), {"neck"}),
        ("dict", ("log*", "raw.1"), {"stem"}),
    ],
)
def test_other_outputs_keep_no_neurons(form, outputs, expected):
    with pytest.raises(snnprune.SnnPruneError, match="output of the model"):
        prunable(form)
    if outputs == ("1.1",):  # what nothing that matters depends on proves nothing, and stays where it is read
        assert "stem" in prunable(form, outputs=outputs)
    else:
        assert prunable(form, outputs=outputs) == expected


def test_what_matters_is_exact_and_the_rest_has_fewer_channels():
    model = Detector("tuple").double().eval()
    with snnprune.attach(model, X.double(), switcher=None, outputs=["0"]) as gated:
        gated.set_scales(random_scales(gated.groups, torch.Generator().manual_seed(0)))
        logits = gated(X.double())[0]
        small = gated.compact()
        assert max(gated.prove(X.double()).values()) < 1e-10
    other, (stem, neck) = small(X.double())
    assert relative_difference(logits, other) < 1e-10
    assert stem.shape[1] < 16
    assert neck.shape[1] < 12


@pytest.mark.parametrize(
    ("form", "outputs", "why"),
    [
        ("tuple", ("logits",), "outputs name 'logits', but the model returns 0, 1.0, 1.1"),
        ("dict", ("logits", "boxes"), "'boxes', but the model returns logits, aux.0, raw.0, raw.1"),
        ("tensor", ("0",), "the model returns one tensor, which counts as it is"),
        ("dict", ("raw.1",), r"which the model returns in training mode alone.*\(logits, aux.0\)"),
    ],
)
def test_a_path_that_names_nothing_is_refused_with_what_there_is(form, outputs, why):
    with pytest.raises(ConfigError, match=why):
        snnprune.trace(Detector(form), X, outputs=outputs)
