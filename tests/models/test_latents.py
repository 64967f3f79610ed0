"""Categorical latents: the mixture, the samples and their gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wm_jax.models.latents import gumbel_noise, sample, unimix


def test_unimix_is_a_share_of_uniform():
    logits = jnp.array([[1e3, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    expected = [[0.99 + 0.0025, 0.0025, 0.0025, 0.0025], [0.25] * 4]
    np.testing.assert_allclose(jnp.exp(unimix(logits)), expected, rtol=1e-5)
    p = jax.nn.softmax(jnp.array([0.3, -1.2, 2.0]))
    np.testing.assert_allclose(jnp.exp(unimix(jnp.array([[0.3, -1.2, 2.0]]), 0.0)[0]), p, rtol=1e-6)


def test_a_hopeless_class_keeps_a_finite_gradient():
    gradient = jax.grad(lambda x: unimix(x)[0, 1])(jnp.array([[200.0, 0.0]]))
    assert np.all(np.isfinite(gradient))


def test_samples_follow_the_probabilities():
    probs = jnp.array([0.7, 0.2, 0.1, 0.0])
    log_probs = unimix(jnp.log(probs[None] + 1e-9), 0.04)
    draws = 20_000
    noise = gumbel_noise(jax.random.key(0), (draws, 1, 4))
    mean = sample(jnp.broadcast_to(log_probs, (draws, 1, 4)), noise).mean((0, 1))
    expected = 0.96 * probs + 0.01
    error = 4 * np.sqrt(expected * (1 - expected) / draws)  # four standard errors
    assert np.all(np.abs(mean - expected) < error)


def test_samples_are_one_hot_and_without_a_key_the_mode():
    logits = jax.random.normal(jax.random.key(1), (5, 6, 4))
    for key in (None, jax.random.key(2)):
        x = sample(unimix(logits), gumbel_noise(key, logits.shape))
        np.testing.assert_allclose(np.sort(x, -1), np.eye(4)[-1] * np.ones((5, 6, 1)), atol=1e-6)
    np.testing.assert_array_equal(
        sample(unimix(logits), gumbel_noise(None, logits.shape)).argmax(-1), logits.argmax(-1)
    )


@pytest.mark.parametrize("key", [None, jax.random.key(3)], ids=["mode", "sampled"])
def test_the_gradient_is_that_of_the_probabilities(key):
    logits, weight = jnp.array([[0.5, -1.0, 0.2]]), jnp.array([[3.0, -1.0, 2.0]])
    noise = gumbel_noise(key, logits.shape)
    through = jax.grad(lambda x: (weight * sample(unimix(x), noise)).sum())(logits)
    direct = jax.grad(lambda x: (weight * jnp.exp(unimix(x))).sum())(logits)
    np.testing.assert_allclose(through, direct, rtol=1e-5)
    assert np.any(direct)
