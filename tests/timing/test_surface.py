"""Tables from times at a few widths: stairs, and what lies between."""

from __future__ import annotations

import numpy as np
import pytest

from snnprune.timing.grid import BESIDE, points
from snnprune.timing.surface import PERIOD, PLAIN, effective, rises, rising, stair, surface


def timed(full, units, time):
    return {at: float(time(*at)) for at in points(full, units)}


def block(size):
    return lambda count: size * -(-count // size)


@pytest.mark.parametrize("size", [8, 16, 32])
def test_stairs_are_found_exactly(size):
    full, units = (256, 192), (1, 1)
    step = block(size)
    times = timed(full, units, lambda a, b: 1e-3 * step(a) * step(b))
    for side in (0, 1):
        found = rises(full, units, times, side)
        assert found is not None
        assert found == pytest.approx([0, *(step(count) for count in range(1, PERIOD + 1))])
    made = surface(full, units, times, [stair([rises(full, units, times, side)]) for side in (0, 1)])
    for a, b in ((256, 192), (255, 97), (33, 1), (1, 192), (129, 160)):
        assert made((a, b)) == pytest.approx(1e-3 * step(a) * step(b), rel=1e-9), (a, b)


def test_an_engine_without_stairs_has_none():
    times = timed((256,), (1,), lambda a: 2.0 + a)
    found = rises((256,), (1,), times, 0)
    assert found is not None
    assert found == pytest.approx(PLAIN)


def test_stairs_of_4_are_kept_below_16():
    found = rises((256,), (1,), timed((256,), (1,), block(4)), 0)
    assert found is not None
    assert found[1:17].tolist() == [block(4)(count) for count in range(1, 17)]
    assert found[16:] == pytest.approx(PLAIN[16:])


def test_noise_of_a_tenth_makes_no_stairs():
    rng = np.random.default_rng(0)
    seen = []
    for _ in range(9):
        times = timed((256,), (1,), lambda a: (100 + a) * rng.uniform(0.98, 1.02))
        seen.append(rises((256,), (1,), times, 0))
    found = stair([one for one in seen if one is not None])
    assert np.abs(found - PLAIN).max() < 6
    assert (np.diff(found) >= 0).all()


def test_what_hardly_rises_has_no_stair():
    assert rises((256,), (1,), timed((256,), (1,), lambda a: 1.0), 0) is None
    assert rises((20,), (1,), timed((20,), (1,), float), 0) is None
    assert stair([]) is PLAIN


def test_a_bilinear_table_is_exact():
    full, units = (48, 60), (1, 1)
    made = surface(full, units, timed(full, units, lambda a, b: 0.1 + 2 * a + 3 * b + 0.5 * a * b), [PLAIN, PLAIN])
    for a in range(0, 49):
        for b in range(0, 61, 7):
            assert made((a, b)) == pytest.approx(0.1 + 2 * a + 3 * b + 0.5 * a * b, rel=1e-6), (a, b)


@pytest.mark.parametrize("full", [(512,), (2048,), (4096,), (1000,)])
def test_a_wide_side_is_priced_at_few_widths_and_never_too_low(full):
    made = surface(full, (1,), timed(full, (1,), lambda a: 1e-3 * a), [PLAIN])
    apart = 1 << max(0, (full[0] // 96).bit_length())
    assert len(made.table) <= 98
    for count in range(1, full[0] + 1, 7):
        assert 1e-3 * count - 1e-9 <= made((count,)) <= 1e-3 * (count + apart) + 1e-9
    assert made(full) == pytest.approx(1e-3 * full[0])


@pytest.mark.parametrize("full", [(1,), (2,), (3,), (5, 1), (3, 4)])
def test_tiny_sides(full):
    units = (1,) * len(full)
    for own in (PLAIN, np.array([0.0] + [32.0] * 32), effective(np.arange(33), PLAIN)):
        made = surface(full, units, timed(full, units, lambda *at: 1.0 + sum(at)), [own] * len(full))
        assert np.isfinite(made.table).all()
        assert (made.table >= 0).all()
        assert made(full) == pytest.approx(1.0 + sum(full))


def test_units_are_held():
    full, units = (96, 64), (12, 1)
    assert all(a % 12 == 0 for a, _ in points(full, units))
    made = surface(full, units, timed(full, units, lambda a, b: float(a * b)), [PLAIN, PLAIN])
    assert made((96, 64)) == pytest.approx(96 * 64)
    assert made((48, 32)) == pytest.approx(48 * 32, rel=1e-6)


def test_the_table_rises_and_stays_between():
    table = np.array([[1.0, 5.0, 3.0], [2.0, 1.0, 9.0]])
    found = rising(table)
    assert (np.diff(found, axis=0) >= 0).all()
    assert (np.diff(found, axis=1) >= 0).all()
    assert found[0, 0] == 1.0
    assert found[1, 2] == 9.0
    assert rising(np.arange(6.0).reshape(2, 3)).tolist() == np.arange(6.0).reshape(2, 3).tolist()


def test_a_constant():
    made = surface((), (), {(): 3.5}, [])
    assert made(()) == 3.5
    assert BESIDE[-1] == PERIOD
