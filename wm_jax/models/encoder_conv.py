"""DreamerV3's convolutional encoder (Hafner et al. 2023): halve the image until 4 × 4 is left."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from wm_jax.errors import UserError
from wm_jax.nn.block_dense import fan_in
from wm_jax.nn.compute import conv_general_dilated, matmul

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
    Stage i has ``depth · mults[i]`` channels. Defaults are the 1M size. A stride makes a quarter of
    the products, and two to five times less of an update's time on a CPU.
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
        for i, mult in enumerate(self.mults):
            features, name = self.depth * mult, f"Conv_{i}"
            if self.strided:
                x = StridedConv(features, self.kernel)(x)
            elif (i, self.kernel, height % 4, width % 4) == (0, 5, 0, 0):
                x = PooledConv(features, name=name)(x)
            else:
                x = nn.Conv(
                    features,
                    (self.kernel, self.kernel),
                    kernel_init=fan_in,
                    conv_general_dilated=conv_general_dilated,
                    name=name,
                )(x)
                batch, rows, columns, _ = x.shape
                x = x.reshape(batch, rows // 2, 2, columns // 2, 2, features).max((2, 4))
            x = nn.silu(nn.RMSNorm(epsilon=1e-4)(x))
        return x.reshape(*lead, -1, x.shape[-1])


class PooledConv(nn.Module):
    """A 5 × 5 convolution of an image, zero-padded, and the largest of each 2 × 2 of its pixels.

    Computed on 4 × 4 blocks of pixels, which depend on 8 × 8 pixels of the image: one matrix
    product, the same function and parameters: 2.6 times the arithmetic, most of it with zeros,
    yet twice as fast on a CPU, which dislikes few channels on many pixels. Sides
    are multiples of four.
    """

    features: int

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 f"]:
        batch, height, width, channels = x.shape
        kernel = self.param("kernel", fan_in, (5, 5, channels, self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        rows, columns = height // 4, width // 4
        x = jnp.pad(x, ((0, 0), (2, 2), (2, 2), (0, 0)))
        x = x.reshape(batch, rows + 1, 4, columns + 1, 4, channels).swapaxes(2, 3)
        x = x.reshape(batch, rows + 1, columns + 1, 16 * channels)
        corners = [(i, j) for i in (0, 1) for j in (0, 1)]
        x = jnp.concatenate([x[:, i : i + rows, j : j + columns] for i, j in corners], -1)

        taps = _window_taps()
        weights = jnp.einsum("auxk,bvyl,klcf->uvxycabf", taps, taps, kernel)
        x = matmul(x.reshape(-1, x.shape[-1]), weights.reshape(x.shape[-1], -1))
        x = x.reshape(batch, rows, columns, 2, 2, 2, 2, self.features)
        # Not one `max` over both axes: its gradient is slower.
        x = jnp.maximum(x[:, :, :, :, 0], x[:, :, :, :, 1])
        x = jnp.maximum(x[..., 0, :], x[..., 1, :])
        return x.swapaxes(2, 3).reshape(batch, height // 2, width // 2, self.features) + bias


def _window_taps() -> np.ndarray:
    """(4 pixels of a block, 2 blocks, 4 pixels of each, 5 taps) of 0 and 1: what each tap reads."""
    taps = np.zeros((4, 8, 5), np.float32)
    for pixel in range(4):
        for tap in range(5):
            taps[pixel, pixel + tap, tap] = 1
    return taps.reshape(4, 2, 4, 5)


class StridedConv(nn.Module):
    """A ``kernel`` × ``kernel`` convolution with a stride of two, padded as 'SAME' pads it.

    Computed on 2 × 2 blocks of pixels, as a 3 × 3 convolution with four times the channels and no
    stride: the same function and parameters, with more channels on fewer pixels, which a CPU likes
    (up to 1.5 times faster with its gradient). ``kernel`` is 3, 4 or 5; sides are even.
    """

    features: int
    kernel: int

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 f"]:
        batch, height, width, channels = x.shape
        shape = (self.kernel, self.kernel, channels, self.features)
        kernel, taps = self.param("kernel", fan_in, shape), _block_taps(self.kernel)
        blocks = jnp.einsum("apk,bql,klcf->abpqcf", taps, taps, kernel)
        blocks = blocks.reshape(3, 3, 4 * channels, self.features)
        x = x.reshape(batch, height // 2, 2, width // 2, 2, channels).swapaxes(2, 3)
        x = x.reshape(batch, height // 2, width // 2, 4 * channels)
        axes = ("NHWC", "HWIO", "NHWC")
        x = conv_general_dilated(x, blocks, (1, 1), "SAME", dimension_numbers=axes)
        return x + self.param("bias", nn.initializers.zeros, (self.features,))


def _block_taps(kernel: int) -> np.ndarray:
    """(3 blocks, 2 pixels of a block, kernel) of 0 and 1: on which pixel each tap falls."""
    taps = np.zeros((3, 2, kernel), np.float32)
    for tap in range(kernel):
        block, pixel = divmod(tap - (kernel - 2) // 2, 2)
        taps[block + 1, pixel, tap] = 1
    return taps
