"""Noise on the context: a level a frame, variance kept."""

import jax
import jax.numpy as jnp
import numpy as np

from wm_jax.models.context_noise import corrupt

STREAMS, FRAMES, HIGHEST = 4, 50, 0.8
CLEAN = 3 * jax.random.normal(jax.random.key(1), (STREAMS, FRAMES, 16, 64))
SEEN = np.asarray(corrupt(CLEAN, jax.random.key(0), HIGHEST))


def correlations():
    """Of every frame's embeddings with the clean ones: √(1 − σ²)."""
    x, y = np.asarray(CLEAN), SEEN
    dot = (x * y).sum((2, 3))
    return dot / np.sqrt(np.square(x).sum((2, 3)) * np.square(y).sum((2, 3)))


def test_variance_is_kept():
    np.testing.assert_allclose(SEEN.std((2, 3)), 3, rtol=0.1)


def test_every_frame_has_a_level_of_its_own():
    levels = np.sqrt(1 - correlations() ** 2)
    assert np.abs(np.mean(levels) - HIGHEST / 2) < 0.06
    assert levels.min() < 0.12 and 0.72 < levels.max() < HIGHEST + 0.05
    together = np.corrcoef(levels[:, :-1].ravel(), levels[:, 1:].ravel())[0, 1]
    assert abs(together) < 0.3
    assert np.abs(np.corrcoef(levels)[0, 1:]).max() < 0.5  # nor do streams share them


def test_a_level_of_zero_changes_nothing():
    np.testing.assert_array_equal(corrupt(CLEAN, jax.random.key(0), 0.0), CLEAN)


def test_an_encoder_cannot_outgrow_the_noise():
    """Twice the embeddings, twice the noise; and no gradient through its scale."""
    twice = corrupt(2 * CLEAN, jax.random.key(0), HIGHEST)
    np.testing.assert_allclose(twice, 2 * SEEN, rtol=1e-4, atol=1e-4)
    gradient = jax.grad(lambda x: corrupt(x, jax.random.key(0), HIGHEST).sum())(CLEAN)
    np.testing.assert_allclose(gradient, jnp.broadcast_to(gradient[:, :, :1, :1], CLEAN.shape))
    assert gradient.max() <= 1
