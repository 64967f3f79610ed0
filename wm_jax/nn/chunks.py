"""A window cut into chunks of time, inside which all steps see one another by a mask.

Layers whose state is a matrix (`mamba2`, `gated_delta`) or a cache (`transformer`) run a chunk as a
few matrix products and hand only a state from one chunk to the next. What is in `Segments` keeps a
stream that starts anew from what came before, bit for bit: whatever lies across a start is
multiplied by an exact zero, and no sum runs over it (a difference of two sums would leave its
rounding behind).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree


class Segments(NamedTuple):
    """Who sees whom among the steps of a chunk, given where streams start anew.

    pairs: (query, key): the key is no later, and no start lies after it up to the query
    carry: no start yet: what was carried into the chunk still counts
    """

    pairs: Bool[Array, "b c c"]
    carry: Bool[Array, "b c"]


def segments(is_first: Bool[Array, "b c"]) -> Segments:
    number = jnp.cumsum(is_first, 1, dtype=jnp.int32)
    causal = jnp.tri(is_first.shape[1], dtype=bool)
    return Segments(causal & (number[:, :, None] == number[:, None]), number == 0)


def since_start(is_first: Bool[Array, "b t"], before: Int[Array, " b"]) -> Int[Array, "b t"]:
    """How many steps of its stream came before each; ``before`` the window there were that many."""
    time = jnp.arange(is_first.shape[1], dtype=jnp.int32)
    start = jax.lax.cummax(jnp.where(is_first, time, -1), axis=1)
    return time - jnp.where(start < 0, -before[:, None], start)


class Decays(NamedTuple):
    """Products of decays over time within a chunk; exactly zero across a start.

    pairs: ∏ a_r over s < r ≤ t, [t, s]; one where t = s, zero where s > t
    carry: ∏ a_r over r ≤ t: what is left at t of what was carried in
    """

    pairs: Float[Array, "b n h c c"]
    carry: Float[Array, "b n h c"]


def decays(log_a: Float[Array, "b c n h"], seen: Segments) -> Decays:
    """From log a ≤ 0. Sums restart with the stream: their differences know nothing older."""
    ones = seen.pairs.astype(log_a.dtype)
    total = jnp.einsum("bts,bsnh->bnht", ones, log_a, precision="highest")
    difference = total[..., :, None] - total[..., None, :]
    pairs = jnp.exp(jnp.where(seen.pairs[:, None, None], difference, -jnp.inf))
    return Decays(pairs, jnp.exp(jnp.where(seen.carry[:, None, None], total, -jnp.inf)))


def scan_chunks(
    body: Callable[[PyTree, PyTree], tuple[PyTree, PyTree]],
    state: PyTree,
    inputs: PyTree,
    longest: int,
) -> tuple[PyTree, PyTree]:
    """``body(state, inputs) -> (state, outputs)`` over chunks of at most ``longest`` steps.

    Inputs and outputs are (b, t, …). Chunks are as equal as they can be; the last is filled up with
    zeros, at which the body must leave its state alone, or the state returned must not be used.
    """
    time = jax.tree.leaves(inputs)[0].shape[1]
    count = -(-time // longest)
    length = -(-time // count)

    def cut(x):
        padded = jnp.pad(x, [(0, 0), (0, count * length - time)] + [(0, 0)] * (x.ndim - 2))
        return jnp.moveaxis(padded.reshape(x.shape[0], count, length, *x.shape[2:]), 1, 0)

    def join(y):
        y = jnp.moveaxis(y, 0, 1)
        return y.reshape(y.shape[0], count * length, *y.shape[3:])[:, :time]

    if count == 1:
        return body(state, inputs)
    state, outputs = jax.lax.scan(body, state, jax.tree.map(cut, inputs))
    return state, jax.tree.map(join, outputs)
