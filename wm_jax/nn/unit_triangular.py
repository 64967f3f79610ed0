"""The inverse of a unit lower triangular matrix by matrix products alone."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


@jax.custom_vjp
def inverse(lower: Float[Array, "*lead c c"]) -> Float[Array, "*lead c c"]:
    """(I + ``lower``)⁻¹ for a strictly lower triangular matrix.

    Forward substitution in blocks that double: if A and B are the blocks on the diagonal, inverted,
    and C lies below them, then −B C A does in the inverse. X ← X − X (C parts of ``lower``) X does
    so in all places at once: ⌈log₂ c⌉ − 1 levels of two products, any c, no solver to call (which
    an export could not carry everywhere). As stable as substitution, unlike the power series.
    """
    size = lower.shape[-1]
    row, column = jnp.arange(size)[:, None], jnp.arange(size)
    x = jnp.eye(size, dtype=lower.dtype)
    block = 1
    while block < size:
        joined = row // (2 * block) == column // (2 * block)
        below = jnp.where(joined & (row // block > column // block), lower, 0.0)
        x = x - (below if block == 1 else x @ below @ x)
        block *= 2
    return jnp.broadcast_to(x, lower.shape)


def _forward(lower):
    x = inverse(lower)
    return x, x


def _backward(x, gradient):
    """∂L = −Xᵀ ∂X Xᵀ, of the part below the diagonal, since nothing else is read."""
    transposed = jnp.swapaxes(x, -1, -2)
    return (-jnp.tril(transposed @ gradient @ transposed, -1),)


inverse.defvjp(_forward, _backward)
