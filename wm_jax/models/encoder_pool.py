"""Frames to the mean colour of every cell: for a backbone that reads colours and places itself."""

from __future__ import annotations

import flax.linen as nn
from jaxtyping import Array, Float


class PoolEncoder(nn.Module):
    """(…, h, w, c) in [0, 1] → (…, n, c), n = (h / patch) · (w / patch). No parameters."""

    patch: int

    def __call__(self, frames: Float[Array, "*lead h w c"]) -> Float[Array, "*lead n c"]:
        *lead, height, width, channels = frames.shape
        rows, columns = height // self.patch, width // self.patch
        cells = frames.reshape(*lead, rows, self.patch, columns, self.patch, channels)
        return cells.mean((-4, -2)).reshape(*lead, rows * columns, channels)
