"""Windowed causal attention over time with a cache in a ring, per cell: the attention baseline.

Vaswani et al. 2017, arXiv 1706.03762 (attention, its equation 1); Su et al. 2021, "RoFormer", arXiv
2104.09864 (rotary positions); the window as in Beltagy et al. 2020, arXiv 2004.05150.

Frame t of a cell reads the last W frames of that cell, itself included, in H heads of width p:

  y_t = Σ_s softmax_s(q_tᵀ k_s / √p) v_s       over 0 ≤ t − s < W with no start in (s, t].

**Positions** are rotary (RoFormer 14–16): q_t and k_s are turned by R_t and R_s, in planes of two
features by the angles t θ_i and s θ_i, so that q_tᵀ R_tᵀ R_s k_s = q_tᵀ R_{s−t} k_s knows t − s
alone. A key is turned once, where it is made, and never again: the cache is not rewritten as time
goes on. Angles are whole multiples of a turn / M, M ≥ 4096 a multiple of W, and positions are
counted modulo M; so they are exact after any number of frames, where t θ in float32 would fade.
θ_i runs from 1 down to 1 / W (RoFormer has 10,000 in the place of W, for longer texts).

**Cache.** W keys and values a cell and layer lie in a ring: frame t of a stream in place t mod W,
over what is W frames old. ``position`` counts the frames since the start, and says which places
are filled; beyond M it goes on from there to 2M − 1 and returns to M, for the ring stays full.

**Parallel form.** The cache is put in order of time in front of the window's keys. Chunks of c ≤ W
queries then see W + c keys each, masked to the band and to the stream's own segment: work per frame
does not grow with time. Masked scores are −∞ and weigh exactly zero.

**Reset.** The segment number of a key must be that of the query. Position restarts with the stream.

Queries and keys are normalised a head (Dehghani et al. 2023, arXiv 2302.05442), which keeps the
softmax from saturating. What else a transformer block has is the stack's: spatial mixing between
layers is its feed-forward part. A carry holds 2 W d floats a cell and layer and one integer.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from wm_jax.errors import UserError
from wm_jax.models.dynamics.contract import reset
from wm_jax.models.dynamics.parallel import Parallel
from wm_jax.nn.chunks import scan_chunks, since_start
from wm_jax.nn.compute import einsum, narrow_dot_general
from wm_jax.nn.dense import Dense


class Cache(NamedTuple):
    """Keys (turned by their positions) and values in a ring, and how many frames came before."""

    keys: Float[Array, "b w n h p"]
    values: Float[Array, "b w n h p"]
    position: Int[Array, " b"]


class WindowAttention(nn.Module):
    """See the module's docstring. ``window`` is W, in frames."""

    heads: int = 4
    window: int = 32

    def initial(self, batch_size: int, cells: int, width: int) -> Cache:
        if width % (2 * self.heads):
            raise UserError(
                f"transformer: width {width} is not a multiple of twice its {self.heads} heads, as "
                "rotary positions need; change one."
            )
        shape = (batch_size, self.window, cells, self.heads, width // self.heads)
        return Cache(jnp.zeros(shape), jnp.zeros(shape), jnp.zeros((batch_size,), jnp.int32))

    def fresh(self, batch_size: int, cells: int, width: int) -> Cache:
        """`initial` without its places: a window that starts so has no keys from before it."""
        cache = self.initial(batch_size, cells, width)
        return cache._replace(keys=cache.keys[:, :0], values=cache.values[:, :0])

    @nn.compact
    def __call__(
        self, x: Float[Array, "b t n d"], cache: Cache, is_first: Bool[Array, "b t"]
    ) -> tuple[Float[Array, "b t n d"], Cache]:
        """The addition, and the cache after the last step."""
        read = Dense(3 * x.shape[-1], use_bias=False, dot_general=narrow_dot_general)
        q, k, v = jnp.split(read(nn.RMSNorm()(x)), 3, -1)
        q, k, v = (y.reshape(*x.shape[:-1], self.heads, -1) for y in (q, k, v))
        empty = self.initial(x.shape[0], x.shape[2], x.shape[3])
        if cache.keys.shape[1] == 0 and not 1 < x.shape[1] <= self.window:
            cache = empty
        positions = wrapped(since_start(is_first, cache.position), self.window)
        q = turned(nn.RMSNorm(name="q_norm")(q), positions, self.window)
        k = turned(nn.RMSNorm(name="k_norm")(k), positions, self.window)
        if x.shape[1] == 1:
            out, cache = one_step(q, k, v, reset(cache, empty, is_first[:, 0]))
        else:
            out, cache = whole_window(q, k, v, cache, is_first, positions[:, -1], self.window)
        return Dense(x.shape[-1], use_bias=False)(out.reshape(x.shape)), cache


def one_step(q, k, v, cache: Cache) -> tuple[Float[Array, "b t n h p"], Cache]:
    """A frame takes its place in the ring and reads all that are filled; q, k and v have t = 1."""
    window = cache.keys.shape[1]
    places = jnp.arange(window)
    here = (places == cache.position[:, None] % window)[..., None, None, None]
    keys, values = jnp.where(here, k, cache.keys), jnp.where(here, v, cache.values)
    filled = places <= cache.position[:, None]
    out = attend(q, keys, values, filled[:, None])
    return out, Cache(keys, values, wrapped(cache.position + 1, window))


def whole_window(
    q, k, v, cache: Cache, is_first, last, window: int
) -> tuple[Float[Array, "b t n h p"], Cache]:
    """All frames of a window at once; ``last`` (b,) is the position of its last frame. The cache
    has ``window`` places, or none: then nothing came before, and t ≤ ``window``."""
    before = cache.keys.shape[1]
    age = jnp.arange(before - 1, -1, -1)  # before the window, oldest first
    filled = age < cache.position[:, None]
    places = (cache.position[:, None] - 1 - age) % window
    segment = jnp.cumsum(is_first, 1, dtype=jnp.int32)
    past = (
        _take(cache.keys, places),
        _take(cache.values, places),
        jnp.where(filled, 0, -1),  # the segment of what was carried in, and of empty places
    )

    def body(past, inputs):
        q, *new = inputs
        keys, values, of_key = (jnp.concatenate(x, 1) for x in zip(past, new, strict=True))
        lag = jnp.arange(q.shape[1])[:, None] + before - jnp.arange(keys.shape[1])
        seen = (lag >= 0) & (lag < window) & (new[-1][:, :, None] == of_key[:, None])
        return tuple(x[:, -window:] for x in (keys, values, of_key)), attend(q, keys, values, seen)

    _, out = scan_chunks(body, past, (q, k, v, segment), window)
    keys, values, of_key = (
        _lengthened(jnp.concatenate([x, y[:, -window:]], 1)[:, -window:], window)
        for x, y in zip(past, (k, v, segment), strict=True)
    )
    place_age = (last[:, None] - jnp.arange(window)) % window
    order = window - 1 - place_age
    held = jnp.take_along_axis(of_key, order, 1) == segment[:, -1:]
    keys, values = (
        jnp.where(held[..., None, None, None], _take(x, order), 0.0) for x in (keys, values)
    )
    return out, Cache(keys, values, wrapped(last + 1, window))


def attend(
    q: Float[Array, "b t n h p"],
    keys: Float[Array, "b s n h p"],
    values: Float[Array, "b s n h p"],
    seen: Bool[Array, "b t s"],
) -> Float[Array, "b t n h p"]:
    """Softmax attention over ``seen`` keys, of which every query must have one."""
    scores = einsum("btnhp,bsnhp->bnhts", q, keys, narrow=True).astype(q.dtype)
    scores = jnp.where(seen[:, None, None], scores / math.sqrt(q.shape[-1]), -jnp.inf)
    return einsum("bnhts,bsnhp->btnhp", jax.nn.softmax(scores, -1), values, narrow=True)


def cycle(window: int) -> int:
    """M: positions that are equal modulo this are the same angles and places in the ring."""
    return window * math.ceil(4096 / window)


def wrapped(position: Int[Array, "*lead"], window: int) -> Int[Array, "*lead"]:
    """Positions below M as they are, those above between M and 2M: the ring is full there."""
    turn = cycle(window)
    return jnp.where(position < turn, position, turn + position % turn)


def turned(
    x: Float[Array, "b t n h p"], positions: Int[Array, "b t"], window: int
) -> Float[Array, "b t n h p"]:
    """R_t x: feature i with feature i + p/2 as a plane, turned by t θ_i (RoFormer 34)."""
    turn, planes = cycle(window), x.shape[-1] // 2
    steps = np.rint(turn / (2 * np.pi) * np.geomspace(1, 1 / window, planes)).astype(np.int32)
    whole = (positions[..., None] % turn) * steps % turn  # below M², which an int32 holds
    angle = (2 * np.pi / turn * whole)[:, :, None, None]
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    a, b = jnp.split(x, 2, -1)
    return jnp.concatenate([a * cos - b * sin, a * sin + b * cos], -1)


def _lengthened(x, places: int):
    """(b, w, …) with places in front that hold -1 (a segment that no frame is in)."""
    sides = [(0, 0), (places - x.shape[1], 0)] + [(0, 0)] * (x.ndim - 2)
    return jnp.pad(x, sides, constant_values=-1)


def _take(x: Float[Array, "b w n h p"], order: Int[Array, "b w"]) -> Float[Array, "b w n h p"]:
    return jnp.take_along_axis(x, order[..., None, None, None], 1)


class Transformer(Parallel):
    """``heads`` and ``window`` are the layers'; the other fields are those of `Parallel`."""

    heads: int = 4
    window: int = 32

    def time_layer(self) -> WindowAttention:
        return WindowAttention(self.heads, self.window, parent=None)
