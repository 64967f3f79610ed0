"""Categorical latents (DreamerV3, Hafner et al. 2023): s variables of k classes each.

Noise is drawn apart from the choice it makes (the Gumbel trick), so that a scan can draw the noise
of all its steps at once and still sample exactly what single steps would.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def unimix(logits: Float[Array, "*lead k"], share: float = 0.01) -> Float[Array, "*lead k"]:
    """Log-probabilities of ``share`` uniform and the rest softmax(logits).

    No class falls below share / k, so KL terms stay finite and every class keeps a gradient.
    """
    p = jax.nn.softmax(logits.astype(jnp.float32), axis=-1)
    return jnp.log((1 - share) * p + share / logits.shape[-1])


def gumbel_noise(key: jax.Array | None, shape: tuple[int, ...]) -> jax.Array:
    """Noise for `sample`: standard Gumbel, or zeros (the mode) without a key."""
    return jnp.zeros(shape) if key is None else jax.random.gumbel(key, shape)


def sample(
    log_probs: Float[Array, "*lead s k"], noise: Float[Array, "*lead s k"]
) -> Float[Array, "*lead s k"]:
    """A one-hot sample; its gradient is that of the probabilities (straight-through)."""
    probs = jnp.exp(log_probs)
    hard = jax.nn.one_hot(jnp.argmax(log_probs + noise, -1), log_probs.shape[-1])
    return jax.lax.stop_gradient(hard - probs) + probs
