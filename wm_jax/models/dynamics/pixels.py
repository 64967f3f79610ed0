"""Whose is a pixel, and what does it show of its owner? Colours and places in, no parameters.

Who owns a pixel: one step of expectation-maximisation for a mixture over colour and place (soft
k-means, which slot attention is with learned features; Locatello et al. 2020). A pixel p belongs to
slot i in proportion to

  r_ip ∝ present_i · exp(−‖c_p − [b, c_i]‖² − NEAR ‖x_p − x_i‖²)

beside the background b and something else that is neither, as a bar is; [b, c_i] are the colours
from b to c_i, which a pixel at an anti-aliased edge has. How far along it lies is how much of it is
covered.

A pixel at the edge of something else may mix three colours and look like a slot's own edge. Where a
neighbour shows what that something is, the pixel is taken apart by least squares

  c − b = f (e − b) + (1 − f) a (c_i − b)

into the share f that is hidden by the colour e, and the share a of what is open that i covers.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float

from wm_jax.models.dynamics import templates
from wm_jax.nn.grid import addresses

#: Colours in [0, 1] times this: two colours 0.1 apart are one unit of surprise apart.
CONTRAST = 10.0
#: Saturation from which something has a hue: objects do, bars and the ground do not.
HUED = 0.5
#: Squares beside things with a hue that say little about which of two is the background.
UNDECIDED = 10.0
#: Colours this near to each other may both be background, under an uneven light.
SHADE = 0.06
#: Times that a plane is laid through what is near it.
PLANE_ROUNDS = 4
#: What most colours are near is looked for among one in so many, which costs a ninth.
THIN = 3
#: Surprise, per squared share of the frame, of a pixel away from its slot.
NEAR = 64.0
#: The background's surprise counts this much more than a slot's, whose colour is known less well.
STRICT = 3.0
#: Log-density of colours that are neither the background's nor a slot's.
NOTHING = -5.0
#: Squared sine of the angle between two colours, seen from the background, that are told apart.
APART = 0.1
#: Squared surprise from which on a pixel is not the mixture that it was taken for.
MIXED = 1.0


class Owners(NamedTuple):
    """Of every pixel: each slot's share, the share of it that an object covers if it is that
    slot's, and the share of the background where nothing is in front of it."""

    share: Float[Array, "b k p"]
    covered: Float[Array, "b k p"]
    bare: Float[Array, "b p"]

    @property
    def rest(self) -> Float[Array, "b p"]:
        """The share of what is neither a slot nor the background."""
        return 1 - self.share.sum(1) - self.bare


class Openness(NamedTuple):
    """Of every pixel, for each slot: the share that nothing hides, how much of that share the slot
    covers; and which pixels show the slot's own colour (not ones that mix it with another's)."""

    open_: Float[Array, "b k p"]
    covered: Float[Array, "b k p"]
    pure: Bool[Array, "b 1 p"]


def background(colours: Float[Array, "*lead n c"]) -> Float[Array, "*lead 1 c"]:
    """The colour that most of these (in [0, 1]) are near, as a mean of those near it."""
    lengths = jnp.square(colours).sum(-1)
    products = colours @ jnp.swapaxes(colours, -1, -2)
    far = lengths[..., None] + lengths[..., None, :] - 2 * products
    density = jnp.exp(-far / SHADE**2).mean(-1)
    weight = (density / density.max(-1, keepdims=True)) ** 8
    for _ in range(2):  # of most; of those near it
        centre = (weight[..., None, :] @ colours) / weight.sum(-1)[..., None, None]
        far = jnp.square(colours - centre).sum(-1)
        weight = jnp.exp(-jnp.minimum(far / SHADE**2, 25.0))
    return (weight[..., None, :] @ colours) / weight.sum(-1)[..., None, None]


