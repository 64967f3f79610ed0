"""Mamba-2: matrix memories that decay by one number a head, in chunks of matrix products, per cell.

Dao & Gu 2024, "Transformers are SSMs: Generalized Models and Efficient Algorithms Through
Structured State Space Duality", arXiv 2405.21060. Numbers in brackets are its equations.

A selective state-space model (2) is h_t = A_t h_{t-1} + B_t x_t, y_t = C_tᵀ h_t with A, B and C
functions of the input. Here A_t = a_t I (the restriction that makes the duality), and each of H
heads has P inputs that share B_t and C_t ∈ R^N, so that a head's memory is a matrix

  S_t = a_t S_{t-1} + Δ_t x_t B_tᵀ  ∈ R^{P×N}        y_t = S_t C_t + D x_t

  a_t = exp(Δ_t A)      Δ_t = softplus(w u_t + b)      A < 0, one a head, learned.

**Dual form.** Unrolled, y = M x with the semiseparable matrix (3)

  M_ts = (C_tᵀ B_s) a_t a_{t-1} … a_{s+1} Δ_s   for s ≤ t, else 0:

attention with a decay in the place of the softmax, masked by L (the products of a).

**Chunks** (section 6, theorem 6.1). Time is cut into chunks of c steps. With g_t = a_t … a_{c₀} the
decay since a chunk's begin and S the memory it is handed,

  inside      y_t  = Σ_{s ≤ t} L_ts (C_tᵀ B_s) Δ_s x_s            the diagonal blocks of M
  from before y_t += g_t S C_t                                     those below
  onwards     S   ← g_last S + Σ_s L_{last,s} Δ_s x_s B_sᵀ         what they are built from

are four products of small matrices; only the last depends on the chunk before. Work and memory grow
linearly with time. A step is a chunk of one.

**Reset.** L_ts is zero if a start lies after s up to t, and g_t if one lies anywhere up to t;
log-sums restart there too (`wm_jax.nn.chunks`), so nothing crosses, not even a rounding.

**Block** (section 7). One projection makes z, (x, B, C) and Δ in parallel; x, B and C pass a causal
convolution of four steps and a SiLU; the output is gated and then normalised, W norm(y ⊙ SiLU(z)).
The width inside is the stream's, where the paper doubles it: the stack around a layer has wide
mixing of its own. Half-lives start from 1 to 64 frames (`HeadDecay`).

A carry holds d·N floats of memory and three steps of (x, B, C), 3 (d + 2N), a cell and layer.
"""

from __future__ import annotations

from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from wm_jax.errors import UserError
from wm_jax.models.dynamics.parallel import Parallel
from wm_jax.nn.chunks import decays, scan_chunks, segments
from wm_jax.nn.dense import Dense
from wm_jax.nn.head_decay import HeadDecay
from wm_jax.nn.short_convolution import ShortConvolution


class Mamba2State(NamedTuple):
    """The heads' memories and the last steps that the convolution needs."""

    memory: Float[Array, "b n h p s"]
    recent: Float[Array, "b taps n c"]


class Mamba2Layer(nn.Module):
    """See the module's docstring. ``state`` is N; ``chunk`` the longest chunk, in steps."""

    heads: int = 4
    state: int = 16
    chunk: int = 16

    def initial(self, batch_size: int, cells: int, width: int) -> Mamba2State:
        if width % self.heads:
            raise UserError(
                f"mamba2: width {width} is not a multiple of {self.heads} heads; change one."
            )
        memory = jnp.zeros((batch_size, cells, self.heads, width // self.heads, self.state))
        recent = ShortConvolution.initial(batch_size, cells, width + 2 * self.state)
        return Mamba2State(memory, recent)

    @nn.compact
    def __call__(
        self, x: Float[Array, "b t n d"], state: Mamba2State, is_first: Bool[Array, "b t"]
    ) -> tuple[Float[Array, "b t n d"], Mamba2State]:
        """The addition, and the state after the last step."""
        width, size = x.shape[-1], self.state
        projected = Dense(2 * (width + size) + self.heads, use_bias=False)(nn.RMSNorm()(x))
        z, mixed, raw = jnp.split(projected, [width, 2 * (width + size)], -1)
        mixed, recent = ShortConvolution()(mixed, state.recent, is_first)
        v, b, c = jnp.split(nn.silu(mixed), [width, width + size], -1)
        step, log_a = HeadDecay()(raw)
        v = v.reshape(*v.shape[:-1], self.heads, width // self.heads)
        y, memory = ssd(step[..., None] * v, b, c, log_a, state.memory, is_first, self.chunk)
        y += self.param("D", nn.initializers.ones, (self.heads,))[:, None] * v
        y = nn.RMSNorm()(y.reshape(x.shape) * nn.silu(z))
        return Dense(width, use_bias=False)(y), Mamba2State(memory, recent)


def ssd(
    x: Float[Array, "b t n h p"],
    b: Float[Array, "b t n s"],
    c: Float[Array, "b t n s"],
    log_a: Float[Array, "b t n h"],
    memory: Float[Array, "b n h p s"],
    is_first: Bool[Array, "b t"],
    chunk: int,
) -> tuple[Float[Array, "b t n h p"], Float[Array, "b n h p s"]]:
    """S_t = a_t S_{t-1} + x_t b_tᵀ, y_t = S_t c_t in chunks; S_{t-1} is zero if ``is_first``."""

    def body(memory, inputs):
        x, b, c, log_a, is_first = inputs
        decay = decays(log_a, segments(is_first))
        scores = jnp.einsum("btns,brns->bntr", c, b)
        y = jnp.einsum("bnhtr,brnhp->btnhp", decay.pairs * scores[:, :, None], x)
        before = jnp.einsum("bnhps,btns->btnhp", memory, c)
        y += jnp.moveaxis(decay.carry, -1, 1)[..., None] * before
        left = jnp.moveaxis(decay.pairs[..., -1, :], -1, 1)[..., None] * x
        memory = decay.carry[..., -1, None, None] * memory
        return memory + jnp.einsum("brnhp,brns->bnhps", left, b), y

    memory, y = scan_chunks(body, memory, (x, b, c, log_a, is_first), chunk)
    return y, memory


class Mamba2(Parallel):
    """``heads``, ``state`` and ``chunk`` are the layers'; the other fields those of `Parallel`."""

    heads: int = 4
    state: int = 16
    chunk: int = 16

    def time_layer(self) -> Mamba2Layer:
        return Mamba2Layer(self.heads, self.state, self.chunk, parent=None)
