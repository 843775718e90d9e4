"""What is said of rows: quantiles, intervals, pairs of seeds, and sentences that claim no more than they show."""

from __future__ import annotations

import math

import pytest

from snnprune.measures import ACCURACY, LOSS
from snnprune.rivals.book import Contest
from snnprune.rivals.standing import interval, quantile, standings, summary, table, verdict


def row(method, seed, value, *, rival=True, failed=None, note="", **more):
    filled = {"macs": 0.4, "params": 0.3, "seconds": 2.0} if failed is None else dict.fromkeys(
        ("macs", "params", "seconds")
    )  # fmt: skip
    return {
        "method": method, "words": "", "rival": rival, "seed": seed, "value": value, **filled, "steps": {},
        "exact": None, "note": note, "failed": failed, "times": None, "device": "cpu", "versions": {}, **more,
    }  # fmt: skip


def rows(ours, **rivals):
    found = [row("ours", seed, value, rival=False) for seed, value in enumerate(ours)]
    return found + [row(name, s, v) for name, values in rivals.items() for s, v in enumerate(values)]


@pytest.mark.parametrize(
    ("freedom", "wanted"),
    [(1, 12.706), (2, 4.303), (4, 2.776), (9, 2.262), (10, 2.228), (14, 2.145), (30, 2.042), (1000, 1.962)],
)
def test_quantiles_are_those_of_the_tables(freedom, wanted):
    assert quantile(freedom) == pytest.approx(wanted, abs=6e-4)


def test_an_interval_by_hand():
    assert interval([3.0]) == (3.0, math.inf)
    mean, half = interval([1.0, 2.0, 4.0])
    assert mean == pytest.approx(7 / 3)
    assert half == pytest.approx(4.3027 * math.sqrt(7 / 3) / math.sqrt(3), rel=1e-4)


def test_the_best_is_first_whichever_way_is_better():
    some = rows([0.5, 0.6], low=[0.1, 0.2], high=[0.9, 0.8])
    assert [s.name for s in standings(some, ACCURACY)] == ["high", "ours", "low"]
    assert [s.name for s in standings(some, LOSS)] == ["low", "ours", "high"]
    failed = [*some, row("dead", 0, None, failed="it cannot")]
    assert standings(failed, ACCURACY)[-1].failed == "it cannot"


def test_ahead_behind_and_level():
    found = verdict(
        standings(rows([0.90, 0.92, 0.91], l2=[0.80, 0.83, 0.80], l1=[0.1, 0.2, 0.3]), ACCURACY), ACCURACY
    )
    assert found.startswith("Ours is ahead of the best rival, l2, by 10.00 points")
    assert "3 seeds" in found
    found = verdict(standings(rows([0.80, 0.83, 0.80], l2=[0.90, 0.92, 0.91]), ACCURACY), ACCURACY)
    assert found.startswith("Ours is behind the best rival, l2, by 10.00 points")
    found = verdict(standings(rows([0.80, 0.93, 0.80], l2=[0.90, 0.82, 0.85]), ACCURACY), ACCURACY)
    assert found.startswith("Level: ours less the best rival, l2, is -1.33 points")
    assert "interval holds 0" in found
    found = verdict(standings(rows([0.2, 0.21, 0.2], l2=[0.9, 0.92, 0.91]), LOSS), LOSS)
    assert found.startswith("Ours is ahead of the best rival, l2, by 0.7067 (")


def test_one_seed_has_no_interval():
    found = standings(rows([0.9], l2=[0.8]), ACCURACY)
    assert verdict(found, ACCURACY) == (
        "One seed: ours less the best rival, l2, is +10.00 points, and says nothing of other seeds."
    )
    cells = {line[0]: line for line in table(found, ACCURACY)}
    assert cells["ours"][1:3] == ("90.00% (1)", "")
    assert cells["l2"][1:3] == ("80.00% (1)", "+10.00")


