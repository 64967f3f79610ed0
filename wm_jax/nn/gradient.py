"""What backpropagation through time needs besides the chain rule."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def steady(x: Float[Array, "*lead d"], limit: float) -> Float[Array, "*lead d"]:
    """``x``, whose gradient is no longer than ``limit`` for each leading index.

    For a recurrence with sharp or chaotic steps (a collision, an assignment): without it a gradient
    of 24 steps that grow tenfold is infinite before any clipping of the whole could see it.
    """
    return x


def _forward(x, limit):
    return x, None


def _backward(limit, _, gradient):
    length = jnp.sqrt(jnp.square(gradient).sum(-1, keepdims=True))
    return (gradient * (limit / jnp.maximum(length, limit)),)


steady.defvjp(_forward, _backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def within(x: Float[Array, "*any"], low: float, high: float) -> Float[Array, "*any"]:
    """``x``, cut off at ``low`` and ``high``; beyond them it still hears that it should come back,
    where a plain clip would leave it for ever, and not that it should go farther."""
    return jnp.clip(x, low, high)


def _within_forward(x, low, high):
    return jnp.clip(x, low, high), x


def _within_backward(low, high, x, gradient):
    outwards = ((x < low) & (gradient > 0)) | ((x > high) & (gradient < 0))
    return (jnp.where(outwards, 0.0, gradient),)


within.defvjp(_within_forward, _within_backward)
