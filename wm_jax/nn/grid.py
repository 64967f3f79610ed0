"""Layers over a grid of cells: patches in, patches out, and mixing between neighbours.

XLA turns a 3×3 convolution over at most 16×16 cells and at least 32 channels into one large matrix
product (about 80 % of the matmul rate on a CPU), which is why frames are cut to cells first.
"""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from wm_jax.nn.compute import conv_general_dilated, convolves
from wm_jax.nn.dense import Dense


def to_patches(frames: Float[Array, "*lead h w c"], patch: int) -> Float[Array, "*lead n p"]:
    """Cuts frames into ``patch`` × ``patch`` cells, row by row; p = patch² · channels."""
    *lead, height, width, channels = frames.shape
    rows, columns = height // patch, width // patch
    x = frames.reshape(*lead, rows, patch, columns, patch, channels)
    x = jnp.moveaxis(x, -4, -3)
    return x.reshape(*lead, rows * columns, patch * patch * channels)


def from_patches(
    patches: Float[Array, "*lead n p"], cells: tuple[int, int], patch: int
) -> Float[Array, "*lead h w c"]:
    """The inverse of `to_patches`."""
    rows, columns = cells
    *lead, _, size = patches.shape
    channels = size // patch**2
    x = patches.reshape(*lead, rows, columns, patch, patch, channels)
    x = jnp.moveaxis(x, -4, -3)
    return x.reshape(*lead, rows * patch, columns * patch, channels)


def addresses(cells: tuple[int, int]) -> Float[Array, "n 2"]:
    """Centre of every cell in the frame, x then y, in [0, 1]."""
    rows, columns = cells
    y, x = jnp.meshgrid(
        (jnp.arange(rows) + 0.5) / rows, (jnp.arange(columns) + 0.5) / columns, indexing="ij"
    )
    return jnp.stack([x.ravel(), y.ravel()], -1)


def waves(places: Float[Array, "n 2"], octaves: int = 3) -> Float[Array, "n k"]:
    """Sines and cosines of half a turn a frame and its octaves (k = 4 octaves): places that a
    linear layer can tell apart (Tancik et al. 2020, arXiv 2006.10739)."""
    angles = (jnp.pi * 2.0 ** jnp.arange(octaves) * places[..., None]).reshape(len(places), -1)
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], -1)


def neighbourhoods(
    x: Float[Array, "*lead n d"], cells: tuple[int, int]
) -> Float[Array, "*lead n k"]:
    """Every cell with its eight neighbours, side by side (k = 9 d). Outside the grid is zero."""
    rows, columns = cells
    *lead, n, width = x.shape
    grid = x.reshape(*lead, rows, columns, width)
    padded = jnp.pad(grid, [(0, 0)] * len(lead) + [(1, 1), (1, 1), (0, 0)])
    parts = [padded[..., i : i + rows, j : j + columns, :] for i in range(3) for j in range(3)]
    return jnp.concatenate(parts, -1).reshape(*lead, n, 9 * width)


class GridMix(nn.Module):
    """A 3×3 convolution over the grid, (b, n, d) → (b, n, features).

    A border cell sees zeros outside, so it can tell that it is one. Where that is faster
    (`compute.convolves`) it is a convolution, else one matrix product of `neighbourhoods`: the same
    weights and the same numbers.
    """

    cells: tuple[int, int]
    features: int
    use_bias: bool = True

    @nn.compact
    def __call__(self, x: Float[Array, "*lead n d"]) -> Float[Array, "*lead n f"]:
        if convolves():
            return _Convolution(self.cells, self.features, self.use_bias, name="Dense_0")(x)
        return Dense(self.features, use_bias=self.use_bias)(neighbourhoods(x, self.cells))


class _Convolution(nn.Module):
    """What `Dense` makes of `neighbourhoods`, without making them: nine times the bytes of x, and
    in the gradient as many again, which matrix units wait for."""

    cells: tuple[int, int]
    features: int
    use_bias: bool

    @nn.compact
    def __call__(self, x: Float[Array, "*lead n d"]) -> Float[Array, "*lead n f"]:
        *lead, n, width = x.shape
        shape = (9 * width, self.features)
        kernel = self.param("kernel", nn.linear.default_kernel_init, shape)
        images = x.reshape(-1, *self.cells, width)
        form = ("NHWC", "HWIO", "NHWC")
        kernel = kernel.reshape(3, 3, width, self.features)
        out = conv_general_dilated(images, kernel, (1, 1), "SAME", dimension_numbers=form)
        out = out.reshape(*lead, n, self.features)
        if self.use_bias:
            out = out + self.param("bias", nn.initializers.zeros_init(), (self.features,))
        return out


def squares(
    cells: Float[Array, "*lead p c"], shape: tuple[int, int], by: int
) -> Float[Array, "*lead q s c"]:
    """Cells of a grid of that ``shape`` by squares of ``by`` × ``by``, (…, p / by², by², c)."""
    *lead, _, channels = cells.shape
    patches = to_patches(cells.reshape(*lead, *shape, channels), by)
    return patches.reshape(*patches.shape[:-1], by * by, channels)
