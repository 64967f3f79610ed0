"""Slots that follow what moves: colours and places in, no parameters.

A slot is corrected as a Kalman filter is, once a frame.

Whose a pixel is, and what of it is open, is `pixels`.

What a slot looks like: its template, a small map of coverage around its place, is the mean of what
frames showed, over what was open of their pixels: where either the slot or the background was seen.

Where it is: the middle of what is seen of it, against the middle of what should be seen of its
template through the pixels that are open now, then to a fraction of a pixel by least squares. A
part behind a bar is missing in both. The distance corrects place and speed with the gains of a
Kalman filter, which trusts it the less, the less of the template is open; straight flight is its
model, and the caller adds what it is unsure of.

A slot is born where a pixel has a colour that neither the background, nor the recent past of that
pixel, nor another slot explains, or that a pixel nearby just lost: what moves is an object, and so
is what rests in the open and is small. If a slot of that colour is missing, it is that one, found
again. A slot dies only where the background is seen in its place; what is hidden lives on.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from wm_jax.models.dynamics import templates
from wm_jax.models.dynamics.pixels import Owners, openness, owners
from wm_jax.models.dynamics.templates import centre
from wm_jax.nn.grid import addresses
from wm_jax.nn.paste import shift, turned

#: Squared surprise from which a pixel is the start of a new slot.
NEW = 8.0
#: Squared distance of colours below which a missing slot is recognised.
SAME = 6.0
#: A pixel has the colour of one that is gone if they are this near, squared.
ALIKE = 2.0
#: Of a pixel between two of which less than this is open, nothing is believed.
AJAR = 0.3
#: A slot is found where it covers more than about this many pixels of a template of
#: `templates.SIDE` on a side, four times as many where pixels are half as wide.
FEW = 2.0

# The filter counts in 64ths of the frame.
UNIT = 64.0
#: Standard error of a measured place where all of the slot is open; half of it where pixels are.
CLEAR = 0.06
#: The same, of the mere middle of what is seen.
ROUGH = 1.0
#: Standard deviations of a place and a speed of which nothing is known yet.
PLACE, SPEED = 8.0, 1.5
#: Random change of the speed in a step.
WANDER = 0.002
#: Standard deviations, in radians, of a turn of which nothing is known any more, and of what a
#: template's own edges leave open.
LOST, BLUNT = 0.5, 0.01
#: Random change of the spin in a step, radians.
FLUTTER = 0.001
#: Squared standard deviations from which on the filter believes that it lost the slot.
ASTRAY = 16.0


class Scene(NamedTuple):
    """The carry of `grid_slots`. k slots; n cells of the stage; p pixels of the encoder's grid.

    place and middle are shares of the frame, speed shares a step; present is in [0, 1]; colour is
    times CONTRAST.

    middle:   the place, from the template's own centre: the centre of mass of what is known of the
              slot and, where that is not all, what is missing to that of the whole
    template: coverage and how well it is known, both times the weight of the frames they are of
    pull:     what the slot's own frames say of its steady acceleration, shares a step²
    spread:   for x and for y, in 64ths: the covariance matrix of place, speed and pull, as xx, xv,
              vv, xp, vp, pp
    turn:     how far it has turned from its template, in radians from +x to +y; 0 where slots are
              not followed in that
    rate:     radians a step
    sway:     covariance of turn and rate, as tt, tr, rr
    visible:  how much of the slot the last frame showed, in [0, 1]; 0 where none was seen
    age:      frames in which it was found
    past:     mean of recent frames and whether there was one
    told:     what the last step was told
    """

    stage: Float[Array, "b n d"]
    place: Float[Array, "b k 2"]
    speed: Float[Array, "b k 2"]
    pull: Float[Array, "b k 2"]
    present: Float[Array, "b k 1"]
    colour: Float[Array, "b k c"]
    look: Float[Array, "b k l"]
    middle: Float[Array, "b k 2"]
    template: Float[Array, "b k two_s"]
    spread: Float[Array, "b k 12"]
    turn: Float[Array, "b k 1"]
    rate: Float[Array, "b k 1"]
    sway: Float[Array, "b k 3"]
    visible: Float[Array, "b k 1"]
    age: Float[Array, "b k 1"]
    past: Float[Array, "b p e"]
    told: Float[Array, "b t"]


def give_birth(
    scene: Scene, pixels, ground, cells, pull: float = 0.0, spin: float = 0.0
) -> tuple[Scene, Bool[Array, "b k 1"]]:
    """At most two slots a frame start at the most surprising pixels, which changed, lie near one
    that lost their colour, or are part of something small: one that is missing and has this colour,
    or else an empty one. Also says which are new."""
    spots, index = addresses(cells), jnp.arange(scene.place.shape[1])
    side = round((scene.template.shape[-1] // 2) ** 0.5)
    fine = templates.fine(side)
    past, known = scene.past[..., :-1], scene.past[..., -1]
    rare = jnp.square(pixels - ground).sum(-1)
    moved = jnp.square(pixels - past).sum(-1) * known
    alone = rare * _stands_alone(rare > NEW, side, cells)
    news = jnp.maximum(jnp.maximum(moved, _left_behind(pixels, past, moved, cells, fine)), alone)
    new = jnp.zeros(scene.place.shape[:2], bool)
    for _ in range(2):
        share, covered, _ = _owners(scene, pixels, ground, cells)
        surprise = jnp.minimum(rare, news) * (1 - share.sum(1))
        unseen = (share * covered).sum(-1) < FEW * fine**2
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
        begun = {"place": place, "speed": 0.0, "pull": 0.0, "present": 0.5}
        variances = (PLACE**2, 0.0, SPEED**2, 0.0, 0.0, pull**2)
        begun["spread"] = jnp.repeat(jnp.array(variances), 2)
        scene = _where(born | back, scene, begun)
        if spin:  # a template starts as it is seen; how one that is back has turned is not known
            scene = _where(born, scene, {"turn": 0.0})
            scene = _where(born | back, scene, {"rate": 0.0})
            lost = jnp.where(back, LOST**2, 0.0)[..., None]
            sway = jnp.concatenate([lost, 0 * lost, 0 * lost + spin**2], -1)
            scene = scene._replace(sway=jnp.where((born | back)[..., None], sway, scene.sway))
        new = new | born
    return scene, new[..., None]


def correct(
    scene: Scene,
    pixels: Float[Array, "b p c"],
    ground: Float[Array, "b 1 c"],
    cells: tuple[int, int],
    pull: float = 0.0,
    spin: float = 0.0,
) -> Scene:
    """The scene after a frame was seen. Stage, look and told are the caller's; so is what a slot's
    middle is, if not all of it was seen.

    pull: standard deviation of a steady acceleration (64ths a step²) before anything was seen
    spin: the same of a spin (radians a step); 0: templates are upright, and stay so
    """
    scene, new = give_birth(scene, pixels, ground, cells, pull, spin)
    whose = _owners(scene, pixels, ground, cells)
    mask = whose.share * whose.covered
    found = mask.sum(-1, keepdims=True)
    side = round((scene.template.shape[-1] // 2) ** 0.5)
    fine = templates.fine(side)
    few = FEW * fine**2
    sure = found / (found + few)
    shown = openness(whose, scene.colour, pixels, ground, cells)
    bare = jnp.broadcast_to(whose.bare[:, None], mask.shape)
    images = jnp.stack([shown.open_ * shown.covered, shown.open_, bare], 2)

    spots = templates.spots(side**2, cells)
    turn = scene.turn if spin else None
    anchor = scene.place - _turned(scene.middle, turn)
    seen, clear, empty = _view(images, anchor, side, cells, turn)
    coverage, known = templates.coverage_and_known(scene.template)
    coverage, known = jnp.where(new, seen, coverage), jnp.where(new, clear, known)
    gone = (coverage * known * empty).sum(-1, keepdims=True)
    gone = gone / ((coverage * known).sum(-1, keepdims=True) + 1e-6)

    # Roughly: the middle of what is seen. A hundredth of the template stands in where it is hidden.
    # Where little is open of what is known, the prediction is better than that: as when a side
    # comes out from behind something that was not there when the other one went in.
    expected = centre(known * clear * coverage + 0.01 * coverage, spots)
    off = _turned(centre(known * clear * seen, spots) - jnp.where(new, 0.0, expected), turn)
    shown_of_it = (known * clear * coverage).sum(-1) / ((known * coverage).sum(-1) + 1e-3)
    rough = jnp.square(ROUGH / (shown_of_it[..., None] + 1e-3))
    off = jnp.where(new, 1.0, scene.spread[..., :2] / (scene.spread[..., :2] + rough)) * off
    if spin:
        off, part, turning = _laid_turning(
            scene, images[:, :, :2], anchor, off, (coverage, known), new, cells
        )
    else:
        off, part = _laid(images[:, :, :2], anchor, off, (coverage, known), new, cells)
    error = (CLEAR / fine) ** 2 / (part**2 + 1e-4) / jnp.maximum(sure, 1e-6)
    unseen = found <= 0.5 * few
    place, speed, steady, spread = _kalman(scene, off, jnp.where(unseen, 1e6, error))
    if spin:
        by, doubt = turning
        doubt = (CLEAR / fine) ** 2 * doubt / jnp.maximum(sure, 1e-6) + BLUNT**2
        scene = _kalman_turning(scene, by, jnp.where(unseen | new, 1e6, doubt), spin)
        turn = scene.turn

    anchor = place - _turned(scene.middle, turn)
    seen, clear = _view(images[:, :, :2], anchor, side, cells, turn)
    template = templates.add(scene.template, seen, clear)
    by, template = templates.recentre(jnp.zeros_like(anchor), template, cells)
    anchor = anchor + _turned(by, turn)
    middle = centre(templates.coverage_and_known(template)[0], spots)

    gone = jnp.clip(2 * gone - 0.5, 0.0, 1.0) * (1 - sure)
    pure = mask * whose.covered**3 * shown.pure  # not the edges: they are mixed with what is behind
    some = pure.sum(-1, keepdims=True)
    colour = (pure @ pixels) / (some + 1e-6)
    age = scene.age + sure
    follow = sure * jnp.maximum(1 / (age + 1), 0.1) * jnp.minimum(some, 1.0)
    past, ever = scene.past[..., :-1], scene.past[..., -1:]
    recent = jnp.where(ever > 0, past + 0.1 * (pixels - past), pixels)
    present, there = scene.present, scene.present > 0
    return scene._replace(
        place=jnp.where(there, anchor + _turned(middle, turn), scene.place),
        speed=speed,
        pull=steady,
        present=present + there * 0.5 * sure * (1 - present) - 0.4 * gone * present,
        colour=scene.colour + follow * (colour - scene.colour),
        middle=jnp.where(there, middle, 0.0),
        template=template * there,
        spread=spread,
        visible=sure * part.min(-1, keepdims=True),
        age=age,
        past=jnp.concatenate([recent, jnp.ones_like(ever)], -1),
    )


def widen(spread: Float[Array, "b k 12"], place: Array, speed: Array) -> Float[Array, "b k 12"]:
    """The spread a step later, in free flight, and with these variances (64ths) added."""
    xx, xv, vv, xp, vp, pp = jnp.split(spread, 6, -1)
    of_place = jnp.minimum(xx + 2 * xv + vv + xp + vp + 0.25 * pp + place, 64.0)
    of_speed = jnp.minimum(vv + 2 * vp + pp + WANDER**2 + speed, SPEED**2)
    # Or else what was cut off would leave a matrix that is no covariance.
    most = 0.99 * jnp.sqrt(of_place * of_speed)
    parts = [
        of_place,
        jnp.clip(xv + vv + xp + 1.5 * vp + 0.5 * pp, -most, most),
        of_speed,
        xp + vp + 0.5 * pp,
        vp + pp,
        pp,
    ]
    return jnp.concatenate(parts, -1)


def panned(
    past: Float[Array, "b p e"], by: Float[Array, "b 2"], cells: tuple[int, int]
) -> Float[Array, "b p e"]:
    """Recent frames as they look after the view moved what they show ``by`` (shares of the frame).
    What came into view was never seen."""
    maps = jnp.moveaxis(past.reshape(-1, *cells, past.shape[-1]), -1, 1)
    maps = maps.at[:, :-1].multiply(maps[:, -1:])  # so that nothing is mixed with the unseen
    maps = shift(maps, jnp.broadcast_to(by[:, None], (*maps.shape[:2], 2)))
    ever = maps[:, -1:]
    maps = jnp.concatenate([maps[:, :-1] / (ever + 1e-6), (ever > 0.99) * 1.0], 1)
    return jnp.moveaxis(maps, 1, -1).reshape(past.shape)


def shared_pull(scene: Scene, pull: float) -> Float[Array, "b k 2"]:
    """A slot's own pull where it was just seen, else that of all slots, by what each of them has
    learned since it began with this standard deviation."""
    learned = 1 / (scene.spread[..., 10:] + 1e-9) - 1 / pull**2
    learned = jnp.maximum(learned, 0.0) * (scene.present > 0.5)
    total = learned.sum(1, keepdims=True) + 1 / pull**2
    everyones = (learned * scene.pull).sum(1, keepdims=True) / total
    return jnp.where(scene.visible > 0.1, scene.pull, everyones)


def sway_on(sway: Float[Array, "b k 3"], more: Float[Array, "b k 1"]) -> Float[Array, "b k 3"]:
    """The covariance of turn and rate a step later, and with this variance of the rate added."""
    tt, tr, rr = jnp.split(sway, 3, -1)
    tt = jnp.minimum(tt + 2 * tr + rr + more / 3, LOST**2)
    rr = jnp.minimum(rr + FLUTTER**2 + more, 1.0)
    most = 0.99 * jnp.sqrt(tt * rr)
    return jnp.concatenate([tt, jnp.clip(tr + rr, -most, most), rr], -1)


def _laid(images, anchor, off, template, new, cells):
    """How far ``off`` a template is, exactly: it is laid over what is seen, around a whole pixel,
    where nothing that is open is mixed with what is not. And the share of it that tells so."""
    (coverage, known), side = template, round(template[0].shape[-1] ** 0.5)
    odd = side % 2 / 2
    pixel = (jnp.round((anchor + off) * cells[0] - odd) + odd) / cells[0]
    seen, clear = _view(images, pixel, side, cells)
    for _ in range(1 + templates.fine(side)):
        laid, sharp = templates.moved(coverage, known, anchor + off - pixel, cells)
        step = templates.align(laid, sharp * clear, seen, cells)
        off = off + jnp.where(new, 0.0, step)
    part = templates.told_by(laid, sharp * clear) * templates.whole(laid, sharp)
    return off, jnp.clip(part, 0.0, 1.0)


def _laid_turning(scene: Scene, images, anchor, off, template, new, cells):
    """`_laid` of templates that turn; and by how much they have turned more than predicted, with
    its variance for a variance of a place of one (64ths²)."""
    (coverage, known), side = template, round(template[0].shape[-1] ** 0.5)
    by = jnp.zeros_like(scene.turn)
    for _ in range(1 + templates.fine(side)):
        turn = scene.turn + by
        seen, clear = _view(images, anchor + off, side, cells, turn)
        step, twist, doubt = templates.align_turning(coverage, known * clear, seen, cells)
        off = off + jnp.where(new, 0.0, turned(step, turn))
        by = by + jnp.where(new, 0.0, twist)
    part = templates.told_by(coverage, known * clear) * templates.whole(coverage, known)
    cos, sin = jnp.square(jnp.cos(turn)), jnp.square(jnp.sin(turn))
    part = cos * part + sin * part[..., ::-1]
    return off, jnp.clip(part, 0.0, 1.0), (by, doubt * (cells[0] / UNIT) ** 2)


def _kalman_turning(scene: Scene, by, error, spin: float) -> Scene:
    """Turn, rate and sway after a measurement that is ``by`` further than predicted."""
    tt, tr, rr = jnp.split(scene.sway, 3, -1)
    astray = jnp.square(by) / (tt + error) > ASTRAY
    tt = jnp.where(astray, LOST**2, tt)
    tr, rr = jnp.where(astray, 0.0, tr), jnp.where(astray, spin**2, rr)
    gain, bend = tt / (tt + error), tr / (tt + error)
    sway = jnp.concatenate([(1 - gain) * tt, (1 - gain) * tr, rr - bend * tr], -1)
    return scene._replace(turn=scene.turn + gain * by, rate=scene.rate + bend * by, sway=sway)


def _kalman(scene: Scene, off: Float[Array, "b k 2"], error: Float[Array, "b k 2"]):
    """Place, speed, pull and spread after a measurement that is ``off``, with this squared
    ``error``."""
    xx, xv, vv, xp, vp, pp = jnp.split(scene.spread, 6, -1)
    miss = UNIT**2 * jnp.square(off) / (xx + error)
    astray = miss.sum(-1, keepdims=True) > ASTRAY
    # Something happened that the prediction does not know: only the measurement counts.
    xx = jnp.where(astray, jnp.maximum(xx, PLACE**2), xx)
    vv = jnp.where(astray, SPEED**2, vv)
    xv, xp, vp = (jnp.where(astray, 0.0, x) for x in (xv, xp, vp))
    total = xx + error
    gain, turn, bend = xx / total, xv / total, xp / total
    parts = (
        [(1 - gain) * xx, (1 - gain) * xv, vv - turn * xv]
        + [(1 - gain) * xp, vp - turn * xp, pp - bend * xp]
    )  # fmt: skip
    spread = jnp.concatenate(parts, -1)
    return scene.place + gain * off, scene.speed + turn * off, scene.pull + bend * off, spread


def _view(
    images: Float[Array, "b k m p"],
    anchor: Float[Array, "b k 2"],
    side: int,
    cells: tuple[int, int],
    turn: Float[Array, "b k 1"] | None = None,
):
    """Around ``anchor``: how much the slot covers of what is open, what is open, and any further
    images as they are."""
    seen, clear, *more = templates.views(images, anchor, side, cells, turn)
    return seen / (clear + 1e-3), jnp.clip((clear - AJAR) / (1 - AJAR), 0.0, 1.0), *more


def _turned(vector: Float[Array, "b k 2"], by: Float[Array, "b k 1"] | None):
    return vector if by is None else turned(vector, by)


def _left_behind(pixels, past, moved, cells: tuple[int, int], fine: int = 1):
    """How surprising the change of a pixel nearby is, if what it lost has this pixel's colour, (b,
    p): what slides behind something uncovers nothing but its own trail."""
    here, was, change = (x.reshape(x.shape[0], *cells, -1) for x in (pixels, past, moved))
    most = jnp.zeros_like(change)
    for by in ((0, 2), (0, -2), (2, 0), (-2, 0)):
        by = (by[0] * fine, by[1] * fine)
        lost = jnp.roll(was, by, (1, 2))
        alike = jnp.square(here - lost).sum(-1, keepdims=True) < ALIKE
        most = jnp.maximum(most, jnp.roll(change, by, (1, 2)) * alike)
    return most.reshape(moved.shape)


def _stands_alone(rare: Bool[Array, "b p"], side: int, cells: tuple[int, int]):
    """Whether what is rare around a pixel fits into a square of ``side`` pixels, as an object does
    and a bar does not: next to nothing on the square's outline is."""
    maps, fine = rare.reshape(-1, *cells).astype(jnp.float32), templates.fine(side)
    inside, around = _sums(maps, side // 2 - 1), _sums(maps, side // 2 + 1)
    return ((around - inside < 1.5 * fine) & (inside > 4 * fine**2)).reshape(rare.shape)


def _sums(maps: Float[Array, "b h w"], reach: int) -> Float[Array, "b h w"]:
    """Of the square of 2 · reach + 1 pixels around each pixel; nothing is outside."""
    for axis in (1, 2):
        size = maps.shape[axis]
        near = np.abs(np.arange(size)[:, None] - np.arange(size)) <= reach
        maps = jnp.moveaxis(jnp.moveaxis(maps, axis, -1) @ near.astype(np.float32), -1, axis)
    return maps


def _owners(scene: Scene, pixels, ground, cells: tuple[int, int]) -> Owners:
    return owners(scene.place, scene.colour, scene.present, pixels, ground, cells)


def _where(choice: Bool[Array, "b k"], scene: Scene, values: dict[str, Any]) -> Scene:
    """The scene with these fields in the chosen slots."""
    new = {k: jnp.where(choice[..., None], v, getattr(scene, k)) for k, v in values.items()}
    return scene._replace(**new)
