"""Gated DeltaNet: matrix memories that replace what a key held, and forget, in chunks, per cell.

Yang, Kautz & Hatamizadeh 2024, "Gated Delta Networks: Improving Mamba2 with Delta Rule", arXiv
2412.06464; its parallel form extends Yang et al. 2024, "Parallelizing Linear Transformers with the
Delta Rule over Sequence Length", arXiv 2406.06484. Numbers in brackets are equations of the first.

A head's memory S ∈ R^{V×K} maps keys to values. A step forgets by α_t, takes out what the memory
answers to the key k_t and puts in β_t of the new value instead (10):

  S_t = α_t S_{t-1} (I − β_t k_t k_tᵀ) + β_t v_t k_tᵀ        o_t = S_t q_t

with ‖k_t‖ = ‖q_t‖ = 1, 0 < α_t, β_t < 1. It is one step of gradient descent at rate β_t on
½‖S k_t − v_t‖², after decay (table 1 of the paper); so a key written twice is replaced, not summed
as in Mamba-2. With β_t = 1 and α_t = 1 the memory answers k_t with v_t exactly.

**Parallel form.** Written with what a step really adds, u_t (the "pseudo-value"),

  S_t = α_t S_{t-1} + u_t k_tᵀ        u_t = β_t (v_t − α_t S_{t-1} k_t).

Within a chunk that is handed S, with γ_t = α_t … α_{c₀} and Γ_ts = α_t … α_{s+1} for s ≤ t, else 0,

  S_t = γ_t S + Σ_{s ≤ t} Γ_ts u_s k_sᵀ
  u_t = β_t (v_t − γ_t S k_t) − β_t Σ_{s < t} Γ_ts (k_sᵀ k_t) u_s,

a unit lower triangular system (the WY representation of a product of Householder-like matrices),

  (I + T) U = diag(β) (V − diag(γ) K Sᵀ)        T_ts = β_t Γ_ts k_tᵀ k_s  for s < t

which `wm_jax.nn.unit_triangular` solves by matrix products; and then, all of them products too,

  O = diag(γ) Q Sᵀ + (Γ ⊙ Q Kᵀ) U        S ← γ_last S + Σ_s Γ_{last,s} u_s k_sᵀ.

Work and memory grow linearly with time. A step is a chunk of one, where I + T = 1.

**Reset.** Γ_ts is zero if a start lies after s up to t, γ_t if one lies anywhere up to t. So T is
block diagonal and its inverse too, with exact zeros between; log-sums restart there
(`wm_jax.nn.chunks`). Nothing crosses, not even a rounding.

**Block** (section 3.4). q, k and v pass a causal convolution of four steps and a SiLU; q and k are
normalised a head; α as in Mamba-2 (`HeadDecay`, half-lives from 1 to 64 frames at the start), β a
sigmoid; the output is normalised a head, gated by SiLU and projected. All heads are d/H wide, keys
and values alike.

A carry holds d²/H floats of memory and three steps of (q, k, v), 9 d, a cell and layer.
"""

from __future__ import annotations

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from wm_jax.errors import UserError
from wm_jax.models.dynamics.parallel import Parallel
from wm_jax.nn.chunks import decays, scan_chunks, segments
from wm_jax.nn.dense import Dense
from wm_jax.nn.head_decay import HeadDecay
from wm_jax.nn.short_convolution import ShortConvolution
from wm_jax.nn.unit_triangular import inverse


class GatedDeltaState(NamedTuple):
    """The heads' memories and the last steps that the convolution needs."""

    memory: Float[Array, "b n h v k"]
    recent: Float[Array, "b taps n c"]


