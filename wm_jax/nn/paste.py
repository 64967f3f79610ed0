"""Reading and writing a small square at a real-valued place of a large one, differentiable in the
place: a spatial transformer (Jaderberg et al. 2015). One that only shifts has a bilinear kernel
that is a product of two matrices; one that also turns gathers (`read_turned`)."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float


def taps(
    centre: Float[Array, "*lead"], samples: int, spacing: float, size: int
) -> Float[Array, "*lead size samples"]:
    """Bilinear weights between ``samples`` points around ``centre`` and ``size`` pixels of an axis.

    ``centre`` and ``spacing`` are shares of the axis; pixel i has its centre at (i + 0.5) / size.
    """
    pixels = (jnp.arange(size) + 0.5) / size
    points = centre[..., None] + (jnp.arange(samples) - (samples - 1) / 2) * spacing
    return jnp.maximum(0.0, 1 - jnp.abs(pixels[:, None] - points[..., None, :]) / spacing)


def read(
    image: Float[Array, "*lead h w"], place: Float[Array, "*lead 2"], samples: int, spacing: float
) -> Float[Array, "*lead s s"]:
    """The square of samples × samples points around ``place`` (x, y in [0, 1])."""
    lead = image.shape[:-2]
    down = _fold(taps(place[..., 1], samples, spacing, image.shape[-2]))
    across = _fold(taps(place[..., 0], samples, spacing, image.shape[-1]))
    square = jnp.swapaxes(down, 1, 2) @ (_fold(image) @ across)
    return square.reshape(*lead, samples, samples)


def read_turned(
    images: Float[Array, "*lead m h w"],
    place: Float[Array, "*lead 2"],
    turn: Float[Array, "*lead 1"],
    samples: int,
    spacing: float | Float[Array, "*lead 1"],
) -> Float[Array, "*lead m s s"]:
    """`read` of m images each, of a square that has turned by so many radians from +x to +y."""
    *lead, count, rows, columns = images.shape
    grid = (jnp.arange(samples) - (samples - 1) / 2) * spacing
    right, down = grid[..., None, :], grid[..., :, None]
    cos, sin = (f(turn)[..., None] for f in (jnp.cos, jnp.sin))
    x = (place[..., 0, None, None] + cos * right - sin * down) * columns + 0.5
    y = (place[..., 1, None, None] + sin * right + cos * down) * rows + 0.5
    x, y = jnp.clip(x, 0.0, columns + 1.0), jnp.clip(y, 0.0, rows + 1.0)
    # What is outside is 0, as a rim of one pixel; a pixel's images lie side by side.
    padded = jnp.pad(images.reshape(-1, count, rows, columns), [(0, 0), (0, 0), (1, 1), (1, 1)])
    flat = jnp.moveaxis(padded, 1, -1).reshape(-1, (rows + 2) * (columns + 2), count)
    x, y = x.reshape(-1, samples**2), y.reshape(-1, samples**2)
    left, top = jnp.floor(x), jnp.floor(y)
    total = jnp.zeros((*x.shape, count))
    for i, part_y in ((0, 1 - (y - top)), (1, y - top)):
        for j, part_x in ((0, 1 - (x - left)), (1, x - left)):
            at = ((top + i) * (columns + 2) + left + j).astype(jnp.int32)
            at = jnp.minimum(at, flat.shape[1] - 1)
            taken = jnp.take_along_axis(flat, at[..., None], 1)
            total = total + (part_x * part_y)[..., None] * taken
    return jnp.moveaxis(total, -1, 1).reshape(*lead, count, samples, samples)


def turned(vector: Float[Array, "*lead 2"], by: Float[Array, "*lead 1"]) -> Float[Array, "*lead 2"]:
    """The vector, turned by so many radians from +x to +y."""
    x, y, cos, sin = vector[..., :1], vector[..., 1:], jnp.cos(by), jnp.sin(by)
    return jnp.concatenate([cos * x - sin * y, sin * x + cos * y], -1)


def shift(
    image: Float[Array, "*lead h w"], by: Float[Array, "*lead 2"]
) -> Float[Array, "*lead h w"]:
    """The image moved ``by`` (x, y in shares of the frame); what comes in from outside is 0."""
    rows, columns = image.shape[-2:]
    down = _fold(taps(0.5 - by[..., 1], rows, 1 / rows, rows))
    across = _fold(taps(0.5 - by[..., 0], columns, 1 / columns, columns))
    return (jnp.swapaxes(down, 1, 2) @ (_fold(image) @ across)).reshape(image.shape)


def write(
    square: Float[Array, "*lead s s"],
    place: Float[Array, "*lead 2"],
    size: int,
    columns: int | None = None,
) -> Float[Array, "*lead h w"]:
    """``square`` around ``place`` on an empty image of ``size`` rows and as many ``columns``, or
    another number, a row a sample: `read` transposed."""
    lead, samples, columns = square.shape[:-2], square.shape[-1], columns or size
    down = _fold(taps(place[..., 1], samples, 1 / size, size))
    across = _fold(taps(place[..., 0], samples, 1 / size, columns))
    image = (down @ _fold(square)) @ jnp.swapaxes(across, 1, 2)
    return image.reshape(*lead, size, columns)


def _fold(x: Array) -> Array:
    """All leading axes as one: XLA:CPU is fast with one batch axis only."""
    return x.reshape(-1, *x.shape[-2:])
