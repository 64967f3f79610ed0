"""Reading and writing a small square at a real-valued place of a large one, differentiable in the
place: a spatial transformer (Jaderberg et al. 2015) that only shifts, so its bilinear kernel is a
product of two matrices."""

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


def shift(
    image: Float[Array, "*lead h w"], by: Float[Array, "*lead 2"]
) -> Float[Array, "*lead h w"]:
    """The image moved ``by`` (x, y in shares of the frame); what comes in from outside is 0."""
    rows, columns = image.shape[-2:]
    down = _fold(taps(0.5 - by[..., 1], rows, 1 / rows, rows))
    across = _fold(taps(0.5 - by[..., 0], columns, 1 / columns, columns))
    return (jnp.swapaxes(down, 1, 2) @ (_fold(image) @ across)).reshape(image.shape)


def write(
    square: Float[Array, "*lead s s"], place: Float[Array, "*lead 2"], size: int
) -> Float[Array, "*lead size size"]:
    """``square`` around ``place`` on an empty image, a pixel a sample: `read` transposed."""
    lead, samples = square.shape[:-2], square.shape[-1]
    down = _fold(taps(place[..., 1], samples, 1 / size, size))
    across = _fold(taps(place[..., 0], samples, 1 / size, size))
    image = (down @ _fold(square)) @ jnp.swapaxes(across, 1, 2)
    return image.reshape(*lead, size, size)


def _fold(x: Array) -> Array:
    """All leading axes as one: XLA:CPU is fast with one batch axis only."""
    return x.reshape(-1, *x.shape[-2:])
