"""Losses against closed forms, worked by hand or by numpy in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wm_jax import losses


def log_probs(*probabilities):
    return jnp.log(jnp.array(probabilities, jnp.float32))


def test_squared_error_sums_over_a_frame():
    frames = jnp.zeros((2, 3, 4, 5, 3))
    np.testing.assert_allclose(losses.squared_error(frames + 0.5, frames), np.full((2, 3), 15.0))


def test_kl_by_hand_and_summed_over_variables():
    p, q = log_probs([0.5, 0.5], [0.9, 0.1]), log_probs([0.25, 0.75], [0.9, 0.1])
    expected = 0.5 * np.log(2) + 0.5 * np.log(2 / 3)  # the second variable adds nothing
    np.testing.assert_allclose(losses.categorical_kl(p, q), expected, rtol=1e-6)
    assert losses.categorical_kl(q, p) != pytest.approx(expected, abs=1e-3)


def test_free_nats_clip_the_sum_over_variables():
    """Two variables of 0.6 nats together exceed one free nat; either alone would not."""
    far, near = log_probs([0.9, 0.1], [0.9, 0.1]), log_probs([0.33, 0.67], [0.33, 0.67])
    one = losses.categorical_kl(far[:1], near[:1])
    assert 0.5 < one < 1
    both = losses.balanced_kl(far, near, free_nats=1.0)
    np.testing.assert_allclose(both["kl_dyn"], 2 * one, rtol=1e-6)
    np.testing.assert_allclose(both["kl_rep"], 2 * one, rtol=1e-6)
    alone = losses.balanced_kl(far[:1], near[:1], free_nats=1.0)
    assert alone["kl_dyn"] == alone["kl_rep"] == 1.0


@pytest.mark.parametrize(("term", "trained"), [("kl_dyn", "prior"), ("kl_rep", "posterior")])
def test_each_term_trains_one_side(term, trained):
    logits = {
        "posterior": jnp.array([[3.0, 0.0, -1.0]]),
        "prior": jnp.array([[-2.0, 1.0, 0.5]]),
    }

    def loss(logits, free_nats):
        sides = {name: jax.nn.log_softmax(x) for name, x in logits.items()}
        return losses.balanced_kl(**sides, free_nats=free_nats)[term]

    gradient = jax.grad(loss)(logits, 1.0)
    assert {name for name, g in gradient.items() if np.any(g)} == {trained}
    if term == "kl_dyn":  # ∂ KL(p ‖ softmax(x)) / ∂x = softmax(x) − p
        expected = jax.nn.softmax(logits["prior"]) - jax.nn.softmax(logits["posterior"])
        np.testing.assert_allclose(gradient["prior"], expected, rtol=1e-5)
    assert not any(np.any(g) for g in jax.grad(loss)(logits, 100.0).values())  # flat below


def test_gaussian_kl_is_the_integral_and_summed_over_variables():
    x = np.linspace(-30, 30, 200_001)

    def log_density(mean, std):
        return -0.5 * ((x - mean) / std) ** 2 - np.log(std * np.sqrt(2 * np.pi))

    p, q = log_density(0.4, 0.7), log_density(-1.0, 1.6)
    expected = np.sum(np.exp(p) * (p - q)) * (x[1] - x[0])
    a = losses.Normal(jnp.array([[0.4], [2.0]]), jnp.array([[0.7], [0.3]]))
    b = losses.Normal(jnp.array([[-1.0], [2.0]]), jnp.array([[1.6], [0.3]]))  # the second is equal
    np.testing.assert_allclose(losses.gaussian_kl(a, b), expected, rtol=1e-5)
    balanced = losses.balanced_kl(a, b, free_nats=0.1, kl=losses.gaussian_kl)
    np.testing.assert_allclose([*balanced.values()], [expected] * 2, rtol=1e-5)


@pytest.mark.parametrize(("term", "trained"), [("kl_dyn", 1), ("kl_rep", 0)])
def test_each_gaussian_term_trains_one_side(term, trained):
    sides = [losses.Normal(jnp.full((1, 1), x), jnp.full((1, 1), 1 + x)) for x in (0.1, 2.0)]

    def loss(posterior, prior):
        return losses.balanced_kl(posterior, prior, 0.0, losses.gaussian_kl)[term]

    gradients = jax.grad(loss, (0, 1))(*sides)
    assert all(np.any(g) for g in gradients[trained])
    assert not any(np.any(g) for g in gradients[1 - trained])


def test_symlog_and_symexp():
    x = jnp.array([-1e4, -np.e + 1, 0.0, 1e-3, np.e - 1])
    np.testing.assert_allclose(losses.symlog(x)[jnp.array([1, 2, 4])], [-1, 0, 1], rtol=1e-6)
    np.testing.assert_allclose(losses.symexp(losses.symlog(x)), x, rtol=1e-4)


def test_bins_are_antisymmetric_and_reach_symexp_20():
    bins = losses.symexp_bins(255)
    assert bins.shape == (255,) and bins[127] == 0
    np.testing.assert_array_equal(bins, -bins[::-1])
    np.testing.assert_allclose(bins[-1], np.expm1(20), rtol=1e-5)
    assert np.all(np.diff(bins) > 0)


def test_twohot_keeps_the_value_and_uses_two_neighbours():
    bins = jnp.array([-2.0, -1.0, 0.0, 3.0, 10.0])
    weights = losses.twohot(jnp.array([0.75, -1.0, 10.0, 99.0, -99.0]), bins)
    expected = [
        [0, 0, 0.75, 0.25, 0],
        [0, 1, 0, 0, 0],
        [0, 0, 0, 0, 1],
        [0, 0, 0, 0, 1],
        [1, 0, 0, 0, 0],
    ]
    np.testing.assert_allclose(weights, expected, atol=1e-6)


def test_twohot_cross_entropy_is_least_at_the_twohot_itself():
    bins, value = losses.symexp_bins(41), jnp.array(1.7)
    target = losses.twohot(value, bins)
    least = losses.twohot_cross_entropy(jnp.log(target + 1e-12), value, bins)
    entropy = -(target * np.log(np.maximum(target, 1e-12))).sum()
    np.testing.assert_allclose(least, entropy, rtol=1e-5)
    uniform = losses.twohot_cross_entropy(jnp.zeros(41), value, bins)
    np.testing.assert_allclose(uniform, np.log(41), rtol=1e-6)
    np.testing.assert_allclose(losses.twohot_mean(jnp.log(target + 1e-30), bins), value, rtol=1e-4)


def test_mean_of_a_uniform_distribution_is_exactly_zero():
    """Bins reach 5e8: summed left to right in float32 the mean would be off by tens."""
    bins = losses.symexp_bins(255)
    assert losses.twohot_mean(jnp.zeros((3, 255)), bins).tolist() == [0, 0, 0]


def test_binary_cross_entropy():
    logit, target = jnp.array([0.0, 100.0, -100.0, 2.0]), jnp.array([1.0, 1.0, 1.0, 0.25])
    p = 1 / (1 + np.exp(-2.0))
    expected = [np.log(2), 0, 100, -0.25 * np.log(p) - 0.75 * np.log(1 - p)]
    np.testing.assert_allclose(losses.binary_cross_entropy(logit, target), expected, rtol=1e-5)
