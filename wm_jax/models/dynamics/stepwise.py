"""The start of a backbone that has no way of its own to be parallel over time."""

from __future__ import annotations

import flax.linen as nn
import jax
from jaxtyping import Array, Bool, Float, PyTree

from wm_jax.models.dynamics.contract import reset
from wm_jax.nn.compute import over_time


class Stepwise(nn.Module):
    """`Dynamics` with `scan` as repeated `step`, and the carry itself as the tokens.

    A subclass adds ``initial`` and ``step``, and ``tokens`` where its carry is not (b, n, d).
    """

    cells: tuple[int, int]
    posterior_reads_carry = True

    def tokens(self, carry: PyTree) -> Float[Array, "b n d"]:
        return carry

    def scan(
        self,
        carry: PyTree,
        embeddings: Float[Array, "b t n e"],
        observed: Bool[Array, "b t"] | None,
        told: Float[Array, "b t k"],
        is_first: Bool[Array, "b t"],
        keys: jax.Array | None,
    ) -> tuple[PyTree, PyTree]:
        fresh = self.initial(embeddings.shape[0])

        def body(module, carry, inputs, key):
            embedding, observed, told, is_first = inputs
            return module.step(reset(carry, fresh, is_first), embedding, observed, told, key)

        return over_time(body, in_axes=(1, 0))(
            self, carry, (embeddings, observed, told, is_first), keys
        )
