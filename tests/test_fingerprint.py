"""Digests of code: other arguments, values or code are other digests, and equal ones the same."""

from __future__ import annotations

import functools
import linecache
import os
import subprocess
import sys
import types
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


def module(tmp_path, text):
    """The namespace of a file of one's own that is imported."""
    path = tmp_path / f"own_{len(list(tmp_path.iterdir()))}.py"
    path.write_text(text)
    found = types.ModuleType("own_module")
    found.__file__ = str(path)
    linecache.checkcache()
    exec(compile(text, str(path), "exec"), vars(found))
    return found


FILE = """
from __future__ import annotations
import math

ALPHA, _BETA, _seen = 0.1, (1, "a"), {}

def helper(x):
    return deeper(x) * ALPHA

def deeper(x):
    return x + 1

def unused(x):
    return x - 7

def loss(model, batch):
    _seen[len(_seen)] = batch
    return helper(model(batch)) + _BETA[0] + math.pi

class Base:
    def scale(self):
        return 2

class Loss(Base):
    def __init__(self, w):
        self._w, self._calls = w, 0

    def part(self, x):
        return helper(x)

    def __call__(self, model, batch):
        self._calls += 1
        return self.part(model(batch)) * self._w * self.scale()
"""


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("ALPHA, _BETA, _seen = 0.1", "ALPHA, _BETA, _seen = 0.9"),
        ('(1, "a")', '(2, "a")'),
        ("deeper(x) * ALPHA", "deeper(x) * ALPHA * 2"),
        ("return x + 1", "return x + 2"),
    ],
)
def test_what_a_function_names_in_its_module_counts(tmp_path, monkeypatch, old, new):
    one, again, other = (module(tmp_path, text) for text in (FILE, FILE, FILE.replace(old, new)))
    assert FILE.replace(old, new) != FILE
    assert digest_of(one.loss) == digest_of(again.loss) != digest_of(other.loss)
    found = []
    for own in (one, again, other):
        monkeypatch.setitem(sys.modules, "own_module", own)
        found += [digest_of(own.Loss(1)), digest_of(own.Loss(1).part)]
    assert found[:2] == found[2:4]
    changed = old[0] != "("  # which the class does not name
    assert (found[0] != found[4], found[1] != found[5]) == (changed, changed)


def test_what_it_does_not_name_and_what_it_fills_does_not(tmp_path):
    one, other = module(tmp_path, FILE), module(tmp_path, FILE.replace("return x - 7", "return x"))
    before = digest_of(one.loss)
    assert before == digest_of(other.loss)
    one._seen["more"] = 3
    assert digest_of(one.loss) == before


def test_private_settings_count_and_private_counters_do_not(tmp_path, monkeypatch):
    own = module(tmp_path, FILE)
    monkeypatch.setitem(sys.modules, "own_module", own)
    one, used, other = own.Loss(0.1), own.Loss(0.1), own.Loss(0.9)
    used(lambda x: x, 1)
    before = digest_of(one)
    assert before == digest_of(used) != digest_of(other)
    changed = module(tmp_path, FILE.replace("return 2", "return 3"))
    monkeypatch.setitem(sys.modules, "own_module", changed)
    assert digest_of(changed.Loss(0.1)) != before, "a method of a base"


def test_two_functions_of_one_line_are_two():
    one, two = (lambda m, b: m(b) + 1, lambda m, b: m(b) * 1)
    three, four = (lambda m, b: m(b) in {"a", "b"}, lambda m, b: m(b) in {"a", "c"})
    assert len({digest_of(f) for f in (one, two, three, four)}) == 4
    assert digest_of(one) == digest_of(one)


def test_without_a_source_it_is_the_byte_code():
    spaces = [{"K": k} for k in (1, 1, 2)]
    for space, text in zip(spaces, ("x + K", "x + K", "x + K"), strict=True):
        exec(f"def f(x):\n    return {text}", space)
    digests = [digest_of(space["f"]) for space in spaces]
    assert digests[0] == digests[1] != digests[2]
    exec("def f(x):\n    return x * K", spaces[1])
    assert digest_of(spaces[1]["f"]) not in (None, *digests)


def test_sets_in_the_code_have_one_order(tmp_path):
    """The order of texts in a set is another in every process."""
    text = 'exec(\'def f(x): return x in {"a", "bc", "def", "g"}\')\n'
    text += "from snnprune.fingerprint import digest_of\nprint(digest_of(f))"
    found = set()
    for seed in "123":
        env = {**os.environ, "PYTHONHASHSEED": seed}
        found.add(subprocess.run([sys.executable, "-c", text], env=env, capture_output=True, check=True).stdout)
    assert len(found) == 1
