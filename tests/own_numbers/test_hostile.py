"""Numbers in a structure file that are none of the model's, or are to change what no channel counts."""

from __future__ import annotations

import pytest
from torch import nn

from snnprune.errors import StructureError
from snnprune.layers.numbers import number_at
from snnprune.runs.numbers import set_numbers_


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.c, self.sizes, self.flag = nn.Conv2d(3, 8, 3), 8, (8, 2), True

    def forward(self, x):
        return self.conv(x).view(len(x), self.c, -1)


def attributes(path, number):
    return {"": {"attributes": {path: number}}}


@pytest.mark.parametrize(
    "numbers",
    [
        [],
        {"": []},
        {"": {"other": {}}},
        {"nowhere": {"attributes": {"c": 4}}},
        attributes("c", 9),
        attributes("c", 0),
        attributes("c", True),
        attributes("c", "4"),
        attributes("flag", 1),
        attributes("forward", 1),
        attributes("sizes.2", 1),
        attributes("sizes.-1", 1),
        attributes("__class__", 1),
        attributes("__dict__.c", 4),
        attributes("_modules.conv.out_channels", 4),
        attributes("_parameters.x", 4),
        attributes("c" + ".c" * 10_000, 4),
        {"": {"calls": []}},
        {"": {"calls": {"forward/view@0.0-0.1": {"0": 4}}}},
        {"": {"calls": {"forward/view@x": {"0": 4}}}},
        {"": {"calls": {"__init__/super@1.8-1.15": {"0": 4}}}},
        {"": {"calls": {"forward/view@1.15-1.48": {"0": 4.5}}}},
        {"": {"calls": {"forward/view@1.15-1.48": {"x": 4}}}},
        {"": {"calls": {"nothing/view@1.15-1.48": {"0": 4}}}},
    ],
    ids=range(24),
)
def test_numbers_that_are_none_of_the_models_are_refused(numbers):
    model = Net()
    before = dict(model.__dict__)
    with pytest.raises(StructureError):
        set_numbers_(model, numbers)
    assert model.__dict__ == before
    assert type(model) is Net
    assert model.conv.out_channels == 8


def test_numbers_of_the_model_are_taken():
    model = Net()
    set_numbers_(model, {"": {"attributes": {"c": 5, "sizes.0": 4}}})
    assert (model.c, model.sizes) == (5, (4, 2))


def test_what_is_pytorchs_own_is_no_number_of_the_model():
    model = Net()
    assert number_at(model, "_modules.conv.out_channels") is None
    assert number_at(model, "sizes.1") == 2
