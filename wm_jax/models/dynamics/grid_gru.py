"""A gated recurrence over a grid of cells with local mixing inside the gates.

The state is one vector a cell, h (b, n, d). A step is a prediction and, where a frame is seen, a
correction, as in a Kalman filter; imagination is the same step without the correction, so nothing
changes for the prediction when frames stop coming:

  predict   k  = a ⊙ silu(b),  [a, b] = W ∗ norm(h) + V c          ∗: mixing of the cells
            k  ← k + a' ⊙ silu(b'),  [a', b'] = W' norm(k)         as often as ``depth`` says
            u, v = W_o norm(k)
            h⁻ = h + σ(u − keep) ⊙ (tanh(v) − h)
  correct   g, e = W_e [h⁻, x]
            h  = h⁻ + σ(g) ⊙ (tanh(e) − h⁻)

A cell does not know where it lies. With ``places``, [a, b] have a term in sines of its place, so
that the products know whether what is told means this cell.

∗ is 3×3 or, with ``mixing`` 'attention', attention over all cells in ``mixing_heads`` heads.
c is what the step is told, x the embedding of the frame. It is a ConvGRU (Ballas et al. 2016) whose
reset gate became a gated linear unit (Shazeer 2020): products of two linear forms of the
neighbourhood, which is what shifting a pattern by a velocity needs.

The posterior reads the carry (the correction sees h⁻), so what is hidden can live there; from the
frame alone, with the state itself as what is decoded, there would be no memory. Nothing
here is linear in h, so `scan` is sequential; what doesn't depend on h is hoisted out of it.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from wm_jax.models.dynamics.contract import Output, reset
from wm_jax.models.dynamics.space import check_mixing, mixer
from wm_jax.nn.compute import over_time
from wm_jax.nn.dense import Dense
from wm_jax.nn.grid import addresses, waves


class GridGRU(nn.Module):
    """See the module's docstring. ``width`` is d, ``hidden`` the size of k; at first a share
    σ(−``keep``) of the state changes in a step."""

    cells: tuple[int, int]
    width: int = 64
    hidden: int = 128
    depth: int = 1
    keep: float = 1.0
    mixing: str = "local"
    mixing_heads: int = 4
    places: bool = False
    posterior_reads_carry = True

    def check(self) -> None:
        check_mixing(self.mixing, self.width, self.mixing_heads)

    def setup(self) -> None:
        self.norm = nn.RMSNorm(epsilon=1e-2)
        self.mix = mixer(self.mixing, self.cells, 2 * self.hidden, self.mixing_heads)
        self.blocks = [Dense(2 * self.hidden) for _ in range(self.depth)]
        self.norms = [nn.RMSNorm() for _ in range(self.depth + 1)]
        self.out = Dense(2 * self.width)
        self.told_in = Dense(2 * self.hidden, use_bias=False)
        if self.places:
            self.place_in = Dense(2 * self.hidden, use_bias=False)
        self.seen_in = Dense(2 * self.width)
        self.correct_in = Dense(2 * self.width, use_bias=False)

    def initial(self, batch_size: int) -> Float[Array, "b n d"]:
        return jnp.zeros((batch_size, self.cells[0] * self.cells[1], self.width))

    def tokens(self, carry):
        return carry

    def step(self, carry, embedding, observed, told, key):
        seen = None if embedding is None else self.seen_in(embedding)
        return self._step(carry, seen, observed, self.told_in(told))

    def scan(
        self,
        carry: Float[Array, "b n d"],
        embeddings: Float[Array, "b t n e"],
        observed: Bool[Array, "b t"] | None,
        told: Float[Array, "b t k"],
        is_first: Bool[Array, "b t"],
        keys: jax.Array | None,
    ):
        fresh = self.initial(embeddings.shape[0])
        if observed is None:
            observed = jnp.ones(embeddings.shape[:2], bool)

        def body(module, carry, inputs):
            seen, observed, told, is_first = inputs
            return module._step(reset(carry, fresh, is_first), seen, observed, told)

        inputs = (self.seen_in(embeddings), observed, self.told_in(told), is_first)
        return over_time(body)(self, carry, inputs)

    def _step(self, h, seen, observed, told):
        prior = self.predict(h, told)
        h = prior if seen is None else self.correct(prior, seen, observed)
        return h, Output(tokens=h, prior=prior, terms={})

    def predict(self, h, told):
        told = told[:, None]
        if self.places:
            told = told + self.place_in(waves(addresses(self.cells)))
        hidden = gated(self.mix(self.norm(h)) + told)
        for norm, block in zip(self.norms, self.blocks, strict=False):
            hidden = hidden + gated(block(norm(hidden)))
        update, value = jnp.split(self.out(self.norms[-1](hidden)), 2, -1)
        return h + nn.sigmoid(update - self.keep) * (jnp.tanh(value) - h)

    def correct(self, prior, seen, observed):
        gate, value = jnp.split(self.correct_in(prior) + seen, 2, -1)
        gate = nn.sigmoid(gate)
        if observed is not None:
            gate = gate * observed[:, None, None]
        return prior + gate * (jnp.tanh(value) - prior)


def gated(x: Float[Array, "*lead two_f"]) -> Float[Array, "*lead f"]:
    """A gated linear unit: one half times the SiLU of the other (Shazeer 2020)."""
    value, gate = jnp.split(x, 2, -1)
    return value * nn.silu(gate)
