"""Digests of code: other arguments, values or code are other digests, and equal ones the same."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
import torch_pruning as tp
from torch import nn

from snnprune.criteria import fingerprint_of, label_of, words_of
from snnprune.fingerprint import code_of, digest_of


def scores(model, groups, sign=1, table=None):
    return {group.id: sign * torch.arange(group.size) for group in groups}


def made(sign):
    def inner(model, groups):
        return scores(model, groups, sign)

    return inner


def with_default(sign):
    def inner(model, groups, by=sign):
        return scores(model, groups, by)

    return inner


class Scorer:
    def __init__(self, sign):
        self.sign, self._cache = sign, object()

    def __call__(self, model, groups):
        return scores(model, groups, self.sign)

    def method(self, model, groups):
        return scores(model, groups, self.sign)


@dataclass
class Options:
    sign: int


class Slots:
    __slots__ = ()

    def __call__(self, model, groups):
        return {}


BN = [nn.modules.batchnorm._BatchNorm]
Magnitude = tp.importance.GroupMagnitudeImportance
PAIRS = {
    "a partial": lambda v: functools.partial(scores, sign=v),
    "a partial of a partial": lambda v: functools.partial(functools.partial(scores, table=1), sign=v),
    "a tensor in a partial": lambda v: functools.partial(scores, table=torch.full((3,), float(v))),
    "an array in a partial": lambda v: functools.partial(scores, table=np.full(3, v)),
    "a dict in a partial": lambda v: functools.partial(scores, table={"a": [1, v]}),
    "a number of NumPy's": lambda v: functools.partial(scores, sign=np.int64(v)),
    "a dataclass": lambda v: functools.partial(scores, table=Options(v)),
    "a path and a type": lambda v: functools.partial(scores, table=[Path(str(v)), torch.float32]),
    "an outer variable": made,
    "a default": with_default,
    "an attribute": Scorer,
    "a method": lambda v: Scorer(v).method,
    "an importance": lambda v: Magnitude(p=v + 2),
    "its layers": lambda v: Magnitude(target_types=BN if v == 1 else [nn.Linear]),
    "its normaliser": lambda v: Magnitude(normalizer=made(v)),
}


@pytest.mark.parametrize("kind", PAIRS)
def test_what_is_bound_counts(kind):
    make = PAIRS[kind]
    assert fingerprint_of(make(1)) == fingerprint_of(make(1))
    assert fingerprint_of(make(1)) != fingerprint_of(make(-1))


def test_functions_that_hold_each_other_are_no_trap():
    """Each of these sees all of them."""
    found = []
    for _ in range(9):
        found.append(lambda model, groups: found)
    ties = [functools.partial(scores, table=found) for _ in range(2)]
    assert fingerprint_of(ties[0]) == fingerprint_of(ties[1])


def test_names_say_it_all_and_code_that_cannot_be_read_is_none():
    assert fingerprint_of("lamp") is None
    assert fingerprint_of(Slots()) is not None
    assert words_of(Slots()) == "Slots()"
    assert code_of(len) is None
    assert code_of(scores) != code_of(made)


def test_code_alone_says_nothing_of_an_objects_values():
    assert code_of(Scorer(1)) == code_of(Scorer(2))
    assert digest_of(Scorer(1)) != digest_of(Scorer(2))


def wrapped(loss):
    return lambda model, batch: loss(model(batch[0]), batch[1])


@pytest.mark.parametrize(
    "other",
    [
        nn.CrossEntropyLoss(label_smoothing=0.1),
        nn.CrossEntropyLoss(reduction="sum"),
        nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0])),
        nn.NLLLoss(),
    ],
)
def test_settings_of_a_loss_count_also_inside_a_function(other):
    plain, again = nn.CrossEntropyLoss(), nn.CrossEntropyLoss().eval()
    assert digest_of(plain) == digest_of(again) != digest_of(other)
    assert digest_of(wrapped(plain)) == digest_of(wrapped(again)) != digest_of(wrapped(other))
    assert digest_of(functools.partial(scores, table=plain)) != digest_of(functools.partial(scores, table=other))


def test_weights_that_learn_are_no_settings():
    """A teacher inside a loss, or a loss with parameters, changes while it works."""
    one, two = nn.Linear(2, 2), nn.Linear(2, 2)
    assert digest_of(wrapped(one)) == digest_of(wrapped(two))
    assert digest_of(one) == digest_of(two) != digest_of(nn.Linear(2, 3))


def test_words_and_labels_name_what_is_bound():
    assert words_of(functools.partial(scores, sign=-1)).endswith("scores(sign=-1)")
    assert label_of(functools.partial(scores, sign=-1)) == "scores"
