"""Templates: small maps around a slot, of how much of each pixel the object covers.

A template (b, k, 2 s²) holds two maps of s × s of the encoder's pixels: coverage, times the weight
of the frames that showed it, and that weight. No parameters.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from wm_jax.nn.grid import addresses
from wm_jax.nn.paste import read

#: Of a template, what is left of a frame after the next.
KEEP = 0.9


def coverage_and_known(template: Float[Array, "*lead two_s"]) -> tuple[Array, Array]:
    """Its two maps in [0, 1]: the coverage, where it was ever shown, and how well that is known."""
    coverage, weight = jnp.split(template, 2, -1)
    return coverage / (weight + 1e-2), weight**2 / (weight**2 + 0.05)


def add(
    template: Float[Array, "b k two_s"], seen: Array, clear: Array
) -> Float[Array, "b k two_s"]:
    """The template after one more frame, of which the ``clear`` part counts."""
    return KEEP * template + jnp.concatenate([clear * seen, clear], -1)


def spots(count: int, cells: tuple[int, int]) -> Float[Array, "s 2"]:
    """Where the pixels of a map are, from its centre, in shares of the frame."""
    side = round(count**0.5)
    return (addresses((side, side)) - 0.5) * (side / cells[0])


def centre(weights: Float[Array, "*lead s"], at: Float[Array, "s 2"]) -> Float[Array, "*lead 2"]:
    """Centre of mass."""
    return (weights @ at) / (weights.sum(-1, keepdims=True) + 1e-6)


def views(
    images: Float[Array, "b k m p"],
    anchor: Float[Array, "b k 2"],
    side: int,
    cells: tuple[int, int],
) -> list[Array]:
    """The surroundings of each slot in each of its m images, (b, k, side²)."""
    anchor = jnp.broadcast_to(anchor[:, :, None], (*images.shape[:3], 2))
    squares = read(images.reshape(*images.shape[:-1], *cells), anchor, side, 1 / cells[0])
    squares = squares.reshape(*images.shape[:-1], side * side)
    return [squares[:, :, i] for i in range(images.shape[2])]


def whole(coverage: Float[Array, "b k s"], known: Array) -> Float[Array, "b k 1"]:
    """How much is known of what the template covers and of a pixel around it."""
    side = round(coverage.shape[-1] ** 0.5)
    maps = coverage.reshape(*coverage.shape[:-1], side, side)
    outline = spread_out(maps).reshape(coverage.shape)
    return (outline * known).sum(-1, keepdims=True) / (outline.sum(-1, keepdims=True) + 1e-6)


def spread_out(image: Float[Array, "*lead h w"]) -> Float[Array, "*lead h w"]:
    """The largest of each pixel and its eight neighbours; nothing is outside."""
    for axis in (-2, -1):
        left, here, right = _beside(image, axis)
        image = jnp.maximum(jnp.maximum(left, here), right)
    return image


def align(coverage: Float[Array, "b k s"], weight: Array, seen: Array, cells: tuple[int, int]):
    """Least squares, one Gauss-Newton step: how far the template must move to lie on what is seen,
    (b, k, 2), and how much the pixels of this ``weight`` say about it along x and y."""
    side = round(coverage.shape[-1] ** 0.5)
    maps = coverage.reshape(*coverage.shape[:2], side, side)
    slopes = [(after - before) / 2 for before, _, after in (_beside(maps, -1), _beside(maps, -2))]
    right, down = (slope.reshape(coverage.shape) for slope in slopes)

    def total(x):
        return (weight * x).sum(-1)

    xx, xy, yy = total(right * right) + 0.1, total(right * down), total(down * down) + 0.1
    x, y = total(right * (coverage - seen)), total(down * (coverage - seen))
    step = jnp.stack([yy * x - xy * y, xx * y - xy * x], -1) / (xx * yy - xy**2)[..., None]
    return jnp.clip(step, -1.0, 1.0) / cells[0], jnp.stack([xx, yy], -1) - 0.1


def recentre(anchor: Float[Array, "b k 2"], template: Array, cells: tuple[int, int]):
    """Moves a template by a whole pixel where its centre of mass is more than one off, as that of
    an object is that came out from behind something."""
    coverage, weight = jnp.split(template, 2, -1)
    side = round(coverage.shape[-1] ** 0.5)
    middle = centre(coverage, spots(side**2, cells)) * cells[0]
    steps = jnp.clip(jnp.trunc(middle), -1, 1)
    maps = jnp.stack([coverage, weight], 2).reshape(*coverage.shape[:2], 2, side, side)
    for axis, step in ((-2, steps[..., 1]), (-1, steps[..., 0])):
        before, here, after = _beside(maps, axis)
        step = step[..., None, None, None]
        maps = jnp.where(step < 0, before, jnp.where(step > 0, after, here))
    return anchor + steps / cells[0], maps.reshape(template.shape)


def hide(template: Float[Array, "b k two_s"], key: jax.Array, cells: tuple[int, int]):
    """What would be known if a straight edge had hidden a part, drawn anew for each template, with
    how far the middle of the whole is from the middle of the part, (b, k, 2)."""
    at = spots(template.shape[-1] // 2, cells)
    turn, shift = jax.random.uniform(key, (2, *template.shape[:2], 1))
    angle = 2 * jnp.pi * turn
    across = jnp.cos(angle) * at[:, 0] + jnp.sin(angle) * at[:, 1]
    size = jnp.sqrt(coverage_and_known(template)[0].sum(-1, keepdims=True) / jnp.pi) / cells[0]
    open_ = across > (2 * shift - 1) * size
    middle = centre(coverage_and_known(template)[0], at)
    part = template * jnp.concatenate([open_, open_], -1)
    anchor = jnp.zeros_like(middle)
    for _ in range(round((template.shape[-1] // 2) ** 0.5 / 4)):
        anchor, part = recentre(anchor, part, cells)
    return part, middle - anchor - centre(coverage_and_known(part)[0], at)


def _beside(image: Float[Array, "*lead h w"], axis: int) -> tuple[Array, Array, Array]:
    """The image, and as its pixels' neighbours before and after along an axis see it."""
    axis = axis % image.ndim
    pad = [(1, 1) if i == axis else (0, 0) for i in range(image.ndim)]
    padded, size = jnp.pad(image, pad), image.shape[axis]
    before, here, after = (jax.lax.slice_in_dim(padded, i, i + size, axis=axis) for i in range(3))
    return before, here, after
