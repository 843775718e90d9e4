"""A profile of an engine whose time is a closed form: it must be found again."""

from __future__ import annotations

import numpy as np
import pytest

from snnprune.errors import TimingError
from snnprune.timing.cuts import cut, skeleton_of
from snnprune.timing.profile import fit
from snnprune.timing.skeleton import content
from timing.conftest import answers_by, engine, steps_of

KEY = {"engine": "cpu", "batch": 2, "precision": "fp32", "threads": 1}


def exact(made, kept, ms):
    small = cut(made.model, made.groups, kept) if kept else made.model
    return ms(content(skeleton_of(small, made.example, batch=2, fp16=False)))


@pytest.mark.parametrize("which", ["tiny", "residual"])
def test_a_bilinear_engine_is_found_again(which, request):
    made = request.getfixturevalue(which)
    ms = engine(start=0.0)
    found = fit(made.questions, answers_by(made.questions, ms), KEY)
    assert found.dense_ms == pytest.approx(exact(made, {}, ms), rel=1e-12)
    assert found.error < 1e-3, found.checks
    rng = np.random.default_rng(3)
    # on widths that the tables tell apart
    sizes = {name: g.size for name, g in made.cost.groups.items() if g.size >= 32}
    kept = {name: np.arange(n) < max(1, 32 * round(rng.uniform(0.4, 1) * n / 32)) for name, n in sizes.items()}
    predicted = sum(part.cost(kept) for part in found.parts)
    assert predicted == pytest.approx(exact(made, kept, ms), rel=2e-3)
    for kind in found.steps.values():
        for steps in kind.values():
            assert steps == pytest.approx((1, 8, 16, 24, 32), abs=0.2)


def test_stairs_are_found_and_what_is_not_aligned_costs_their_end(tiny):
    found = fit(tiny.questions, answers_by(tiny.questions, engine(steps_of(16), start=0.0)), KEY)
    assert found.steps["matmul"]["out"] == [16, 16, 16, 32, 32]
    widest = max(found.parts, key=lambda part: part.dense)
    assert (widest.inputs.read, widest.outputs.read) == (64, 96)
    times = widest.table[widest.rows][:, widest.columns]
    for count in range(1, 97):
        aligned = 16 * -(-count // 16)
        assert times[64, count] == times[64, aligned], count
        assert times[64, count] == pytest.approx(times[64, 96] * aligned / 96, rel=1e-2)
    assert (np.diff(times, axis=0) >= 0).all()
    assert (np.diff(times, axis=1) >= 0).all()


def test_what_every_call_takes_is_no_part_of_a_piece(tiny):
    """A constant of every graph is told from the graph that does nothing, and shared out over the pieces."""
    found = fit(tiny.questions, answers_by(tiny.questions, engine(start=0.5)), KEY)
    assert found.predicted_ms == pytest.approx(found.dense_ms, rel=1e-2)
    assert found.error < 0.02


def test_noise_leaves_tables_that_fall_nowhere(tiny):
    rng = np.random.default_rng(0)
    noisy = {n: ms * rng.uniform(0.8, 1.2) for n, ms in answers_by(tiny.questions, engine()).items()}
    for part in fit(tiny.questions, noisy, KEY).parts:
        assert (np.diff(part.table, axis=0) >= 0).all()
        assert (np.diff(part.table, axis=1) >= 0).all()
        assert (part.table >= 0).all()


def test_the_sum_of_the_parts_is_the_prediction_of_the_checks(tiny):
    answers = answers_by(tiny.questions, engine())
    answers[tiny.questions.names[0]] *= 0.6  # layers save more than some of them take
    found = fit(tiny.questions, answers, KEY)
    assert found.checks[0].predicted_ms == pytest.approx(found.predicted_ms)
    assert found.checks[0].kept == 1.0


def test_answers_that_do_not_fit(tiny):
    questions = tiny.questions
    good = answers_by(questions, engine())
    with pytest.raises(TimingError, match="has not timed the network"):
        fit(questions, {}, KEY)
    with pytest.raises(TimingError, match="cannot run the network"):
        fit(questions, {**good, questions.names[0]: None}, KEY)
    with pytest.raises(TimingError, match="takes no time"):
        fit(questions, {**good, questions.names[1]: 0.0}, KEY)
    piece = next(iter(questions.points.values()))
    with pytest.raises(TimingError, match="of another network"):
        fit(questions, {n: ms for n, ms in good.items() if n != next(iter(piece.values()))}, KEY)
    alone = {name: None for family in questions.points.values() for name in family.values()}
    with pytest.raises(TimingError, match="most layers"):
        fit(questions, {**good, **alone}, KEY)


def test_pieces_that_cannot_run_alone_are_told(tiny, caplog):
    questions = tiny.questions
    good = answers_by(questions, engine())
    family = list(questions.points.values())[-1]
    found = fit(questions, {**good, **dict.fromkeys(family.values())}, KEY)
    assert "cannot run 1 of 3 layers" in caplog.text
    assert found.predicted_ms == pytest.approx(found.dense_ms, rel=0.1)
    one = next(iter(family.values()))
    some = fit(questions, {**good, one: None}, KEY)  # some widths alone: as slow as the slowest there
    assert some.predicted_ms == pytest.approx(found.dense_ms, rel=0.1)