def background_plane(
    colours: Float[Array, "*lead n c"], at: Float[Array, "n 2"], pixels: Float[Array, "p 2"]
) -> Float[Array, "*lead p c"]:
    """`background` under a light that falls unevenly: a colour that is linear in the place, known
    at the places ``at`` (in [0, 1]) and wanted at ``pixels``.

    Two colours are tried, that which most are near and that which most of the others are near, each
    made a plane by least squares over what is near it, again and again; the one that then holds
    more of the frame, times what it holds beside things with a hue along each axis, is the
    background. Bars may fill half of a frame, and are denser in colour than a shaded ground.
    """
    some = slice(None, None, THIN)
    near = _near(colours, background(colours[..., some, :]))
    others = _mode(colours[..., some, :], 1 - near[..., some])
    basis, wanted = (jnp.concatenate([jnp.ones_like(x[:, :1]), x - 0.5], 1) for x in (at, pixels))
    beside, planes, held = _beside_hues(colours), [], []
    for weight in (near, _near(colours, others)):
        for _ in range(PLANE_ROUNDS):
            plane = _fit(basis, weight, colours)
            weight = _near(colours, basis @ plane)
        planes.append(plane)
        on = _near(colours, basis @ plane, 2.0)
        votes = [UNDECIDED + (on * squares).sum(-1) for squares in beside]
        held.append((on.sum(-1) * votes[0] * votes[1])[..., None, None])
    return wanted @ jnp.where(held[1] > 1.05 * held[0], planes[1], planes[0])


def _beside_hues(colours: Float[Array, "*lead n c"]) -> list[Float[Array, "*lead n"]]:
    """For each axis of the frame: 1 where a square has no hue and one within two of it along that
    axis has; else 0. What hides a thing is beside it along one axis, the background along both."""
    *lead, count, _ = colours.shape
    side = round(count**0.5)
    hued = (saturation(colours)[..., 0] > HUED).astype(colours.dtype)
    maps = hued.reshape(*lead, side, side)
    near = jnp.abs(jnp.arange(side)[:, None] - jnp.arange(side)) <= 2
    along = jnp.swapaxes(jnp.swapaxes(maps, -1, -2) @ near, -1, -2), maps @ near
    return [jnp.minimum(x, 1.0).reshape(hued.shape) * (1 - hued) for x in along]


def _near(colours: Float[Array, "*lead n c"], centre: Float[Array, "*lead m c"], wide: float = 1.0):
    far = jnp.square(colours - centre).sum(-1)
    return jnp.exp(-jnp.minimum(far / (wide * SHADE) ** 2, 25.0))


def _mode(colours: Float[Array, "*lead n c"], weight: Float[Array, "*lead n"]):
    """The colour that most of what has a ``weight`` is near."""
    lengths = jnp.square(colours).sum(-1)
    products = colours @ jnp.swapaxes(colours, -1, -2)
    far = lengths[..., None] + lengths[..., None, :] - 2 * products
    density = (jnp.exp(-jnp.minimum(far / SHADE**2, 25.0)) * weight[..., None, :]).sum(-1)
    best = jnp.argmax(density * weight, -1)[..., None, None]
    return jnp.take_along_axis(colours, best, -2)


def _fit(basis: Float[Array, "n 3"], weight: Float[Array, "*lead n"], colours):
    """Weighted least squares of the colours, (…, 3, c); a slope that little tells of is small."""
    weighed = basis * weight[..., None]
    normal = jnp.swapaxes(weighed, -1, -2) @ basis + jnp.diag(jnp.array([1e-3, 0.2, 0.2]))
    right = jnp.swapaxes(weighed, -1, -2) @ colours
    a, b, c = (normal[..., i, :] for i in range(3))
    adjugate = jnp.stack([jnp.cross(b, c), jnp.cross(c, a), jnp.cross(a, b)], -1)
    determinant = (a * jnp.cross(b, c)).sum(-1)[..., None, None]
    return adjugate @ right / determinant


def owners(
    place: Float[Array, "b k 2"],
    colour: Float[Array, "b k c"],
    present: Float[Array, "b k 1"],
    pixels: Float[Array, "b p c"],
    ground: Float[Array, "b #p c"],
    cells: tuple[int, int],
) -> Owners:
    """Who owns which pixel; see the module's docstring. Colours are times CONTRAST."""
    pixels = pixels - ground
    size = _beyond_squared(colour, ground)
    lengths = jnp.square(pixels).sum(-1)
    along = _beyond(colour, ground, pixels)
    # A slot's first colour may be a mixture; what lies further along is it too.
    covered = jnp.clip(along / (size + 1.0), 0.0, 1.6)
    off = lengths[:, None] - 2 * covered * along + jnp.square(covered) * size
    away = _distances(place, addresses(cells)[None])
    slots = jnp.maximum(-off - NEAR * away, -25.0) + jnp.log(present + 1e-4)
    empty = jnp.maximum(1 - STRICT * lengths, -25.0)
    others = jnp.stack([empty, jnp.full_like(empty, NOTHING)], 1)
    share = nn.softmax(jnp.concatenate([slots, others], 1), 1)
    covered = jnp.clip((covered - 0.1) / 0.9, 0.0, 1.0)
    return Owners(share[:, :-2], covered, share[:, -2])