class GatedDeltaLayer(nn.Module):
    """See the module's docstring. ``chunk`` is the longest chunk, in steps."""

    heads: int = 4
    chunk: int = 16

    def initial(self, batch_size: int, cells: int, width: int) -> GatedDeltaState:
        if width % self.heads:
            raise UserError(
                f"gated_delta: width {width} is not a multiple of {self.heads} heads; change one."
            )
        size = width // self.heads
        memory = jnp.zeros((batch_size, cells, self.heads, size, size))
        return GatedDeltaState(memory, ShortConvolution.initial(batch_size, cells, 3 * width))

    @nn.compact
    def __call__(
        self, x: Float[Array, "b t n d"], state: GatedDeltaState, is_first: Bool[Array, "b t"]
    ) -> tuple[Float[Array, "b t n d"], GatedDeltaState]:
        """The addition, and the state after the last step."""
        width, heads = x.shape[-1], self.heads
        projected = Dense(4 * width + 2 * heads, use_bias=False)(nn.RMSNorm()(x))
        splits = [3 * width, 4 * width, 4 * width + heads]
        mixed, gate, raw_decay, raw_rate = jnp.split(projected, splits, -1)
        mixed, recent = ShortConvolution()(mixed, state.recent, is_first)
        mixed = nn.silu(mixed).reshape(*x.shape[:-1], 3 * heads, width // heads)
        q, k, v = jnp.split(mixed, 3, -2)
        _, log_a = HeadDecay()(raw_decay)
        inputs = (_unit(q), _unit(k), v, log_a, nn.sigmoid(raw_rate))
        out, memory = gated_delta_rule(*inputs, state.memory, is_first, self.chunk)
        out = nn.RMSNorm()(out).reshape(x.shape) * nn.silu(gate)
        return Dense(width, use_bias=False)(out), GatedDeltaState(memory, recent)


def gated_delta_rule(
    q: Float[Array, "b t n h k"],
    k: Float[Array, "b t n h k"],
    v: Float[Array, "b t n h v"],
    log_a: Float[Array, "b t n h"],
    rate: Float[Array, "b t n h"],
    memory: Float[Array, "b n h v k"],
    is_first: Bool[Array, "b t"],
    chunk: int,
) -> tuple[Float[Array, "b t n h v"], Float[Array, "b n h v k"]]:
    """o_t = S_t q_t for all t, in chunks, and the last S; α = exp(log_a), β = ``rate``.

    S starts at zero if ``is_first``, where ``v`` alone is written: α does not matter there."""

    def body(memory, inputs):
        q, k, v, log_a, rate, is_first = inputs
        q, k, v = (jnp.moveaxis(y, 1, 3) for y in (q, k, v))  # (b, n, h, c, k)
        rate = jnp.moveaxis(rate, 1, 3)[..., None]
        decay = decays(log_a, segments(is_first))
        carry = decay.carry[..., None]
        keys, queries = (jnp.einsum("bnhtk,bnhrk->bnhtr", y, k) * decay.pairs for y in (k, q))
        answer = carry * jnp.einsum("bnhtk,bnhvk->bnhtv", k, memory)
        u = inverse(jnp.tril(rate * keys, -1)) @ (rate * (v - answer))
        out = carry * jnp.einsum("bnhtk,bnhvk->bnhtv", q, memory) + queries @ u
        left = decay.pairs[..., -1, :, None] * u
        memory = carry[..., -1:, :] * memory + jnp.einsum("bnhrv,bnhrk->bnhvk", left, k)
        return memory, jnp.moveaxis(out, 3, 1)

    memory, out = scan_chunks(body, memory, (q, k, v, log_a, rate, is_first), chunk)
    return out, memory


def _unit(x: Float[Array, "*lead k"]) -> Float[Array, "*lead k"]:
    return x * jax.lax.rsqrt(jnp.square(x).sum(-1, keepdims=True) + 1e-6)


class GatedDelta(Parallel):
    """``heads`` and ``chunk`` are the layers'; the other fields are those of `Parallel`."""

    heads: int = 4
    chunk: int = 16

    def time_layer(self) -> GatedDeltaLayer:
        return GatedDeltaLayer(self.heads, self.chunk, parent=None)
