"""Slots that follow what moves: colours and places in, no parameters.

A slot is corrected as a Kalman filter is, once a frame.

Who owns a pixel: one step of expectation-maximisation for a mixture over colour and place (soft
k-means, which slot attention is with learned features; Locatello et al. 2020). A pixel p belongs to
slot i in proportion to

  r_ip ∝ present_i · exp(−‖c_p − [b, c_i]‖² − NEAR ‖x_p − x_i‖²)

beside the background b and something else that is neither; [b, c_i] are the colours from b to c_i,
which a pixel at an anti-aliased edge has. How far along it lies is how much of it is covered.

What a slot looks like: its template, a small map of coverage around its place, is the mean of what
frames showed, over the pixels that were open: those where either the slot or the background was
seen, and nothing in between.

Where it is: the middle of what is seen of it, against the middle of what should be seen of its
template through the pixels that are open now. A part behind a bar is missing in both. The distance
corrects place and speed with the gains of a Kalman filter, which trusts it the less, the less of
the template is open; straight flight is its model, and the caller adds what it is unsure of.

A slot is born where a pixel has a colour that neither the background, nor the recent past of that
pixel, nor another slot explains: what moves is an object. If a slot of that colour is missing, it
is that one, found again. A slot dies only where the background is seen in its place; what is hidden
lives on.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float

from wm_jax.models.dynamics import templates
from wm_jax.models.dynamics.templates import centre
from wm_jax.nn.grid import addresses

#: Colours in [0, 1] times this: two colours 0.1 apart are one unit of surprise apart.
CONTRAST = 10.0
#: Colours this near to each other may both be background, under an uneven light.
SHADE = 0.06
#: Squared surprise from which a pixel is the start of a new slot.
NEW = 8.0
#: Squared distance of colours below which a missing slot is recognised.
SAME = 6.0
#: Surprise, per squared share of the frame, of a pixel away from its slot.
NEAR = 64.0
#: The background's surprise counts this much more than a slot's, whose colour is known less well.
STRICT = 3.0
#: Log-density of colours that are neither the background's nor a slot's.
NOTHING = -5.0
#: A slot is found where it covers more than about this many pixels.
FEW = 2.0

# The filter counts in 64ths of the frame.
UNIT = 64.0
#: Standard error of a measured place where all of the slot is open.
CLEAR = 0.06
#: Standard deviations of a place and a speed of which nothing is known yet.
PLACE, SPEED = 8.0, 1.5
#: Random change of the speed in a step.
WANDER = 0.002
#: Squared standard deviations from which on the filter believes that it lost the slot.
ASTRAY = 16.0


class Scene(NamedTuple):
    """The carry of `grid_slots`. k slots; n cells of the stage; p pixels of the encoder's grid.

    place and middle are shares of the frame, speed shares a step; present is in [0, 1]; colour is
    times CONTRAST.

    middle:   the template's centre of mass, from its own centre
    template: coverage and how well it is known, both times the weight of the frames they are of
    spread:   for x and for y: variance of place, covariance, variance of speed, in 64ths
    visible:  how much of the slot the last frame showed, in [0, 1]; 0 where none was seen
    age:      frames in which it was found
    past:     mean of recent frames and whether there was one
    told:     what the last step was told
    """

    stage: Float[Array, "b n d"]
    place: Float[Array, "b k 2"]
    speed: Float[Array, "b k 2"]
    present: Float[Array, "b k 1"]
    colour: Float[Array, "b k c"]
    look: Float[Array, "b k l"]
    middle: Float[Array, "b k 2"]
    template: Float[Array, "b k two_s"]
    spread: Float[Array, "b k 6"]
    visible: Float[Array, "b k 1"]
    age: Float[Array, "b k 1"]
    past: Float[Array, "b p e"]
    told: Float[Array, "b t"]


class Owners(NamedTuple):
    """Of every pixel: each slot's share, the share of it that an object covers if it is that
    slot's, and the share of the background where nothing is in front of it."""

    share: Float[Array, "b k p"]
    covered: Float[Array, "b k p"]
    bare: Float[Array, "b p"]


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


