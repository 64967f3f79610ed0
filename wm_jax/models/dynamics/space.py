"""Mixing within a frame: over 3×3 neighbours, or by attention over all cells."""

from __future__ import annotations

import flax.linen as nn
from jaxtyping import Array, Float

from wm_jax.errors import UserError
from wm_jax.models.dynamics.contract import check_choice
from wm_jax.nn.attention import GridAttention
from wm_jax.nn.dense import Dense
from wm_jax.nn.grid import GridMix


def mixer(
    mixing: str, cells: tuple[int, int], features: int, heads: int
) -> GridMix | GridAttention:
    """A layer (…, n, d) → (…, n, features): ``mixing`` 'local' (3×3) or 'attention'."""
    if mixing == "local":
        return GridMix(cells, features)
    return GridAttention(cells, features, heads)


def check_mixing(mixing: str, width: int, heads: int) -> None:
    """Refuses unknown names, and widths that attention cannot split."""
    check_choice("mixing", mixing, ("local", "attention"))
    if mixing == "attention" and width % (4 * heads):
        raise UserError(
            f"model.dynamics.width={width} with model.dynamics.mixing='attention' must be a "
            f"multiple of 4 times model.dynamics.mixing_heads={heads}: the row and the column of a "
            "cell turn two numbers each."
        )


class SpaceMix(nn.Module):
    """Norm, mixing over the cells, SiLU, dense: what a residual stream adds to itself."""

    cells: tuple[int, int]
    hidden: int
    mixing: str = "local"
    heads: int = 4

    @nn.compact
    def __call__(self, x: Float[Array, "*lead n d"], told=0.0) -> Float[Array, "*lead n d"]:
        """``told`` (…, 1, hidden) is added before the activation."""
        mix = mixer(self.mixing, self.cells, self.hidden, self.heads)
        return Dense(x.shape[-1])(nn.silu(mix(nn.RMSNorm()(x)) + told))
