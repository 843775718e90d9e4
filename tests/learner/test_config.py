"""Options in their groups: old names still work and say where they are now, wrong ones name what is like them."""

from __future__ import annotations

import ast
import copy
import dataclasses
import inspect
import pickle
import warnings
from dataclasses import replace

import pytest
from conftest import ROOT

import snnprune
from snnprune import PruneConfig, RecoveryOptions, SearchOptions
from snnprune.errors import ConfigError
from snnprune.learner.config import GROUPS, MOVED
from snnprune.options import about

OTHER = {  # a value that is not the default, for every option that has moved
    "search": 0.2, "probe": 1, "trust": 2.0, "thrift": 3.0, "ramp": 0.1, "alternate": 3, "hold": 4, "decay": True,
    "gradient": "through", "scores": "free", "start": "fresh", "fresh_mean": -1.0, "fresh_std": 2.0,
    "switcher_optimizer": "sgd", "switcher_lr": 0.5, "offset_lr": 0.25, "switcher_clip": 1.0, "patience": 2,
    "warmup": 0.5, "momentum": 0.25, "clip": 2.5, "temperature": 4.0,
}  # fmt: skip


def test_every_option_that_moved_is_tried_here():
    assert OTHER.keys() == MOVED.keys()
    assert all(name in {f.name for f in dataclasses.fields(GROUPS[group])} for group, name in MOVED.values())


@pytest.mark.parametrize("old", MOVED)
def test_an_old_name_means_the_option_in_its_group_and_says_so(old):
    group, name = MOVED[old]
    kind = GROUPS[group]
    with pytest.warns(
        DeprecationWarning, match=rf"{old}=.*write {group}={kind.__name__}\({name}=.*goes in 0\.3"
    ) as told:
        config = PruneConfig(lr=0.5, **{old: OTHER[old]})
    assert [w.filename for w in told] == [__file__]
    assert config == PruneConfig(lr=0.5, **{group: kind(**{name: OTHER[old]})})
    if old != "hold":  # which has no meaning where switcher and network take turns, as they do in the preset
        with pytest.warns(DeprecationWarning, match=old) as told:
            preset = PruneConfig.paper(**{old: OTHER[old]})
        assert preset == PruneConfig.paper(**{group: {name: OTHER[old]}})
        assert [w.filename for w in told] == [__file__]
    if old in GROUPS:
        assert isinstance(config.search, SearchOptions), "the name is the group's today"
        return
    with pytest.warns(DeprecationWarning, match=rf"read PruneConfig\.{group}\.{name}") as told:
        assert getattr(config, old) == OTHER[old]
    assert [w.filename for w in told] == [__file__]
    with pytest.warns(DeprecationWarning, match=old) as told:
        assert replace(PruneConfig(lr=0.5), **{old: OTHER[old]}) == config
    assert [w.filename for w in told] == [__file__]


def test_old_names_and_groups_go_together():
    with pytest.warns(DeprecationWarning, match="has moved"):
        mixed = PruneConfig(hold=4, search=SearchOptions(ramp=0.5), momentum=0.5)
    assert mixed.search == SearchOptions(hold=4, ramp=0.5)
    assert mixed.recovery == RecoveryOptions(momentum=0.5)
    with pytest.warns(DeprecationWarning, match="has moved"):  # each alone would be refused
        assert PruneConfig(alternate=2, gradient="held", search=0.1).search.share == 0.1
    with pytest.warns(DeprecationWarning, match="has moved"):
        assert replace(mixed, hold=2).search == SearchOptions(hold=2, ramp=0.5)


def test_a_share_of_the_search_in_a_change_of_options_is_refused_because_it_would_lose_the_others():
    config = PruneConfig(search=SearchOptions(hold=4))
    with (
        pytest.warns(DeprecationWarning, match="has moved"),
        pytest.raises(ConfigError, match=r"Write search=dataclasses\.replace\(config\.search, share=0\.2\)"),
    ):
        replace(config, search=0.2)
    changed = replace(config, search=replace(config.search, share=0.2))
    assert (changed.search.hold, changed.search.share) == (4, 0.2)


