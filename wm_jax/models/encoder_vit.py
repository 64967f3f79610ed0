"""A transformer over the patches of one frame (ViT, Dosovitskiy et al. 2020), no class token.

Unlike `PatchEncoder`, a cell's embedding may depend on the whole frame: whether a colour is that of
the thing next to it, or what light the rest of the scene is in.
"""

from __future__ import annotations

import flax.linen as nn
from jaxtyping import Array, Float

from wm_jax.nn.attention import AttentionBlock, sine_positions
from wm_jax.nn.dense import Dense
from wm_jax.nn.grid import addresses, to_patches


class VitEncoder(nn.Module):
    """(…, h, w, c) in [0, 1] → (…, n, width), n = (h / patch) · (w / patch).

    ``width`` is a multiple of four (2-D sine positions) and of ``heads``. Each frame is read alone.
    """

    patch: int
    width: int
    depth: int = 2
    heads: int = 4

    @nn.compact
    def __call__(self, frames: Float[Array, "*lead h w c"]) -> Float[Array, "*lead n e"]:
        height, width = frames.shape[-3:-1]
        cells = height // self.patch, width // self.patch
        x = Dense(self.width)(to_patches(frames - 0.5, self.patch))
        x = x + sine_positions(addresses(cells), self.width)
        for _ in range(self.depth):
            x = AttentionBlock(self.heads)(x)
        return nn.RMSNorm()(x)