def openness(
    whose: Owners,
    colour: Float[Array, "b k c"],
    pixels: Float[Array, "b p c"],
    ground: Float[Array, "b #p c"],
    cells: tuple[int, int],
) -> Openness:
    """What of each pixel is open; see the module's docstring."""
    seen = pixels - ground
    near, edge = _around(jnp.clip(4 * whose.rest - 2, 0.0, 1.0), seen, cells)
    mixed = near[:, None] > 0.5
    # The normal equations of the two shares.
    ee, aa = jnp.square(edge).sum(-1)[:, None], _beyond_squared(colour, ground)
    ea = _beyond(colour, ground, edge)
    es, as_ = (seen * edge).sum(-1)[:, None], _beyond(colour, ground, seen)
    determinant = ee * aa - ea**2
    apart = determinant > APART * ee * aa + 1.0
    determinant = jnp.where(apart, determinant, 1.0)
    hidden = (aa * es - ea * as_) / determinant
    covers = (ee * as_ - ea * es) / determinant
    left = jnp.square(seen).sum(-1)[:, None] - hidden * es - covers * as_
    fits = apart & (left < MIXED) & (hidden > -0.15) & (hidden < 0.85) & (covers > -0.1)
    # Of no other slot.
    mine = whose.share + (whose.bare + whose.rest)[:, None]
    plain = whose.share + whose.bare[:, None]
    open_ = jnp.where(mixed, jnp.clip(1 - hidden, 0.0, 1.0) * fits * mine, plain)
    covers = jnp.clip(covers / jnp.maximum(1 - hidden, 0.1), 0.0, 1.0)
    covered = jnp.where(mixed, covers, whose.share * whose.covered / (plain + 1e-3))
    return Openness(open_, covered, ~mixed)


def _beyond(
    colour: Float[Array, "b k c"], ground: Float[Array, "b #p c"], other: Float[Array, "b p c"]
) -> Float[Array, "b k p"]:
    """(colour − ground) · other, for every slot at every pixel."""
    return colour @ jnp.swapaxes(other, 1, 2) - (ground * other).sum(-1)[:, None]


def _beyond_squared(
    colour: Float[Array, "b k c"], ground: Float[Array, "b #p c"]
) -> Float[Array, "b k #p"]:
    """|colour − ground|²"""
    lengths = jnp.square(colour).sum(-1)[..., None] + jnp.square(ground).sum(-1)[:, None]
    return jnp.maximum(lengths - 2 * colour @ jnp.swapaxes(ground, 1, 2), 0.0)


def _around(weight: Float[Array, "b p"], colour: Float[Array, "b p c"], cells: tuple[int, int]):
    """Sum of the weights of a pixel and its eight neighbours, and mean of their colours."""
    maps = jnp.concatenate([weight[..., None], weight[..., None] * colour], -1)
    maps = maps.reshape(-1, *cells, maps.shape[-1])
    for axis in (1, 2):
        before, here, after = templates.beside(maps, axis)
        maps = before + here + after
    maps = maps.reshape(*colour.shape[:-1], -1)
    return maps[..., 0], maps[..., 1:] / (maps[..., :1] + 1e-6)


def _distances(a: Float[Array, "b k d"], b: Float[Array, "#b p d"]) -> Float[Array, "b k p"]:
    """Squared distances between all of a and all of b."""
    lengths = jnp.square(a).sum(-1)[..., None] + jnp.square(b).sum(-1)[:, None]
    return lengths - 2 * a @ jnp.swapaxes(b, 1, 2)


def has_hue(colour: Float[Array, "*lead c"]) -> Float[Array, "*lead 1"]:
    """1 of what is half a pure colour or more, 0 of a grey, as a hand and bars are."""
    return jnp.minimum(2 * saturation(colour), 1.0)


def saturation(colour: Float[Array, "*lead c"]) -> Float[Array, "*lead 1"]:
    """0 of a grey, 1 of a pure colour."""
    most, least = colour.max(-1, keepdims=True), colour.min(-1, keepdims=True)
    return (most - least) / (jnp.abs(most) + 1e-3)
