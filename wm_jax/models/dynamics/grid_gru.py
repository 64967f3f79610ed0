"""A gated recurrence over a grid of cells with local mixing inside the gates.

The state is one vector a cell, h (b, n, d). A step is a prediction and, where a frame is seen, a
correction, as in a Kalman filter; imagination is the same step without the correction, so the two
never drift apart:

  predict   r, u = σ(W_g ∗ h + V_g c)          ∗ is a 3×3 convolution over the cells,
            k    = φ(W_k ∗ (r ⊙ h) + V_k c)     c what the step is told
            h⁻   = h + u ⊙ (tanh(W_o k) − h)    (ConvGRU, Ballas et al. 2016, eq. 5–8, with a
                                                 hidden layer k between candidate and gate)
  correct   g, e = W_e [h⁻, x]                  x the embedding of the frame
            h    = h⁻ + σ(g) ⊙ (tanh(e) − h⁻)

The posterior reads the carry (the correction sees h⁻), so that what is hidden can live there.
It is not linear in h, so `scan` is sequential; what doesn't depend on h is hoisted out of it.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from wm_jax.models.dynamics.contract import Output, reset
from wm_jax.nn.grid import GridMix


class GridGRU(nn.Module):
    """See the module's docstring. ``width`` is d; ``hidden`` is the size of k."""

    cells: tuple[int, int]
    width: int = 48
    hidden: int = 96
    posterior_reads_carry = True

    def setup(self) -> None:
        self.gates = GridMix(self.cells, 2 * self.width)
        self.candidate = GridMix(self.cells, self.hidden)
        self.out = nn.Dense(self.width)
        self.told_in = nn.Dense(2 * self.width + self.hidden, use_bias=False)
        self.seen_in = nn.Dense(2 * self.width)
        self.correct_in = nn.Dense(2 * self.width, use_bias=False)

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
        observed: Bool[Array, "b t"],
        told: Float[Array, "b t k"],
        is_first: Bool[Array, "b t"],
        keys: jax.Array | None,
    ):
        fresh = self.initial(embeddings.shape[0])
        seen, told = self.seen_in(embeddings), self.told_in(told)

        def body(module, carry, inputs):
            seen, observed, told, is_first = inputs
            return module._step(reset(carry, fresh, is_first), seen, observed, told)

        scan = nn.scan(
            body, variable_broadcast="params", split_rngs={"params": False}, in_axes=1, out_axes=1
        )
        return scan(self, carry, (seen, observed, told, is_first))

    def _step(self, h, seen, observed, told):
        prior = self._predict(h, told)
        h = prior if seen is None else self._correct(prior, seen, observed)
        return h, Output(tokens=h, prior=prior, terms={})

    def _predict(self, h, told):
        told_gates, told_candidate = jnp.split(told[:, None], [2 * self.width], -1)
        keep, update = jnp.split(self.gates(h) + told_gates, 2, -1)
        keep, update = nn.sigmoid(keep), nn.sigmoid(update - 1.0)  # starts by mostly keeping
        hidden = nn.silu(self.candidate(keep * h) + told_candidate)
        return h + update * (jnp.tanh(self.out(hidden)) - h)

    def _correct(self, prior, seen, observed):
        gate, value = jnp.split(self.correct_in(prior) + seen, 2, -1)
        gate = nn.sigmoid(gate)
        if observed is not None:
            gate = gate * observed[:, None, None]
        return prior + gate * (jnp.tanh(value) - prior)