def test_pairs_are_formed_by_seed():
    found = [row("ours", 0, 0.9, rival=False), row("ours", 2, 0.5, rival=False)]
    found += [row("l2", 2, 0.4), row("l2", 0, 0.85), row("l2", 1, 0.99)]
    cells = {line[0]: line for line in table(standings(found, ACCURACY), ACCURACY)}
    gap = interval([0.05, 0.1])
    assert cells["l2"][2] == f"+7.50 ± {100 * gap[1]:.2f}"
    assert cells["l2"][1].endswith("(3)")


def test_free_scales_and_norms_are_no_rivals():
    found = [*rows([0.9, 0.9]), row("free scales", 0, 0.95, rival=False), row("free scales", 1, 0.95, rival=False)]
    assert verdict(standings(found, ACCURACY), ACCURACY) == "There is no rival to hold ours against."
    found = standings([row("l2", 0, 0.9)], ACCURACY)
    assert verdict(found, ACCURACY) == "Ours takes no part, so nothing can be said of it."
    assert table(found, ACCURACY)[0][2] == ""


def test_nobody_to_hold_ours_against():
    lost = row("ours", 0, None, rival=False, failed="it collapsed")
    assert verdict(standings([lost, row("l2", 0, 0.9)], ACCURACY), ACCURACY).startswith("Ours has no result")
    found = [*rows([0.9]), row("l2", 0, None, failed="it cannot"), row("norm", 0, 0.8, rival=False)]
    assert verdict(standings(found, ACCURACY), ACCURACY) == "No rival has a result to hold ours against."
    apart = [*rows([0.9]), row("l2", 1, 0.8)]
    assert "share no seed" in verdict(standings(apart, ACCURACY), ACCURACY)


def test_the_best_rival_is_the_best_on_the_same_seeds():
    found = rows([0.95, 0.80, 0.81], l2=[0.94, 0.82, 0.83], l1=[0.90, 0.80, 0.80], lamp=[0.949])  # an easy seed
    said = verdict(standings(found, ACCURACY), ACCURACY)
    assert said.startswith("Level: ours less the best rival, l2, is -1.00 points")
    assert said.endswith("3 seeds). Left out, for they have fewer of these seeds: lamp.")
    more = [row("l2", 3, 0.1), row("l1", 3, 0.99), row("l1", 4, 0.99)]  # seeds that ours has not run
    assert verdict(standings([*found, *more], ACCURACY), ACCURACY) == said
    found = [*rows([0.95, 0.80]), row("l2", 0, 0.96), row("l1", 1, 0.90)]
    said = verdict(standings(found, ACCURACY), ACCURACY)
    assert said == "One seed: ours less the best rival, l1, is -10.00 points, and says nothing of other seeds."
    loss = rows([0.2, 0.4, 0.5], l2=[0.25, 0.41, 0.53], l1=[0.21])
    assert "the best rival, l2," in verdict(standings(loss, LOSS), LOSS)


@pytest.mark.parametrize(
    ("ours", "rival", "said"),
    [
        (
            [1.354, 1.3540016],
            [1.35, 1.35],
            "count as one",
        ),  # one order of the data: only the switcher's start moves
        ([1.354, 1.354], [1.35, 1.35], "same figures, so they count as one"),
        ([1.354, 1.361], [1.35, 1.35], "2 seeds gave the same figures of l2, so they do not show"),
        ([1.354, 1.354, 1.354], [1.35, 1.36, 1.37], "3 seeds gave the same figures of ours"),
        ([0.9, 0.8], [1.0, 0.9], "2 seeds gave the same differences, so they do not show how far others"),
    ],
)
def test_no_interval_is_made_of_figures_that_do_not_move(ours, rival, said):
    found = verdict(standings(rows(ours, l2=rival), LOSS), LOSS)
    assert said in found
    assert "interval" not in found
    assert "ahead" not in found


