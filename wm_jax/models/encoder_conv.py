"""DreamerV3's convolutional encoder (Hafner et al. 2023): halve the image until 4 × 4 is left."""

from __future__ import annotations

import flax.linen as nn
from jaxtyping import Array, Float

from wm_jax.errors import UserError
from wm_jax.nn.block_dense import fan_in

#: The sizes in which an image may end.
SMALLEST, LARGEST = 3, 16


def final_size(height: int, width: int, stages: int) -> tuple[int, int]:
    """Rows and columns that are left after ``stages`` halvings, checked."""
    rows, columns = height // 2**stages, width // 2**stages
    whole = (rows * 2**stages, columns * 2**stages) == (height, width)
    if not whole or not all(SMALLEST <= size <= LARGEST for size in (rows, columns)):
        raise UserError(
            f"{height}×{width} frames halved {stages} times do not leave a grid of {SMALLEST} to "
            f"{LARGEST} cells a side; change the number of channel multipliers (mults) to match."
        )
    return rows, columns


class ConvEncoder(nn.Module):
    """(…, h, w, c) in [0, 1] → (…, n, e): the last feature map, a cell a token, row by row.

    Each stage: convolution, 2 × 2 max-pool (or, ``strided``, a stride of two), RMSNorm, SiLU.
    Stage i has ``depth · mults[i]`` channels. Defaults are the 1M size.
    """

    depth: int = 4
    mults: tuple[int, ...] = (2, 3, 4, 4)
    kernel: int = 5
    strided: bool = False

    @nn.compact
    def __call__(self, frames: Float[Array, "*lead h w c"]) -> Float[Array, "*lead n e"]:
        *lead, height, width, channels = frames.shape
        final_size(height, width, len(self.mults))
        x = frames.reshape(-1, height, width, channels) - 0.5
        stride = 2 if self.strided else 1
        for mult in self.mults:
            size = (self.kernel, self.kernel)
            x = nn.Conv(self.depth * mult, size, stride, kernel_init=fan_in)(x)
            if not self.strided:
                batch, rows, columns, features = x.shape
                x = x.reshape(batch, rows // 2, 2, columns // 2, 2, features).max((2, 4))
            x = nn.silu(nn.RMSNorm(epsilon=1e-4)(x))
        return x.reshape(*lead, -1, x.shape[-1])
