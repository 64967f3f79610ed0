"""Slots that are learned: attention in which slots compete for the frame, carried over time.

The state is k slots (b, k, d). A step is a prediction and, where a frame is seen, a correction:

  predict   y  = block([s + V c])                 attention among the slots, c what the step is told
            u, v = W_p norm(y)
            s⁻ = s + σ(u − keep) ⊙ (tanh(v) − s)
  correct   A  = softmax over slots of (W_q norm(s⁻))ᵀ W_k x / √d      x: cells, with their places
            w  = A / Σ_cells A
            s  = GRU(Σ_cells w · W_v x, s⁻);  s ← s + MLP(norm(s))       ``iterations`` times

The correction is slot attention (Locatello et al. 2020, arXiv 2006.15055, algorithm 1). That it
starts from the slots of the frame before is what keeps an object in its slot (SAVi, Kipf et al.
2021, arXiv 2111.12594); attention among slots as the prediction, imagined by feeding it back to
itself, is theirs and SlotFormer's (Wu et al. 2022, arXiv 2210.05861; it also reads the slots of
several earlier frames, here one state has to hold them). Two things differ: the prediction is
gated, so that a long rollout stays bounded, and slots start from learned vectors rather than random
ones, so that encoding is deterministic. The carry holds how far a slot is from its start: zeros are
the start, and a reset needs no weights.

A slot's address is the mean place of the cells that it won, each by its share, as last seen.
"""

from __future__ import annotations

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from wm_jax.models.dynamics.contract import Output, reset
from wm_jax.nn.attention import AttentionBlock, sine_positions
from wm_jax.nn.compute import over_time
from wm_jax.nn.dense import Dense
from wm_jax.nn.grid import addresses
from wm_jax.nn.mlp import MLP

#: Added to a cell's share, so that a slot that wins nothing divides by more than nothing.
SOME = 1e-6


class Slots(NamedTuple):
    """moved: how far a slot is from its start; place: mean place of its cells, x, y in [0, 1]."""

    moved: Float[Array, "b k d"]
    place: Float[Array, "b k 2"]


class SlotAttention(nn.Module):
    """See the module's docstring. Its decoder is 'mixture'.

    slots: k, objects and backdrop       width: d, a multiple of ``heads`` and of four
    hidden: of the layer after the GRU   iterations: of the correction, a frame
    keep: at first a share σ(−keep) of a slot changes in a prediction
    """

    cells: tuple[int, int]
    slots: int = 7
    width: int = 64
    hidden: int = 128
    heads: int = 4
    iterations: int = 1
    keep: float = 2.0
    posterior_reads_carry = True

    def setup(self) -> None:
        start = nn.initializers.normal(0.5)
        self.start = self.param("start", start, (self.slots, self.width))
        self.told_in = Dense(self.width, use_bias=False)
        self.block = AttentionBlock(self.heads)
        self.predict_norm = nn.RMSNorm(epsilon=1e-2)
        self.predict_out = Dense(2 * self.width)
        self.cell_in, self.cell_place = Dense(self.width), Dense(self.width, use_bias=False)
        self.cell_norm = nn.RMSNorm(epsilon=1e-2)
        self.cell_mlp = MLP((self.width, self.width))
        self.key_value = Dense(2 * self.width, use_bias=False)
        self.query_norm, self.query = nn.RMSNorm(epsilon=1e-2), Dense(self.width, use_bias=False)
        self.gates, self.update = Dense(3 * self.width), Dense(3 * self.width, use_bias=False)
        self.mlp_norm, self.mlp = nn.RMSNorm(epsilon=1e-2), MLP((self.hidden, self.width), 0.5)

    def initial(self, batch_size: int) -> Slots:
        moved = jnp.zeros((batch_size, self.slots, self.width))
        return Slots(moved, jnp.full((batch_size, self.slots, 2), 0.5))

    def tokens(self, carry: Slots) -> Float[Array, "b n d"]:
        return self.start + carry.moved

    def address(self, carry: Slots) -> Float[Array, "b n 2"]:
        """Where each slot was last seen."""
        return carry.place

    def step(self, carry, embedding, observed, told, key):
        seen = None if embedding is None else self._read(embedding)
        return self._step(carry, seen, observed, self.told_in(told))

    def scan(
        self,
        carry: Slots,
        embeddings: Float[Array, "b t n e"],
        observed: Bool[Array, "b t"] | None,
        told: Float[Array, "b t k"],
        is_first: Bool[Array, "b t"],
        keys: jax.Array | None,
    ) -> tuple[Slots, Output]:
        """Sequential; what is read off frames is hoisted out."""
        fresh = self.initial(is_first.shape[0])

        def body(module, carry, inputs):
            seen, observed, told, is_first = inputs
            return module._step(reset(carry, fresh, is_first), seen, observed, told)

        inputs = (self._read(embeddings), observed, self.told_in(told), is_first)
        return over_time(body)(self, carry, inputs)

    def _read(self, embeddings: Float[Array, "*lead n e"]):
        """Keys and values of the cells, (…, n, d) each."""
        places = sine_positions(addresses(self.cells), self.width)
        x = self.cell_norm(self.cell_in(embeddings) + self.cell_place(places))
        return jnp.split(self.key_value(self.cell_mlp(x)), 2, -1)

    def _step(self, carry, seen, observed, told):
        prior = self._predict(carry, told)
        after = prior
        if seen is not None:
            after = self._correct(prior, *seen)
            after = after if observed is None else reset(prior, after, observed)
        return after, Output(self.tokens(after), self.tokens(prior), {})

    def _predict(self, carry: Slots, told: Float[Array, "b d"]) -> Slots:
        slots = self.tokens(carry)
        changed = self.predict_norm(self.block(slots + told[:, None]))
        update, value = jnp.split(self.predict_out(changed), 2, -1)
        slots = slots + nn.sigmoid(update - self.keep) * (jnp.tanh(value) - slots)
        return carry._replace(moved=slots - self.start)

    def _correct(self, prior: Slots, key, value) -> Slots:
        slots = self.tokens(prior)
        for _ in range(self.iterations):
            share = cell_shares(self.query(self.query_norm(slots)), key)
            slots = self._gru(slots, share @ value)
            slots = slots + self.mlp(self.mlp_norm(slots))
        return Slots(slots - self.start, share @ addresses(self.cells))

    def _gru(self, slots, found):
        """A gated recurrent unit (Cho et al. 2014), input ``found``."""
        keep, mix, value = jnp.split(self.gates(found), 3, -1)
        keep_slot, mix_slot, value_slot = jnp.split(self.update(slots), 3, -1)
        keep = nn.sigmoid(keep + keep_slot)
        value = jnp.tanh(value + nn.sigmoid(mix + mix_slot) * value_slot)
        return value + keep * (slots - value)


def cell_shares(query: Float[Array, "b k d"], key: Float[Array, "b n d"]) -> Float[Array, "b k n"]:
    """How much of each slot's reading comes from each cell: slots compete for a cell, and what a
    slot won sums to one."""
    logits = (query @ jnp.swapaxes(key, -1, -2)).astype(jnp.float32) * query.shape[-1] ** -0.5
    won = jax.nn.softmax(logits, -2) + SOME
    return won / won.sum(-1, keepdims=True)