@pytest.mark.parametrize(
    ("kind", "name", "said"),
    [
        (
            PruneConfig,
            "hodl",
            r"'hodl' is no option of PruneConfig\. Did you mean search=SearchOptions\(hold=\.\.\.\)\?",
        ),
        (PruneConfig, "epoch", r"Did you mean epochs=\.\.\."),
        (PruneConfig, "share", r"Did you mean search=SearchOptions\(share=\.\.\.\)\?"),
        (PruneConfig, "momentun", r"recovery=RecoveryOptions\(momentum=\.\.\.\)"),
        (PruneConfig, "xyzzy", r"help\(PruneConfig\) lists them"),
        (SearchOptions, "hodl", r"'hodl' is no option of SearchOptions\. Did you mean hold=\.\.\.\?"),
        (RecoveryOptions, "warm_up", r"Did you mean warmup=\.\.\."),
    ],
)
def test_a_name_that_is_no_option_names_those_that_are_like_it(kind, name, said):
    with pytest.raises(ConfigError, match=said):
        kind(**{name: 1})
    if kind is PruneConfig:
        with pytest.raises(ConfigError, match=said):
            replace(PruneConfig(), **{name: 1})
        with pytest.raises(ConfigError, match=said):
            PruneConfig.paper(**{name: 1})
        with pytest.raises(AttributeError, match=name):
            getattr(PruneConfig(), name)


def test_the_form_of_a_report_can_be_read_back():
    config = PruneConfig.paper(keep="a.*", search={"hold": 1, "patience": 3}, recovery=RecoveryOptions(clip=1.0))
    plain = config.to_dict()
    assert (plain["search"]["patience"], plain["recovery"]["clip"], plain["keep"]) == (3, 1.0, ["a.*"])
    assert PruneConfig(**plain) == config
    assert pickle.loads(pickle.dumps(config)) == copy.deepcopy(config) == config
    old = {**plain, **plain["search"], **plain["recovery"], "search": plain["search"]["share"]}
    del old["recovery"], old["share"], old["least"]  # as a report from before there were groups
    with pytest.warns(DeprecationWarning, match="has moved"):
        assert PruneConfig(**old) == config


def test_an_object_that_is_not_filled_in_yet_has_no_options():
    """As while it is unpickled: a look at a group must not ask for the group again."""
    empty = object.__new__(PruneConfig)
    with pytest.raises(AttributeError, match="search"):
        _ = empty.search


def test_groups_of_the_preset_are_changed_by_mappings_and_replaced_by_objects():
    assert PruneConfig.paper().search.start == "fresh"
    assert PruneConfig.paper(search={"patience": 3}).search.start == "fresh"
    assert PruneConfig.paper(search=SearchOptions(patience=3)).search == SearchOptions(patience=3)


@pytest.mark.parametrize("kind", [PruneConfig, *GROUPS.values()])
def test_the_docstring_is_made_of_the_options(kind):
    text = inspect.getdoc(kind)
    for one in about(kind).values():
        assert one.means[0].islower() or one.means[0] == "`", f"{one.name} is put into a sentence"
        assert one.means.endswith("."), one.name
        assert f"    {one.name}: {one.means.rstrip('.')}" in text
        assert one.kind in text
    assert text.index("Attributes:") < text.index("Raises:") < text.index("Example:")


def test_nothing_of_ours_uses_an_old_name():
    """Neither the package, nor what shows how to use it. (In tests, pytest's own filter sees to it.)"""
    places = [
        p for folder in ("snnprune", "benchmarks", "examples", "models") for p in (ROOT / folder).rglob("*.py")
    ]
    assert len(places) > 100
    for path in places:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and ast.unparse(node.value).split(".")[-1] == "config":
                assert node.attr not in MOVED or node.attr in GROUPS, f"{path}:{node.lineno}: {ast.unparse(node)}"
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(
                ("PruneConfig", "PruneConfig.paper")
            ):
                old = [k.arg for k in node.keywords if k.arg in MOVED and k.arg not in GROUPS]
                assert not old, f"{path}:{node.lineno}: {old}"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        snnprune.PruneConfig.paper()