def test_nor_does_the_table_or_the_book_have_one():
    found = standings(rows([1.5, 1.5, 1.5], l2=[2.0, 2.1, 2.2], l1=[2.5, 2.5, 2.5]), LOSS)
    cells = {name: (mean, less) for name, mean, less, *_ in table(found, LOSS)}
    assert cells["ours"] == ("1.5 (3)", "")
    assert cells["l1"] == ("2.5 (3)", "+1")
    assert "±" in cells["l2"][0]
    assert "±" in cells["l2"][1]
    told = {one["method"]: one for one in (summary(each, found, LOSS) for each in found)}
    assert (told["ours"]["half"], told["l1"]["half"], told["l1"]["ours_less_half"]) == (None, None, None)
    assert told["l1"]["ours_less"] == 1.0
    assert told["l2"]["half"] == pytest.approx(4.3027 * 0.1 / 3**0.5)


def test_the_least_exact_cut_is_the_one_that_is_told():
    found = standings([row("l2", s, 1.0, note=f"by {e}", exact=e) for s, e in enumerate((1e-5, 0.9, 0.2))], LOSS)
    assert found[0].note == "by 0.9"


def times(share, **more):
    known = {"latency": share, "dense_ms": 4.0, "compact_ms": None if share is None else 4 * share, "spread": 0.01}
    served = {
        "engine": "cpu", "version": "onnxruntime 1", "device": "Some CPU", "batch": 1, "precision": "fp32",
        "threads": 1,
    }  # fmt: skip
    return {**known, **served, **more}


def test_how_many_times_as_fast():
    made = [
        row("ours", 0, 0.9, rival=False, times=times(0.4)), row("ours", 1, 0.9, rival=False, times=times(0.6)),
        row("ours", 2, 0.9, rival=False, times=times(None, refused="the machine is busy")),
        row("l2", 0, 0.8, times=times(0.8, dense_ms=None, refused="milliseconds alone")),
        row("lamp", 0, 0.7, times=times(None, refused="it varies")),
        row("fpgm", 0, 0.6), row("l1", 0, None, failed="no such layer"),
    ]  # fmt: skip
    found = Contest(rows=made)
    at = found.heads.index("as fast")
    assert found.heads[at - 1 : at + 2] == ("params", "as fast", "s")
    assert {cells[0]: cells[at] for cells in found.table()} == {
        "ours": "2.00x", "l2": "1.25x", "lamp": "?", "fpgm": "", "l1": "",
    }  # fmt: skip
    assert all(len(cells) == len(found.heads) for cells in found.table())
    text = str(found)
    assert "ours: a time is not to be believed (the machine is busy)" in text
    assert "milliseconds alone" not in text, "of which nothing is shown"
    assert "lamp: a time is not to be believed (it varies)" in text
    served = "timed with cpu (onnxruntime 1), batch 1, fp32, 1 CPU thread, Some CPU"
    assert served in text
    assert "not comparable" not in text
    other = Contest(rows=[*made, row("random", 0, 0.5, times=times(0.5, device="Another CPU"))])
    assert "runs were timed under different conditions, so no speed is told" in str(other)
    assert "Another CPU" in str(other)
    assert [cells[at] for cells in other.table() if cells[0] in ("ours", "l2", "random")] == ["?"] * 3
    plain = Contest(rows=[row("ours", 0, 0.9, rival=False), row("l2", 0, 0.8)])
    assert "as fast" not in plain.heads
    assert "timed with" not in str(plain)


def test_failures_and_notes_are_told_in_words():
    found = Contest(
        rows=[*rows([0.9, 0.8], l2=[0.7, 0.8]), row("fpgm", 0, None, failed="no such layer"),
              row("lamp", 0, 0.5, note="its removal is not exact")]
    )  # fmt: skip
    text = str(found)
    assert "fpgm failed: no such layer" in text
    assert "lamp: its removal is not exact" in text
    assert text.splitlines()[0].split() == ["method", "accuracy", "ours", "less", "it", "MACs", "params", "s"]
    assert ("fpgm", "failed", "", "", "", "") in found.table()