def owners(
    scene: Scene,
    pixels: Float[Array, "b p c"],
    ground: Float[Array, "b 1 c"],
    cells: tuple[int, int],
) -> Owners:
    """Who owns which pixel; see the module's docstring."""
    ahead, pixels = scene.colour - ground, pixels - ground
    size = jnp.square(ahead).sum(-1)[..., None]
    lengths = jnp.square(pixels).sum(-1)
    along = ahead @ jnp.swapaxes(pixels, 1, 2)
    # A slot's first colour may be a mixture; what lies further along is it too.
    covered = jnp.clip(along / (size + 1.0), 0.0, 1.6)
    off = lengths[:, None] - 2 * covered * along + jnp.square(covered) * size
    away = _distances(scene.place, addresses(cells)[None])
    slots = jnp.maximum(-off - NEAR * away, -25.0) + jnp.log(scene.present + 1e-4)
    empty = jnp.maximum(1 - STRICT * lengths, -25.0)
    others = jnp.stack([empty, jnp.full_like(empty, NOTHING)], 1)
    share = nn.softmax(jnp.concatenate([slots, others], 1), 1)
    covered = jnp.clip((covered - 0.1) / 0.9, 0.0, 1.0)
    return Owners(share[:, :-2], covered, share[:, -2])


def give_birth(scene: Scene, pixels, ground, cells) -> tuple[Scene, Bool[Array, "b k 1"]]:
    """At most two slots a frame start at the most surprising pixels: one that is missing and has
    this colour, or else an empty one. Also says which are new."""
    spots, index = addresses(cells), jnp.arange(scene.place.shape[1])
    past, known = scene.past[..., :-1], scene.past[..., -1]
    rare = jnp.square(pixels - ground).sum(-1)
    moved = jnp.square(pixels - past).sum(-1) * known
    new = jnp.zeros(scene.place.shape[:2], bool)
    for _ in range(2):
        share, covered, _ = owners(scene, pixels, ground, cells)
        surprise = jnp.minimum(rare, moved) * (1 - share.sum(1))
        unseen = (share * covered).sum(-1) < FEW
        best = jnp.argmax(surprise, -1)[:, None]
        colour, place = jnp.take_along_axis(pixels, best[..., None], 1), spots[best]
        real = jnp.take_along_axis(surprise, best, 1) > NEW
        present = scene.present[..., 0]
        # Something of this colour is missing elsewhere: here it is.
        unlike = jnp.square(scene.colour - colour).sum(-1)
        unlike = jnp.where((present > 0.1) & unseen & (unlike < SAME), unlike, jnp.inf)
        back = real & (index == jnp.argmin(unlike, -1)[:, None]) & (unlike < SAME)
        empty = (index == jnp.argmin(present, -1)[:, None]) & (present < 0.3)
        born = real & empty & ~back.any(-1, keepdims=True)
        scene = _where(born, scene, {"colour": colour, "middle": 0.0, "template": 0.0, "age": 0.0})
        begun = {"place": place, "speed": 0.0, "present": 0.5}
        begun["spread"] = jnp.array([PLACE**2] * 2 + [0.0] * 2 + [SPEED**2] * 2)
        scene = _where(born | back, scene, begun)
        new = new | born
    return scene, new[..., None]


