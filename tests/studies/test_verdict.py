"""Verdicts by closed forms: effects whose value, interval and verdict are known beforehand."""

import numpy as np
import pytest

from wm_jax.evaluation.statistics import Sums
from wm_jax.studies.verdict import (
    CONFIRMED,
    NOT_CONFIRMED,
    UNDECIDED,
    Effect,
    decide,
    gain,
    mean,
)


def sums(values, weights=None):
    """(episodes, 1) whose ratio of an episode alone is its value."""
    values = np.asarray(values, np.float64)[:, None]
    weights = np.ones_like(values) if weights is None else np.asarray(weights, float)[:, None]
    return Sums(values * weights, weights)


def constant(value, episodes=10):
    return sums(np.full(episodes, value))


def test_a_constant_gain_has_no_width_and_the_sign_of_the_expectation():
    arm, against = [constant(1.0)] * 3, [constant(3.0)] * 3
    assert gain(arm, against, "lower")[:3] == pytest.approx((2.0, 2.0, 2.0))
    assert gain(arm, against, "higher")[:3] == pytest.approx((-2.0, -2.0, -2.0))
    assert gain(arm, against, "lower").episodes == 10


def test_what_both_arms_share_cancels_because_episodes_are_paired():
    hard = np.random.default_rng(0).normal(10, 5, 40)
    effect = gain([sums(hard)] * 3, [sums(hard + 1)] * 3, "lower")
    assert effect[:3] == pytest.approx((1.0, 1.0, 1.0))
    alone = mean([sums(hard)] * 3)
    assert alone.high - alone.low > 2, "the same arm by itself is uncertain"


def test_the_value_is_the_mean_over_seeds_of_ratios_of_sums():
    # Two episodes of weights 1 and 3: (2·1 + 6·3) / 4 = 5, and 1 for the other seed.
    effect = mean([sums([2, 6], [1, 3]), sums([1, 1], [1, 3])])
    assert effect.seeds == pytest.approx((5.0, 1.0))
    assert effect.value == pytest.approx(3.0)


def test_the_interval_is_that_of_a_mean():
    values = np.random.default_rng(1).normal(0, 1, 400)
    effect = mean([sums(values)])
    half = 1.96 * values.std() / np.sqrt(400)
    assert effect.low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert effect.high == pytest.approx(values.mean() + half, abs=0.1 * half)


def test_seeds_widen_the_interval_from_five_on():
    apart = [constant(float(v)) for v in (0, 2, 4, 6)]
    four, five = mean(apart), mean([*apart, constant(8.0)])
    assert (four.low, four.high) == (3.0, 3.0)
    # Five draws from 0, 2, 4, 6, 8: standard error √8 / √5.
    half = 1.96 * np.sqrt(8 / 5)
    assert five.low == pytest.approx(4 - half, abs=0.4)
    assert five.high == pytest.approx(4 + half, abs=0.4)


def test_seeds_are_resampled_in_pairs():
    arm = [constant(float(v)) for v in range(5)]
    against = [constant(v + 1.0) for v in range(5)]
    assert gain(arm, against, "lower")[:3] == pytest.approx((1.0, 1.0, 1.0))


def effect(low, high, seeds):
    return Effect(float(np.mean(seeds)), low, high, tuple(seeds), 30)


THREE, FIVE = (1.5, 1.6, 1.7), (0.5, 1.6, 1.7, 1.8, 1.9)


@pytest.mark.parametrize(
    "low, high, seeds, verdict",
    [
        (1.1, 2.0, THREE, CONFIRMED),
        (1.0, 2.0, THREE, UNDECIDED),  # not beyond the smallest effect, at it
        (0.9, 2.0, THREE, UNDECIDED),
        (1.1, 2.0, THREE[:2], UNDECIDED),  # two seeds never decide
        (1.1, 2.0, (1.6,), UNDECIDED),
        (1.1, 2.0, (0.9, 2.0, 2.0), UNDECIDED),  # one of few seeds disagrees
        (1.1, 2.0, FIVE, CONFIRMED),  # among five, the interval speaks for all of them
        (-0.5, 0.9, (0.1, 0.2, 0.3), NOT_CONFIRMED),
        (-0.5, 1.0, (0.1, 0.2, 0.3), UNDECIDED),
        (-0.5, 0.9, (0.1, 0.2, 1.3), UNDECIDED),
        (-9.0, -8.0, (-8.5, -8.5, -8.5), NOT_CONFIRMED),  # the opposite of what was expected
        (-0.5, 0.9, (0.1, 0.2), UNDECIDED),
        (np.nan, np.nan, (np.nan, 1.5, 1.6), UNDECIDED),
    ],
)
def test_the_rules(low, high, seeds, verdict):
    assert decide(effect(low, high, seeds), smallest=1.0) == verdict


def test_nothing_to_average_is_no_effect_and_no_verdict():
    nothing = sums([0, 0], [0, 0])
    found = gain([nothing] * 3, [constant(1.0, 2)] * 3, "lower")
    assert np.isnan(found.value)
    assert found.episodes == 0
    assert decide(found, 0.0) == UNDECIDED
    assert decide(gain([], [], "lower"), 0.0) == UNDECIDED


def test_what_cannot_be_paired_is_refused():
    with pytest.raises(ValueError, match="same seeds"):
        gain([constant(1.0)] * 2, [constant(1.0)], "lower")
    with pytest.raises(ValueError, match="same episodes"):
        gain([constant(1.0, 3)], [constant(1.0, 4)], "lower")
