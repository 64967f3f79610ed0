"""Templates: small maps around a slot, of how much of each pixel the object covers.

A template (b, k, 2 s²) holds two maps of s × s of the encoder's pixels: coverage, times the weight
of the frames that showed it, and that weight. No parameters.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from wm_jax.nn.grid import addresses
from wm_jax.nn.paste import read, read_turned

#: Of a template, what is left of a frame after the next.
KEEP = 0.9
#: How much of a template's edges, by squared radius and per edge across, may seem to tell of its
#: turn though it is a disc: pixels are square. (0.06 to 0.12 for discs, 0.14 to 0.6 for squares.)
ROUND = 0.15
#: Side of the maps that looks are read off. What counts pixels is for templates of this side.
SIDE = 12


def fine(side: int) -> int:
    """How many times finer than `SIDE` a map of this side is, at least 1."""
    return max(1, side // SIDE)


def coarse_side(side: int) -> int:
    """Side of `coarse` of a map of this side; 0 if there is none."""
    return 0 if side % fine(side) else side // fine(side)


def coarse(image: Float[Array, "*lead s"]) -> Float[Array, "*lead q"]:
    """A map of about `SIDE` pixels on a side: means of squares."""
    side = round(image.shape[-1] ** 0.5)
    step = fine(side)
    maps = image.reshape(*image.shape[:-1], side // step, step, side // step, step)
    return maps.mean((-3, -1)).reshape(*image.shape[:-1], -1)


def coverage_and_known(template: Float[Array, "*lead two_s"]) -> tuple[Array, Array]:
    """Its two maps in [0, 1]: the coverage, where it was ever shown, and how well that is known."""
    coverage, weight = jnp.split(template, 2, -1)
    return coverage / (weight + 1e-2), weight**2 / (weight**2 + 0.05)


def add(
    template: Float[Array, "b k two_s"], seen: Array, clear: Array
) -> Float[Array, "b k two_s"]:
    """The template after one more frame, of which the ``clear`` part counts. What a frame does not
    show is kept as it is."""
    old, weight = jnp.split(template, 2, -1)
    keep = 1 - (1 - KEEP) * clear
    return jnp.concatenate([keep * old + clear * seen, keep * weight + clear], -1)


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
    turn: Float[Array, "b k 1"] | None = None,
) -> list[Array]:
    """The surroundings of each slot in each of its m images, (b, k, side²); of one that has turned,
    as it sees them."""
    if turn is not None:
        maps = images.reshape(*images.shape[:-1], *cells)
        maps = read_turned(maps, anchor, turn, side, 1 / cells[0])
        maps = maps.reshape(*images.shape[:-1], side * side)
        return [maps[:, :, i] for i in range(images.shape[2])]
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
        left, here, right = beside(image, axis)
        image = jnp.maximum(jnp.maximum(left, here), right)
    return image


def align(coverage: Float[Array, "b k s"], weight: Array, seen: Array, cells: tuple[int, int]):
    """Least squares, one Gauss-Newton step: how far the template must move to lie on what is seen
    by the pixels of this ``weight``, (b, k, 2)."""
    right, down = _slopes(coverage)

    def total(x):
        return (weight * x).sum(-1)

    xx, xy, yy = total(right * right) + 0.1, total(right * down), total(down * down) + 0.1
    x, y = total(right * (coverage - seen)), total(down * (coverage - seen))
    step = jnp.stack([yy * x - xy * y, xx * y - xy * x], -1) / (xx * yy - xy**2)[..., None]
    return jnp.clip(step, -1.0, 1.0) / cells[0]


def align_turning(
    coverage: Float[Array, "b k s"], weight: Array, seen: Array, cells: tuple[int, int]
) -> tuple[Array, Array, Array]:
    """`align` of a template that may also have turned: by how much it has moved (b, k, 2), turned
    (b, k, 1), and how well its turn is told: the variance of a turn (radians²) for a variance of a
    place of one (pixels²), infinite for a disc."""
    right, down = _slopes(coverage)
    at = spots(coverage.shape[-1], cells) * cells[0]
    swing = down * at[:, 0] - right * at[:, 1]
    miss = weight * (coverage - seen)

    def total(x, y):
        return (x * y).sum(-1, keepdims=True)

    # The normal equations, and their adjugate matrix; of what is not told, nothing is believed.
    a, b, c = weight * right, weight * down, weight * swing
    xx, yy, zz = total(a, right) + 0.1, total(b, down) + 0.1, total(c, swing) + 1.0
    xy, xz, yz = total(a, down), total(a, swing), total(b, swing)
    x, y, z = total(right, miss), total(down, miss), total(swing, miss)
    first, second, third = yy * zz - yz**2, xz * yz - xy * zz, xy * yz - xz * yy
    determinant = xx * first + xy * second + xz * third
    by_x = (first * x + second * y + third * z) / determinant
    by_y = (second * x + (xx * zz - xz**2) * y + (xy * xz - xx * yz) * z) / determinant
    twist = (third * x + (xy * xz - xx * yz) * y + (xx * yy - xy**2) * z) / determinant
    moved_by = jnp.clip(jnp.concatenate([by_x, by_y], -1), -1.0, 1.0) / cells[0]
    of_place = (jnp.square(right) + jnp.square(down)).sum(-1, keepdims=True) / 2
    size = (coverage @ jnp.square(at).sum(-1, keepdims=True)) / (
        coverage.sum(-1, keepdims=True) + 1
    )
    told = jnp.maximum(zz - 1.0 - ROUND * of_place * size, 0.0)
    return moved_by, jnp.clip(twist, -0.3, 0.3), of_place / (told + 1e-2)


def told_by(coverage: Float[Array, "b k s"], weight: Array) -> Float[Array, "b k 2"]:
    """The share of what a template says of its place, along x and y, that the pixels of this
    ``weight`` say: edges across an axis."""
    slopes = jnp.square(jnp.stack(_slopes(coverage), 2))
    return (weight[:, :, None] * slopes).sum(-1) / (slopes.sum(-1) + 1e-3)


def _slopes(coverage: Float[Array, "b k s"]) -> list[Array]:
    """By x and by y, in pixels."""
    side = round(coverage.shape[-1] ** 0.5)
    maps = coverage.reshape(*coverage.shape[:2], side, side)
    sides = (beside(maps, -1), beside(maps, -2))
    return [((after - before) / 2).reshape(coverage.shape) for before, _, after in sides]


def moved(
    coverage: Float[Array, "b k s"],
    known: Array,
    by: Float[Array, "b k 2"],
    cells: tuple[int, int],
):
    """A template's coverage, and how well it is known, after it moved ``by`` (shares of the frame)
    a pixel or two."""
    side = round(coverage.shape[-1] ** 0.5)
    maps = jnp.stack([coverage * known, known], 2).reshape(*coverage.shape[:2], 2, side, side)
    at = jnp.broadcast_to((0.5 - by * (cells[0] / side))[:, :, None], (*maps.shape[:3], 2))
    maps = read(maps, at, side, 1 / side).reshape(*coverage.shape[:2], 2, -1)
    return maps[:, :, 0] / (maps[:, :, 1] + 1e-3), maps[:, :, 1]


def recentre(anchor: Float[Array, "b k 2"], template: Array, cells: tuple[int, int]):
    """Moves a template by a whole pixel where its centre of mass is more than one off, as that of
    an object is that came out from behind something."""
    coverage = template[..., : template.shape[-1] // 2]
    middle = centre(coverage, spots(coverage.shape[-1], cells)) * cells[0]
    return _shifted(anchor, template, jnp.clip(jnp.trunc(middle), -1, 1), cells)


def _shifted(anchor: Float[Array, "b k 2"], template: Array, steps: Array, cells: tuple[int, int]):
    """The same template around another anchor, -1, 0 or 1 pixels away along x and y."""
    side = round((template.shape[-1] // 2) ** 0.5)
    maps = template.reshape(*template.shape[:2], 2, side, side)
    for axis, step in ((-2, steps[..., 1]), (-1, steps[..., 0])):
        before, here, after = beside(maps, axis)
        step = step[..., None, None, None]
        maps = jnp.where(step < 0, before, jnp.where(step > 0, after, here))
    return anchor + steps / cells[0], maps.reshape(template.shape)


def hide(template: Float[Array, "b k two_s"], key: jax.Array, cells: tuple[int, int]):
    """What would be known if a straight edge had hidden a part, drawn anew for each template, with
    how far the middle of the whole is from the middle of the part, (b, k, 2). Every other edge is
    upright or level, as those of bars and frames often are."""
    at = spots(template.shape[-1] // 2, cells)
    turn, upright, shift, *start = jax.random.uniform(key, (5, *template.shape[:2], 1))
    angle = jnp.pi / 2 * jnp.where(upright < 0.5, jnp.floor(4 * turn), 4 * turn)
    across = jnp.cos(angle) * at[:, 0] + jnp.sin(angle) * at[:, 1]
    size = jnp.sqrt(coverage_and_known(template)[0].sum(-1, keepdims=True) / jnp.pi) / cells[0]
    open_ = across > 1.2 * (2 * shift - 1) * size
    middle = centre(coverage_and_known(template)[0], at)
    part = template * jnp.concatenate([open_, open_], -1)
    # A map rests where it stopped following the middle of what is known: on either side of it.
    steps, anchor = jnp.floor(4 * jnp.concatenate(start, -1)) - 2, jnp.zeros_like(middle)
    for _ in range(2):
        step = jnp.clip(steps, -1, 1)
        anchor, part = _shifted(anchor, part, step, cells)
        steps = steps - step
    for _ in range(round((template.shape[-1] // 2) ** 0.5 / 2)):
        anchor, part = recentre(anchor, part, cells)
    return part, middle - anchor - centre(coverage_and_known(part)[0], at)


def beside(image: Float[Array, "*lead h w"], axis: int) -> tuple[Array, Array, Array]:
    """The image, and as its pixels' neighbours before and after along an axis see it."""
    axis = axis % image.ndim
    pad = [(1, 1) if i == axis else (0, 0) for i in range(image.ndim)]
    padded, size = jnp.pad(image, pad), image.shape[axis]
    before, here, after = (jax.lax.slice_in_dim(padded, i, i + size, axis=axis) for i in range(3))
    return before, here, after
