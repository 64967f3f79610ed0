"""Tokens to frames, each cell its own patch: a two-layer perceptron shared by all cells."""

from __future__ import annotations

import flax.linen as nn
from jaxtyping import Array, Float

from wm_jax.nn.dense import Dense
from wm_jax.nn.grid import from_patches


class PatchDecoder(nn.Module):
    """(…, n, d) → (…, h, w, 3), unbounded around [0, 1]; the caller clips what it shows.

    A vector state (n = 1) is first spread over the cells by ``spread``.
    """

    cells: tuple[int, int]
    patch: int
    hidden: int
    spread: nn.Module | None = None

    @nn.compact
    def __call__(
        self, tokens: Float[Array, "*lead n d"], predicted: bool = False
    ) -> Float[Array, "*lead h w c"]:
        if self.spread is not None:
            tokens = self.spread(tokens)
        x = nn.silu(Dense(self.hidden)(tokens))
        x = Dense(self.patch**2 * 3)(x) + 0.5
        return from_patches(x, self.cells, self.patch)
