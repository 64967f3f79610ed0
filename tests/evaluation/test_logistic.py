"""The logistic read-out: at its optimum, on planted signals, and where nothing can be learned."""

import numpy as np
import pytest

from wm_jax.evaluation import logistic


def test_the_optimum_of_a_logistic_read_out_has_no_slope():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 3)) * [1, 20, 0.1] + [0, 5, 1]
    chance = 1 / (1 + np.exp(-(x[:, 0] - x[:, 1] / 10 + 0.3)))
    y = rng.random(400) < chance
    penalty = 0.01
    read = logistic.fit(x, y, 0, penalties=(penalty,))
    unit = (x - x.mean(0)) / x.std(0)
    logit = np.log(read(x) / (1 - read(x)))
    weights, *_ = np.linalg.lstsq(np.c_[unit, np.ones(400)], logit, rcond=None)
    # d/dw of mean log-loss + penalty / 2 w^2, which the offset doesn't pay.
    pull = (read(x) - y) / 400
    assert unit.T @ pull == pytest.approx(-penalty * weights[:3], abs=1e-5)
    assert pull.sum() == pytest.approx(0, abs=1e-5)
    assert logistic.log_loss(read(x), y) < logistic.log_loss(np.full(400, y.mean()), y) - 0.05


def test_a_logistic_read_out_finds_one_direction_of_many_and_no_other():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 300))
    x[:, 0] *= 5
    y = x[:, 0] > 0
    # All directions are standardised, so the one that tells is found by the labels alone.
    right = (logistic.fit(x[:300], y[:300], 0)(x[300:]) > 0.5) == y[300:]
    assert right.mean() > 0.7
    noise = rng.random(400) < 0.5
    right = (logistic.fit(x[:300], noise[:300], 0)(x[300:]) > 0.5) == noise[300:]
    assert 0.3 < right.mean() < 0.7


def test_labels_that_agree_are_told_without_looking():
    x = np.random.default_rng(0).normal(size=(20, 4))
    assert np.all(logistic.fit(x, np.ones(20, bool), 0)(x) == 1)
    one = np.arange(20) == 3
    assert np.all(logistic.fit(x, one, 0)(x[:5]) == 1 / 20)
    fold = logistic.stratified(np.arange(23) < 8, 4, 0)
    for label in (slice(0, 8), slice(8, 23)):
        assert np.ptp(np.bincount(fold[label], minlength=4)) <= 1
