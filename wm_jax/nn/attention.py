"""Attention among the tokens of one frame: cells of a grid or slots, never over time.

A block is the pre-norm transformer's (Vaswani et al. 2017, with the normalisation first as in
Dosovitskiy et al. 2020, equations 2 and 3):

  x ← x + W_o [softmax(q_h k_hᵀ / √(d / h)) v_h]_h      q, k, v = W norm(x), in h heads
  x ← x + W₂ gelu(W₁ norm(x))

It has no notion of order: what a token's place is, it must be told (`sine_positions`), or queries
and keys are turned by it (`rotate`).
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from wm_jax.nn.compute import matmul
from wm_jax.nn.dense import Dense
from wm_jax.nn.grid import addresses


def attend(
    query: Float[Array, "*lead m d"],
    key: Float[Array, "*lead n d"],
    value: Float[Array, "*lead n d"],
    heads: int,
) -> Float[Array, "*lead m d"]:
    """Multi-head attention; ``heads`` divides d. The softmax is in float32."""
    lead, size = query.shape[:-2], query.shape[-1] // heads

    def split(x):  # to (batch · heads, tokens, size): XLA:CPU is fast with one batch axis only
        x = x.reshape(-1, x.shape[-2], heads, size)
        return jnp.swapaxes(x, 1, 2).reshape(-1, x.shape[1], size)

    query, key, value = split(query), split(key), split(value)
    logits = matmul(query, jnp.swapaxes(key, -1, -2)) * size**-0.5
    out = matmul(jax.nn.softmax(logits, -1), value)
    out = jnp.swapaxes(out.reshape(-1, heads, out.shape[-2], size), 1, 2)
    return out.reshape(*lead, out.shape[1], heads * size)


class SelfAttention(nn.Module):
    """(…, n, d) → (…, n, d): every token reads all tokens of its frame, itself among them."""

    heads: int

    @nn.compact
    def __call__(self, x: Float[Array, "*lead n d"]) -> Float[Array, "*lead n d"]:
        width = x.shape[-1]
        query, key, value = jnp.split(Dense(3 * width, use_bias=False)(x), 3, -1)
        return Dense(width)(attend(query, key, value, self.heads))


class AttentionBlock(nn.Module):
    """One block of the module's docstring, (…, n, d) → (…, n, d); ``expand`` is the hidden layer's
    size over d."""

    heads: int
    expand: int = 4

    @nn.compact
    def __call__(self, x: Float[Array, "*lead n d"]) -> Float[Array, "*lead n d"]:
        width = x.shape[-1]
        x = x + SelfAttention(self.heads)(nn.RMSNorm()(x))
        hidden = nn.gelu(Dense(self.expand * width)(nn.RMSNorm()(x)))
        return x + Dense(width)(hidden)


def sine_positions(place: Float[Array, "*lead 2"], width: int) -> Float[Array, "*lead width"]:
    """Places (x, y in [0, 1]) as sines and cosines of geometrically spaced wavelengths.

    A quarter of ``width`` (a multiple of four) each for sin and cos of x and of y, with 1/2 to 32
    waves across the frame: cells of a 64 × 64 grid still differ, and neighbours are alike.
    """
    waves = jnp.geomspace(0.5, 32.0, width // 4)
    phase = 2 * jnp.pi * place[..., None] * waves
    parts = jnp.concatenate([jnp.sin(phase), jnp.cos(phase)], -1)
    return parts.reshape(*place.shape[:-1], width)


#: The longest wavelength of `rotate` is less than 2π times this, in cells (Heo et al.: 100).
LONGEST = 100.0


def rotate(
    x: Float[Array, "*lead n d"], cells: tuple[int, int], heads: int
) -> Float[Array, "*lead n d"]:
    """Every cell's vector, turned by row and column: rotary position (Su et al. 2021, arXiv
    2104.09864), axial in the plane (Heo et al. 2024, arXiv 2403.13298).

    In each head one half of the numbers turns with the row and one with the column, in pairs: pair
    i by the angle place · LONGEST^(−i / pairs). d is a multiple of 4 ``heads``. The product of two
    such vectors depends on how far their cells are apart, not on where they are.
    """
    rows, columns = jnp.meshgrid(jnp.arange(cells[0]), jnp.arange(cells[1]), indexing="ij")
    place = jnp.stack([rows.ravel(), columns.ravel()], -1)
    pairs = x.shape[-1] // (4 * heads)
    angle = place[..., None] * LONGEST ** (-jnp.arange(pairs) / pairs)  # (n, 2, pairs)
    cos, sin = jnp.cos(angle)[:, None], jnp.sin(angle)[:, None]
    parts = x.reshape(*x.shape[:-1], heads, 2, 2, pairs)
    a, b = parts[..., 0, :], parts[..., 1, :]
    return jnp.stack([a * cos - b * sin, a * sin + b * cos], -2).reshape(x.shape)


class GridAttention(nn.Module):
    """The global counterpart of `wm_jax.nn.grid.GridMix`, (…, n, d) → (…, n, features).

    W_o attend(x) + W x: a cell has a way to itself, as by the residual stream of a block, so that
    what comes after may compare it with what it looks at. Scores know how far cells are apart
    (`rotate`), and x is told where they are, since walls do not move with what bounces there. The
    caller normalises x; d is a multiple of 4 ``heads``.
    """

    cells: tuple[int, int]
    features: int
    heads: int = 4

    @nn.compact
    def __call__(self, x: Float[Array, "*lead n d"]) -> Float[Array, "*lead n f"]:
        width = x.shape[-1]
        x = x + sine_positions(addresses(self.cells), width)
        query, key, value = jnp.split(Dense(3 * width, use_bias=False)(x), 3, -1)
        query, key = (rotate(part, self.cells, self.heads) for part in (query, key))
        seen = attend(query, key, value, self.heads)
        return Dense(self.features)(x) + Dense(self.features, use_bias=False)(seen)