def correct(
    scene: Scene,
    pixels: Float[Array, "b p c"],
    ground: Float[Array, "b 1 c"],
    cells: tuple[int, int],
) -> Scene:
    """The scene after a frame was seen. Stage, look and told are the caller's; so is what a slot's
    middle is, if not all of it was seen."""
    scene, new = give_birth(scene, pixels, ground, cells)
    share, covered, bare = owners(scene, pixels, ground, cells)
    mask = share * covered
    open_ = (share + bare[:, None]) * _clear_of_the_rest(share, bare, cells)[:, None]
    found = mask.sum(-1, keepdims=True)
    sure = found / (found + FEW)
    images = jnp.stack([mask, open_, jnp.broadcast_to(bare[:, None], mask.shape)], 2)

    side = round((scene.template.shape[-1] // 2) ** 0.5)
    spots = templates.spots(side**2, cells)
    anchor = scene.place - scene.middle
    seen, clear, empty = templates.views(images, anchor, side, cells)
    coverage, known = templates.coverage_and_known(scene.template)
    coverage, known = jnp.where(new, seen, coverage), jnp.where(new, clear, known)
    gone = (coverage * known * empty).sum(-1, keepdims=True)
    gone = gone / ((coverage * known).sum(-1, keepdims=True) + 1e-6)

    # Roughly: the middle of what is seen. A hundredth of the template stands in where it is hidden.
    expected = centre(known * clear * coverage + 0.01 * coverage, spots)
    off = centre(known * seen, spots) - jnp.where(new, 0.0, expected)
    # Exactly: lay what is seen over the template.
    for _ in range(2):
        seen, clear = templates.views(images[:, :, :2], anchor + off, side, cells)
        step, sharp = templates.align(coverage, known * clear, seen, cells)
        off = off + jnp.where(new, 0.0, step)
    part = sharp / (templates.align(coverage, jnp.ones_like(known), seen, cells)[1] + 1e-3)
    part = jnp.clip(part * templates.whole(coverage, known), 0.0, 1.0)
    error = CLEAR**2 / (part**2 + 1e-4) / jnp.maximum(sure, 1e-6)
    place, speed, spread = _kalman(scene, off, jnp.where(found > 0.5 * FEW, error, 1e6))

    anchor = place - scene.middle
    seen, clear = templates.views(images[:, :, :2], anchor, side, cells)
    template = templates.add(scene.template, seen, clear)
    anchor, template = templates.recentre(anchor, template, cells)
    middle = centre(templates.coverage_and_known(template)[0], spots)

    gone = jnp.clip(2 * gone - 0.5, 0.0, 1.0) * (1 - sure)
    pure = mask * covered**3  # not the edges: they are mixed with what is behind
    colour = (pure @ pixels) / (pure.sum(-1, keepdims=True) + 1e-6)
    age = scene.age + sure
    follow = sure * jnp.maximum(1 / (age + 1), 0.1)
    past, ever = scene.past[..., :-1], scene.past[..., -1:]
    recent = jnp.where(ever > 0, past + 0.1 * (pixels - past), pixels)
    present, there = scene.present, scene.present > 0
    return scene._replace(
        place=jnp.where(there, anchor + middle, scene.place),
        speed=speed,
        present=present + there * 0.5 * sure * (1 - present) - 0.4 * gone * present,
        colour=scene.colour + follow * (colour - scene.colour),
        middle=jnp.where(there, middle, 0.0),
        template=template * there,
        spread=spread,
        visible=sure * part.min(-1, keepdims=True),
        age=age,
        past=jnp.concatenate([recent, jnp.ones_like(ever)], -1),
    )


def widen(spread: Float[Array, "b k 6"], place: Array, speed: Array) -> Float[Array, "b k 6"]:
    """The spread a step later, by straight flight, and with these variances (64ths) added."""
    xx, xv, vv = jnp.split(spread, 3, -1)
    xx = jnp.minimum(xx + 2 * xv + vv + place, 64.0)
    return jnp.concatenate([xx, xv + vv, jnp.minimum(vv + WANDER**2 + speed, SPEED**2)], -1)


def _kalman(scene: Scene, off: Float[Array, "b k 2"], error: Float[Array, "b k 2"]):
    """Place, speed and spread after a measurement that is ``off``, with this squared ``error``."""
    xx, xv, vv = jnp.split(scene.spread, 3, -1)
    miss = UNIT**2 * jnp.square(off) / (xx + error)
    astray = miss.sum(-1, keepdims=True) > ASTRAY
    # Something happened that the prediction does not know: only the measurement counts.
    xx = jnp.where(astray, jnp.maximum(xx, PLACE**2), xx)
    vv = jnp.where(astray, SPEED**2, vv)
    xv = jnp.where(astray, 0.0, xv)
    total = xx + error
    gain, turn = xx / total, xv / total
    spread = jnp.concatenate([(1 - gain) * xx, (1 - gain) * xv, vv - turn * xv], -1)
    return scene.place + gain * off, scene.speed + turn * off, spread


def _clear_of_the_rest(share, bare, cells: tuple[int, int]) -> Float[Array, "b p"]:
    """Near 0 in and beside pixels that are something else: their edge may run through a pixel."""
    rest = (1 - share.sum(1) - bare).reshape(-1, 1, *cells)
    return 1 - jnp.clip(1.1 * templates.spread_out(rest) - 0.1, 0.0, 1.0).reshape(bare.shape)


def _where(choice: Bool[Array, "b k"], scene: Scene, values: dict[str, Any]) -> Scene:
    """The scene with these fields in the chosen slots."""
    new = {k: jnp.where(choice[..., None], v, getattr(scene, k)) for k, v in values.items()}
    return scene._replace(**new)


def _distances(a: Float[Array, "b k d"], b: Float[Array, "#b p d"]) -> Float[Array, "b k p"]:
    """Squared distances between all of a and all of b."""
    lengths = jnp.square(a).sum(-1)[..., None] + jnp.square(b).sum(-1)[:, None]
    return lengths - 2 * a @ jnp.swapaxes(b, 1, 2)
