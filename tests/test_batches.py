"""How many inputs a batch holds, and some of them, in every form that users' batches have."""

from __future__ import annotations

from collections import namedtuple

import pytest
import torch

from snnprune.batches import counted, inputs_in, picked
from snnprune.inputs import Batch

Pair = namedtuple("Pair", "x y")
X, Y = torch.arange(60.0).view(10, 6), torch.arange(10)
IMAGES, TOKENS = torch.zeros(4, 3, 8, 8), torch.zeros(10, 7, 5)
IDS = torch.zeros(10, 7, dtype=torch.long)
BOXES = [{"boxes": torch.zeros(n, 4), "labels": torch.zeros(n)} for n in (2, 0, 5, 1)]
FORMS = {
    "tensor": (X, 10),
    "scalar": (torch.tensor(1.0), None),
    "pair": ((X, Y), 10),
    "a list of fields": ([X, Y], 10),
    "inputs alone": ((X,), 10),
    "named": (Pair(X, Y), 10),
    "dict": ({"x": X, "y": Y}, 10),
    "a word before": ({"task": "A", "x": X, "y": Y}, 10),
    "a number before": ({"w": torch.tensor(1.0), "x": X, "y": Y}, 10),
    "weights of classes before": ((torch.ones(3), X, Y), 10),
    "weights of classes and inputs alone": ({"w": torch.ones(3), "x": X}, 10),
    "two inputs": (((X, X + 1), Y), 10),
    "two inputs and no labels": (((X, X + 1),), 10),
    "images and no labels": ((list(IMAGES),), 4),
    "two inputs of tokens": (((TOKENS, TOKENS), Y), 10),
    "a dict of inputs": (({"ids": TOKENS, "mask": X}, Y), 10),
    "images of a detector": ((list(IMAGES), BOXES), 4),
    "three images of a detector": ((list(IMAGES[:3]), BOXES[:3]), 3),
    "images in one tensor": ((IMAGES, BOXES), 4),
    "samples": ([(IMAGES[0], 1), (IMAGES[1], 2)], 2),
    "dicts of samples": ([{"image": IMAGES[0]}, {"image": IMAGES[1]}, {"image": IMAGES[2]}], 3),
    "names beside": ((X, Y, [str(n) for n in range(10)]), 10),
    "time first": ((torch.zeros(7, 10, 5), Y % 3), 10),
    "tokens, time first": ((torch.zeros(7, 10, dtype=torch.long), Y % 3), 10),
    "numbers to reach, time first": ([torch.zeros(7, 10, 5), torch.zeros(10, 1)], 10),
    "time first, as long as wide": ((torch.zeros(10, 10, 5), Y % 3), 10),
    "a state of layers first": ((TOKENS, torch.zeros(2, 10, 4), Y), 10),
    "labels at each time": ((TOKENS, torch.zeros(10, 7)), 10),
    "a mask of positions": ((TOKENS, torch.zeros(7, 7), Y), 10),
    "a mask and no labels": ((IDS, torch.zeros(7, 7)), 10),
    "a mask for sequences": ((TOKENS, torch.zeros(7, 7)), 10),
    "a mask between": ({"ids": IDS, "mask": torch.zeros(7, 7), "labels": IDS}, 10),
    "positions": ({"ids": IDS, "labels": IDS, "positions": torch.arange(7)}, 10),
    "positions and no labels": ((IDS, torch.arange(7)), 10),
    "times": ((TOKENS, torch.zeros(10, 7, 1), torch.zeros(7)), 10),
    "anchors": ((torch.zeros(10, 7, 4), torch.zeros(10, 7), torch.zeros(7, 4)), 10),
    "weights of tokens": ((IDS, IDS, IDS, torch.zeros(7)), 10),
    "images and means of channels": ((IMAGES, torch.zeros(3)), 4),
    "nothing known": (object(), None),
    "empty": ((), None),
}


@pytest.mark.parametrize("form", FORMS)
def test_the_inputs_are_counted(form):
    batch, count = FORMS[form]
    assert counted(batch) == count
    assert inputs_in(batch) == (count or 1)


@pytest.mark.parametrize("form", [form for form, (_, count) in FORMS.items() if count])
def test_some_inputs_are_a_batch_of_the_same_form(form):
    batch, count = FORMS[form]
    some = picked(batch, slice(1, 2))
    assert type(some) is type(batch)
    assert counted(some) == 1 or form.startswith("weights of classes and")
    assert counted(picked(batch, slice(0, count))) == count


def test_a_list_of_sequences_is_none_of_images():
    """Of equally long ones with 1, 3 or 4 rows nobody can tell, and images are what users have."""
    assert counted([TOKENS, TOKENS + 1]) == 10
    some = picked([TOKENS, TOKENS + 1], slice(2, 7))
    assert [len(field) for field in some] == [5, 5]
    assert counted([TOKENS[:3]] * 2) == 2


def test_fields_that_run_over_inputs_are_cut_and_others_stay():
    some = picked({"w": torch.ones(3), "x": X, "y": Y, "task": "A"}, slice(2, 4))
    assert some["x"].equal(X[2:4])
    assert some["y"].equal(Y[2:4])
    assert some["w"].equal(torch.ones(3))
    assert some["task"] == "A"
    (one, two), y = picked(((X, X + 1), Y), slice(9, 10))
    assert one.equal(X[9:])
    assert two.equal(X[9:] + 1)
    assert y.equal(Y[9:])
    named = picked(Pair(X, Y), slice(0, 3))
    assert isinstance(named, Pair)
    assert named.y.tolist() == [0, 1, 2]
    images, boxes = picked((list(IMAGES), BOXES), slice(2, 4))
    assert [image.shape for image in images] == [(3, 8, 8)] * 2
    assert boxes == BOXES[2:4]
    kept = picked(Batch((X, Y), torch.arange(10)), slice(0, 3))
    assert isinstance(kept, Batch)
    assert kept[0].equal(X[:3])


def test_what_comes_time_first_is_cut_along_its_second_dimension():
    steps = torch.arange(7 * 10 * 5.0).view(7, 10, 5)
    for batch in ((steps, Y % 3), [steps, Y % 3], Pair(steps, Y % 3)):
        x, y = some = picked(batch, slice(4, 6))
        assert type(some) is type(batch)
        assert x.equal(steps[:, 4:6])
        assert y.tolist() == [1, 2]
        assert counted(picked(batch, slice(4, 5))) == 1
    tokens, state, y = picked((TOKENS, steps, Y), slice(4, 6))
    assert (len(tokens), state.shape, y.tolist()) == (2, steps.shape, [4, 5]), "nothing else is"


def test_a_field_of_another_length_can_be_refused():
    with pytest.raises(ValueError, match="3"):
        picked((X, Y, torch.ones(3)), slice(0, 2), lambda length: ValueError(str(length)))
