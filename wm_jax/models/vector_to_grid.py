"""From a vector state to a grid of cells, for a decoder that starts on one (DreamerV3)."""

from __future__ import annotations

import flax.linen as nn
from jaxtyping import Array, Float

from wm_jax.nn.block_dense import BlockDense, fan_in
from wm_jax.nn.dense import Dense


class VectorToGrid(nn.Module):
    """(…, 1, d) → (…, n, features), n = rows · columns, activated.

    The first ``deter`` entries of the vector are recurrent and come in ``blocks`` blocks: block i
    makes features i, i + 1, … of every cell, by a block-diagonal layer. The rest (the one-hot
    variables) goes through two dense layers, the first of 2 · ``units``. The sum is normalised.
    ``features`` and ``deter`` must be multiples of ``blocks``.
    """

    cells: tuple[int, int]
    features: int
    deter: int = 512
    blocks: int = 8
    units: int = 64

    @nn.compact
    def __call__(self, tokens: Float[Array, "*lead 1 d"]) -> Float[Array, "*lead n f"]:
        rows, columns = self.cells
        lead, vector = tokens.shape[:-2], tokens[..., 0, :]
        deter, stoch = vector[..., : self.deter], vector[..., self.deter :]
        size = rows * columns * self.features
        x = BlockDense(size, self.blocks, name="deter")(deter)
        x = x.reshape(*lead, self.blocks, rows * columns, -1).swapaxes(-2, -3)
        x = x.reshape(*lead, rows * columns, self.features)
        y = Dense(2 * self.units, kernel_init=fan_in, name="stoch_hidden")(stoch)
        y = nn.silu(nn.RMSNorm(epsilon=1e-4, name="stoch_norm")(y))
        y = Dense(size, kernel_init=fan_in, name="stoch")(y).reshape(x.shape)
        return nn.silu(nn.RMSNorm(epsilon=1e-4, name="norm")(x + y))
