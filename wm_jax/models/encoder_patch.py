"""Frames to one embedding a cell, by a linear patch stem: the cheapest encoder that can see."""

from __future__ import annotations

import flax.linen as nn
from jaxtyping import Array, Float

from wm_jax.nn.dense import Dense
from wm_jax.nn.grid import to_patches


class PatchEncoder(nn.Module):
    """(…, h, w, c) in [0, 1] → (…, n, width), n = (h / patch) · (w / patch)."""

    patch: int
    width: int

    @nn.compact
    def __call__(self, frames: Float[Array, "*lead h w c"]) -> Float[Array, "*lead n e"]:
        x = to_patches(frames - 0.5, self.patch)
        return nn.silu(Dense(self.width)(x))
