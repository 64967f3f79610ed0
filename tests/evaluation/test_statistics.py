"""Bootstrap intervals against closed forms and by their coverage."""

import numpy as np
import pytest

from wm_jax.evaluation import statistics
from wm_jax.evaluation.statistics import Sums


def test_a_mean_is_a_ratio_of_sums_not_a_mean_of_ratios():
    values = np.array([[1.0], [3.0], [10.0]])
    sums = statistics.sums_by_unit(values, np.array([0, 0, 1]))
    assert statistics.estimate(sums).value[0] == pytest.approx(14 / 3)
    assert statistics.estimate(sums).n[0] == 2


def test_what_does_not_qualify_weighs_nothing():
    values = np.array([[[1.0, 99.0]], [[np.nan, 3.0]]])
    where = np.array([[[True, False]], [[False, True]]])
    sums = statistics.sums_by_unit(values, np.array([0, 1]), where)
    assert statistics.estimate(sums).value[0] == pytest.approx(2.0)


def test_a_step_where_nothing_qualifies_is_nan():
    sums = Sums(np.array([[1.0, 0.0], [2.0, 0.0]]), np.array([[1.0, 0.0], [1.0, 0.0]]))
    result = statistics.estimate(sums)
    assert np.isnan([result.value[1], result.low[1], result.high[1]]).all()
    assert result.n[1] == 0


def test_the_interval_of_a_normal_mean_has_the_normal_width():
    rng = np.random.default_rng(1)
    values = rng.normal(5.0, 2.0, size=(400, 1))
    result = statistics.estimate(Sums(values, np.ones_like(values)))
    half_width = 1.96 * values.std() / np.sqrt(400)
    assert result.high[0] - result.low[0] == pytest.approx(2 * half_width, rel=0.08)


def test_the_interval_covers_the_true_mean_as_often_as_it_says():
    rng = np.random.default_rng(2)
    inside = 0
    for _ in range(200):
        values = rng.exponential(1.0, size=(60, 1))
        result = statistics.estimate(Sums(values, np.ones_like(values)))
        inside += result.low[0] <= 1.0 <= result.high[0]
    assert 0.88 <= inside / 200 <= 0.99


def test_pairing_removes_what_both_share():
    rng = np.random.default_rng(3)
    scene = rng.normal(0, 10, size=(100, 1))
    first, second = scene + 1 + rng.normal(0, 0.1, (100, 1)), scene
    ones = np.ones_like(scene)
    paired = statistics.difference(Sums(first, ones), Sums(second, ones))
    assert paired.value[0] == pytest.approx(1.0, abs=0.05)
    assert paired.high[0] - paired.low[0] < 0.1
    alone = statistics.estimate(Sums(first, ones))
    assert alone.high[0] - alone.low[0] > 2


def test_a_difference_of_other_units_is_refused():
    ones = np.ones((3, 1))
    with pytest.raises(ValueError, match="same units"):
        statistics.difference(Sums(ones, ones), Sums(np.ones((4, 1)), np.ones((4, 1))))
