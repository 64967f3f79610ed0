"""Latents: mixtures, levels, samples, their gradients and their losses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.models.quick import random_variables
from wm_jax.models.bottleneck import Bottleneck
from wm_jax.models.latents import (
    FSQ,
    MIN_STD,
    Categorical,
    Deterministic,
    Gaussian,
    gumbel_noise,
    sample,
    unimix,
    window_noise,
)

KINDS = [Deterministic(3, 0.2), Categorical(3, 4), Gaussian(3), FSQ(3, 4)]
BY_KIND = pytest.mark.parametrize("latent", KINDS, ids=lambda latent: type(latent).__name__)


@BY_KIND
def test_noise_of_a_window_is_that_of_its_steps(latent):
    keys = jax.random.split(jax.random.key(0), 5)
    window = window_noise(latent, keys, 5, (2, 6))
    for t in range(5):
        np.testing.assert_array_equal(window[:, t], latent.noise(keys[t], (2, 6)))
    nothing = window_noise(latent, None, 5, (2, 6))
    assert nothing.shape == window.shape and not nothing.any()


@BY_KIND
def test_sizes_are_as_declared(latent):
    outputs = [jax.random.normal(jax.random.key(i), (2, n)) for i, n in enumerate(latent.outputs)]
    posterior, prior = latent.posterior(outputs[0]), latent.prior(outputs[1])
    noise = latent.noise(jax.random.key(2), (2,))
    assert latent.posterior_sample(posterior, noise).shape == (2, *latent.size)
    assert latent.prior_sample(prior, noise).shape == (2, *latent.size)
    terms = latent.terms(posterior, prior)
    assert tuple(terms) == latent.names and all(term.shape == (2,) for term in terms.values())


def test_noise_on_a_vector_is_the_posteriors_alone():
    latent, x = Deterministic(500, 0.2), jnp.full((3, 500), 2.0)
    noise = latent.noise(jax.random.key(0), (3,))
    np.testing.assert_array_equal(latent.prior_sample(latent.prior(x), noise)[:, 0], x)
    added = latent.posterior_sample(latent.posterior(x), noise)[:, 0] - x
    assert abs(added.std() - 0.2) < 0.02


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_noise_times_a_temperature_sharpens_a_prior(temperature):
    """p^(1/T), normalised; for a Gaussian the standard deviation times T."""
    draws, p = 20_000, np.array([0.6, 0.3, 0.1])
    latent = Categorical(1, 3, unimix=0.0)
    noise = temperature * latent.noise(jax.random.key(0), (draws,))
    prior = jnp.broadcast_to(latent.prior(jnp.log(jnp.asarray(p, jnp.float32))), (draws, 1, 3))
    expected = p ** (1 / temperature) / np.sum(p ** (1 / temperature))
    error = 4 * np.sqrt(expected * (1 - expected) / draws)
    assert np.all(np.abs(latent.prior_sample(prior, noise).mean((0, 1)) - expected) < error)
    gaussian = Gaussian(draws)
    normal = gaussian.prior(jnp.zeros(2 * draws))
    values = gaussian.prior_sample(normal, temperature * gaussian.noise(jax.random.key(1), ()))
    np.testing.assert_allclose(values.std(), temperature * (np.log(2) + MIN_STD), rtol=0.02)


def test_a_gaussian_has_means_first():
    normal = Gaussian(2).posterior(jnp.array([3.0, -4.0, 0.0, 100.0]))
    np.testing.assert_allclose(normal.mean[:, 0], [3, -4])
    np.testing.assert_allclose(normal.std[:, 0], [np.log(2) + MIN_STD, 100 + MIN_STD], rtol=1e-6)


@pytest.mark.parametrize("levels", [3, 4, 5, 8])
def test_fsq_rounds_to_its_levels(levels):
    latent = FSQ(1, levels)
    outputs = jnp.linspace(-9, 9, 1_001)[:, None]
    bounded = latent.posterior(outputs)
    values = latent.posterior_sample(bounded, jnp.zeros(()))[:, 0, 0]
    expected = (np.arange(levels) - levels // 2) / (levels // 2)
    np.testing.assert_allclose(np.unique(np.round(values, 5)), expected, atol=1e-5)
    assert np.all(np.diff(values) >= -1e-6) and values[500] == 0  # zero is a level, not an edge
    slope = jax.grad(lambda x: latent.posterior_sample(latent.posterior(x), None).sum())(outputs)
    smooth = jax.grad(lambda x: latent.posterior(x).sum() / (levels // 2))(outputs)
    np.testing.assert_allclose(slope, smooth, rtol=1e-6)  # straight through
    assert smooth[500] > 0.6


def test_fsq_prior_is_trained_to_name_the_posteriors_level():
    latent = FSQ(2, 4)
    outputs, logits = jnp.array([-9.0, 0.3]), jnp.arange(8.0) % 3

    def cross_entropy(outputs, logits):
        return latent.terms(latent.posterior(outputs), latent.prior(logits))["kl_dyn"]

    loss, (gradient, trained) = jax.value_and_grad(cross_entropy, (0, 1))(outputs, logits)
    log_p = np.log(0.99 * np.asarray(jax.nn.softmax(logits.reshape(2, 4))) + 0.01 / 4)
    np.testing.assert_allclose(loss, -log_p[0, 0] - log_p[1, 2], rtol=1e-5)
    assert not gradient.any() and trained.any()
    mode = latent.prior_sample(latent.prior(logits), jnp.zeros((2, 4)))
    np.testing.assert_allclose(mode[:, 0], [(2 - 2) / 2, (1 - 2) / 2], atol=1e-6)


def test_free_nats_are_those_of_all_cells_together():
    """Four cells: one alone has less than the free nats, all have more."""
    latent, free = Categorical(2, 3, free_nats=1.0), Categorical(2, 3, free_nats=0.0)
    module, features = Bottleneck(latent, 5), jax.random.normal(jax.random.key(0), (2, 4, 6))

    def run(module, a, b):
        posterior, prior = module.posterior(a), module.prior(b)
        module.posterior_token(posterior, latent.noise(None, a.shape[:-1]))
        return module.terms(posterior, prior), posterior, prior

    variables = random_variables(module, features, -features, method=run)
    together, *sides = module.apply(variables, features, -features, method=run)
    apart, exact = latent.terms(*sides), free.terms(*sides)
    assert together["kl_dyn"].shape == (2,) and np.any(apart["kl_dyn"] == 1)
    np.testing.assert_allclose(together["kl_dyn"], exact["kl_dyn"].sum(1), rtol=1e-5)


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
