"""Noise on the context, with a level of its own for every frame.

A rollout reads its own guesses, which are not quite frames; training on clean frames alone does not
prepare for that. Diffusion forcing (Chen et al. 2024, arXiv 2407.01392, section 3.1) draws a noise
level for each frame independently; here the levels are applied to the embeddings of frames, where
every encoder ends and every backbone begins, so that an encoder cannot average the noise away:

  x̃_t = √(1 − σ_t²) x_t + σ_t r ε,   σ_t uniform in [0, highest],   ε ~ N(0, 1)

with r the root mean square of a stream's embeddings (held fixed), so that their variance stays what
it is and no encoder gains by outgrowing the noise. The level is not told: the state has to judge
how much a frame is worth against what it expects, no parameter is added, and evaluation, which adds
no noise, is the level 0 that training knows too. Targets stay clean.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def corrupt(
    embeddings: Float[Array, "b t n e"], key: jax.Array, highest: float
) -> Float[Array, "b t n e"]:
    """Embeddings as they are seen in training; ``highest`` in [0, 1]."""
    level_key, noise_key = jax.random.split(key)
    shape = (*embeddings.shape[:2], 1, 1)
    level = highest * jax.random.uniform(level_key, shape)
    scale = jax.lax.stop_gradient(jnp.sqrt(jnp.square(embeddings).mean((1, 2, 3), keepdims=True)))
    noise = scale * jax.random.normal(noise_key, embeddings.shape)
    return jnp.sqrt(1 - jnp.square(level)) * embeddings + level * noise
