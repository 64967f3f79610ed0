"""Physics scores: right for what obeys, wrong for what was made not to."""

from __future__ import annotations

import numpy as np
import pytest

from wm_jax.evaluation import physics
from wm_jax.evaluation.physics import Course

TIME = np.arange(40.0)


def course(*paths, radius=5.0, mass=None, restitution=1.0):
    place = np.stack(paths, 1)[None]
    n = place.shape[2]
    whole = np.ones((1, n))
    mass = whole if mass is None else np.array(mass)[None]
    return Course(place, radius * whole, radius * whole, mass, restitution * whole)


def bounce(ratio=1.0, wall=64.0, radius=5.0, at=18.5, speed=1.5, deep=0.0):
    """Along x, off the right wall; ``deep`` too late, in px."""
    edge = wall - radius + deep
    x = np.where(at > TIME, edge + speed * (TIME - at), edge - ratio * speed * (TIME - at))
    return np.stack([x, 30 + 0.3 * TIME], -1)


def mean(pair):
    value, where = pair
    return float(value[where].mean()) if where.any() else None


def test_a_bounce_is_compared_with_the_restitution():
    assert mean(physics._restitution(course(bounce()))) == pytest.approx(0, abs=1e-9)
    assert mean(physics._restitution(course(bounce(0.8)))) == pytest.approx(0.2)
    assert mean(physics._restitution(course(bounce(0.8), restitution=0.8))) < 1e-9
    # What turns in the middle of nowhere did not bounce off a wall.
    assert mean(physics._restitution(course(bounce(wall=40.0)))) is None


def test_how_deep_an_object_was_in_a_wall():
    assert mean(physics._penetration(course(bounce(at=18)))) == pytest.approx(0)
    assert mean(physics._penetration(course(bounce(at=18, deep=3.0)))) == pytest.approx(3.0)
    gone = course(bounce() * np.nan)
    assert mean(physics._penetration(gone)) is None


def meeting(after_first, after_second, at=18.5):
    """Two of 5 px on a line, one at rest; the speeds of both afterwards."""
    before, after = np.minimum(TIME, at), np.maximum(TIME - at, 0)
    first = 30 - 10 + 1.2 * (before - at) + after_first * after
    second = 30 + after_second * after
    level = 30 + 0 * TIME
    return np.stack([first, level], -1), np.stack([second, level], -1)


def test_momentum_is_what_both_bring():
    assert mean(physics._momentum(course(*meeting(0.0, 1.2)))) == pytest.approx(0, abs=1e-9)
    # A heavy one meets a light one: 2 m v = 2 m v/3 + m 4v/3.
    kept = course(*meeting(0.4, 1.6), mass=[2.0, 1.0])
    assert mean(physics._momentum(kept)) == pytest.approx(0, abs=1e-9)
    assert mean(physics._momentum(course(*meeting(0.0, 0.6)))) == pytest.approx(0.5)
    assert mean(physics._momentum(course(*meeting(1.2, 0.0)))) is None  # they passed


def test_energy_of_what_slows_down():
    straight = np.stack([10 + TIME, 30 + 0 * TIME], -1)
    slow = np.stack([10 + 0.5 * TIME, 30 + 0 * TIME], -1)
    true, unit = course(straight), np.zeros(1, int)
    for own, ratio in ((true, 1.0), (course(slow), 0.25)):
        sums = physics._energy(own, true, np.ones(1, bool), unit, 1)
        known = sums.weight[0] > 0
        assert known.sum() == len(TIME) - physics.LAG
        assert np.allclose(sums.total[0, known] / sums.weight[0, known], ratio)
    pulled = physics._energy(true, true, np.zeros(1, bool), unit, 1)
    assert not pulled.weight.any()
