"""Losses as pure functions of arrays: no parameters, no randomness, everything in float32.

Each returns one number per leading index (…), never a mean over the batch: the caller masks and
averages. Sources: DreamerV3 (Hafner et al. 2023, arXiv 2301.04104), equations 3–5 and 9–11.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree


def squared_error(
    predicted: Float[Array, "*lead h w c"], target: Float[Array, "*lead h w c"]
) -> Float[Array, "*lead"]:
    """Squared error *summed* over a frame's pixels and channels."""
    return jnp.square(predicted.astype(jnp.float32) - target).sum((-3, -2, -1))


def categorical_kl(
    log_p: Float[Array, "*lead s k"], log_q: Float[Array, "*lead s k"]
) -> Float[Array, "*lead"]:
    """KL(p ‖ q) in nats, summed over the s independent variables of k classes each.

    Both are normalised log-probabilities, finite everywhere (uniform mixing sees to that).
    """
    return (jnp.exp(log_p) * (log_p - log_q)).sum((-2, -1))


class Normal(NamedTuple):
    """Independent normal variables; ``std`` > 0."""

    mean: Float[Array, "*lead s k"]
    std: Float[Array, "*lead s k"]


def gaussian_kl(p: Normal, q: Normal) -> Float[Array, "*lead"]:
    """KL(p ‖ q) in nats, summed over the variables."""
    distance = jnp.square(p.mean - q.mean) + jnp.square(p.std)
    kl = jnp.log(q.std / p.std) + distance / (2 * jnp.square(q.std)) - 0.5
    return kl.sum((-2, -1))


def balanced_kl(
    posterior: PyTree,
    prior: PyTree,
    free_nats: float = 1.0,
    kl: Callable[..., Array] = categorical_kl,
) -> dict[str, Float[Array, "*lead"]]:
    """KL(posterior ‖ prior) twice, unweighted (equation 5); ``kl`` is that of the distributions.

    ``kl_dyn`` trains the prior towards a fixed posterior, ``kl_rep`` the posterior towards a fixed
    prior; weigh them 1 and 0.1. Each is at least ``free_nats``, and flat below.
    """
    stop = jax.lax.stop_gradient
    return {
        "kl_dyn": jnp.maximum(free_nats, kl(stop(posterior), prior)),
        "kl_rep": jnp.maximum(free_nats, kl(posterior, stop(prior))),
    }


def symlog(x: Float[Array, "*any"]) -> Float[Array, "*any"]:
    """sign(x) ln(1 + |x|): large magnitudes squashed, small ones kept. Inverse: `symexp`."""
    return jnp.sign(x) * jnp.log1p(jnp.abs(x))


def symexp(x: Float[Array, "*any"]) -> Float[Array, "*any"]:
    """sign(x) (exp(|x|) − 1)."""
    return jnp.sign(x) * jnp.expm1(jnp.abs(x))


def symexp_bins(bins: int) -> Float[Array, " k"]:
    """``bins`` (odd) values from −symexp(20) to symexp(20), dense near 0, exactly antisymmetric."""
    half = symexp(jnp.linspace(-20.0, 0.0, bins // 2 + 1))
    return jnp.concatenate([half, -half[:-1][::-1]])


def twohot(value: Float[Array, "*lead"], bins: Float[Array, " k"]) -> Float[Array, "*lead k"]:
    """Weights on the two bins beside ``value`` whose mean is ``value``; the ends clip."""
    value = jnp.clip(value, bins[0], bins[-1])[..., None]
    last = len(bins) - 1
    below = jnp.clip(jnp.searchsorted(bins, value, side="right") - 1, 0, last - 1)
    low, high = bins[below], bins[below + 1]
    upper = (value - low) / (high - low)
    index = jnp.arange(len(bins))
    return jnp.where(index == below, 1 - upper, 0.0) + jnp.where(index == below + 1, upper, 0.0)


def twohot_cross_entropy(
    logits: Float[Array, "*lead k"], value: Float[Array, "*lead"], bins: Float[Array, " k"]
) -> Float[Array, "*lead"]:
    """−Σ twohot(value) · log softmax(logits), in nats (equation 9)."""
    log_p = jax.nn.log_softmax(logits.astype(jnp.float32))
    return -(twohot(value, bins) * log_p).sum(-1)


def twohot_mean(logits: Float[Array, "*lead k"], bins: Float[Array, " k"]) -> Float[Array, "*lead"]:
    """The mean of softmax(logits) over ``bins``.

    Bins are summed in pairs of opposite sign: they reach 5e8, and left to right a uniform
    distribution would not come out as zero.
    """
    p = jax.nn.softmax(logits.astype(jnp.float32))
    half = len(bins) // 2
    pairs = p[..., -half:] * bins[-half:] + p[..., :half][..., ::-1] * bins[:half][::-1]
    return pairs.sum(-1) + p[..., half] * bins[half]


def binary_cross_entropy(
    logit: Float[Array, "*lead"], target: Float[Array, "*lead"]
) -> Float[Array, "*lead"]:
    """−ln p(target) in nats for a Bernoulli variable with this ``logit``; target in [0, 1]."""
    logit = logit.astype(jnp.float32)
    return -(target * jax.nn.log_sigmoid(logit) + (1 - target) * jax.nn.log_sigmoid(-logit))
