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
is what rests in the open and is small (what the frame cuts off has no size). If a slot of that
colour is missing, it is that one, found again; if one of another colour is missing just there, it
has been painted. A slot dies only where the background is seen in its place; what is hidden lives
on.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from wm_jax.models.dynamics import templates
from wm_jax.models.dynamics.kalman import (
    LOST,
    PLACE,
    SPEED,
    UNIT,
    place_measured,
    turn_measured,
)
from wm_jax.models.dynamics.laying import lay, lay_turning, view
from wm_jax.models.dynamics.pixels import HUED, has_hue, openness, owners, saturation
from wm_jax.models.dynamics.templates import centre
from wm_jax.nn.grid import addresses
from wm_jax.nn.paste import read_turned, shift, turned, write

#: Squared surprise from which a pixel is the start of a new slot.
NEW = 8.0
#: Squared distance of colours below which a missing slot is recognised.
SAME = 6.0
#: A pixel has the colour of one that is gone if they are this near, squared.
ALIKE = 2.0
#: Squared surprise up to which a pixel looks as it did.
STILL = 1.0
#: A slot is found where it covers more than about this many pixels of a template of
#: `templates.SIDE` on a side, four times as many where pixels are half as wide.
FEW = 2.0

#: Standard error of a measured place where all of the slot is open; half of it where pixels are.
CLEAR = 0.06
#: The same, of the mere middle of what is seen.
ROUGH = 1.0
#: Standard deviation, in radians, of what a template's own edges leave open of its turn.
BLUNT = 0.01


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
    shown:    what was told when the stage was last seen
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
    shown: Float[Array, "b t"]


def give_birth(
    scene: Scene, pixels, ground, cells, pull: float = 0.0, spin: float = 0.0
) -> tuple[Scene, Bool[Array, "b k 1"], Float[Array, "b k p"]]:
    """At most two slots a frame start at the most surprising pixels, which changed, lie near one
    that lost their colour, or are part of something small: one that is missing and has this colour,
    or one that is missing just there, or else an empty one. Also says which are new, and what each
    slot may own (`_may_own`)."""
    spots, index = addresses(cells), jnp.arange(scene.place.shape[1])
    side = round((scene.template.shape[-1] // 2) ** 0.5)
    fine = templates.fine(side)
    past, moved = scene.past[..., :-1], _moved(scene, pixels)
    rare = jnp.square(pixels - ground).sum(-1)
    alone = _stands_alone(rare > NEW, side, cells) & ~_cut_off(rare > NEW, side, cells)
    # What has a hue is no bar: it stands alone beside one, and beside what is followed already.
    share = owners(scene.place, scene.colour, scene.present, pixels, ground, cells).share.sum(1)
    hued = (rare > NEW) & (saturation(pixels)[..., 0] > HUED) & (share < 0.5)
    edge = ~hued.reshape(-1, *cells)
    for _ in range(fine):  # where a hue may be mixed with what is in front
        edge = templates.spread_out(edge)
    small = alone | (_stands_alone(hued, side, cells) & ~edge.reshape(hued.shape))
    left = _left_behind(pixels, past, moved, cells, fine)
    news = jnp.maximum(jnp.maximum(moved, left), rare * small)
    new = jnp.zeros(scene.place.shape[:2], bool)
    free, expected = (moved > STILL) | alone, _expected(scene, cells, spin)
    for _ in range(2):
        share, covered, _ = owners(scene.place, scene.colour, scene.present, pixels, ground, cells)
        surprise = jnp.minimum(rare, news) * (1 - share.sum(1))
        seen = (share * _may_own(scene.colour, free, expected) * covered).sum(-1)
        unseen = seen < FEW * fine**2
        best = jnp.argmax(surprise, -1)[:, None]
        colour, place = jnp.take_along_axis(pixels, best[..., None], 1), spots[best]
        real = jnp.take_along_axis(surprise, best, 1) > NEW
        present = scene.present[..., 0]
        # Something of this colour is missing elsewhere: here it is.
        unlike = jnp.square(scene.colour - colour).sum(-1)
        unlike = jnp.where((present > 0.1) & unseen & (unlike < SAME), unlike, jnp.inf)
        back = real & (index == jnp.argmin(unlike, -1)[:, None]) & (unlike < SAME)
        # Something is seen where one is missing that should be in the open: it has been painted.
        in_place = jnp.take_along_axis(expected, best[..., None], -1)[..., 0]
        in_place = jnp.where(
            (present > 0.5) & unseen, in_place * has_hue(scene.colour)[..., 0], 0.0
        )
        painted = real & (saturation(colour)[..., 0] > HUED) & ~back.any(-1, keepdims=True)
        painted &= (in_place > 0.5) & (index == jnp.argmax(in_place, -1)[:, None])
        scene = _where(painted, scene, {"colour": colour})
        empty = (index == jnp.argmin(present, -1)[:, None]) & (present < 0.3)
        born = real & empty & ~(back | painted).any(-1, keepdims=True)
        scene = _where(born, scene, {"colour": colour, "middle": 0.0, "template": 0.0, "age": 0.0})
        begun = {"place": place, "speed": 0.0, "pull": 0.0, "present": 0.5}
        variances = (PLACE**2, 0.0, SPEED**2, 0.0, 0.0, pull**2)
        begun["spread"] = jnp.repeat(jnp.array(variances), 2)
        scene = _where(born | back, scene, begun)
        expected = jnp.where((born | back)[..., None], 0.0, expected)
        if spin:  # a template starts as it is seen; how one that is back has turned is not known
            scene = _where(born, scene, {"turn": 0.0})
            scene = _where(born | back, scene, {"rate": 0.0})
            lost = jnp.where(back, LOST**2, 0.0)[..., None]
            sway = jnp.concatenate([lost, 0 * lost, 0 * lost + spin**2], -1)
            scene = scene._replace(sway=jnp.where((born | back)[..., None], sway, scene.sway))
        new = new | born
    return scene, new[..., None], _may_own(scene.colour, free, expected)


def correct(
    scene: Scene,
    pixels: Float[Array, "b p c"],
    ground: Float[Array, "b #p c"],
    cells: tuple[int, int],
    pull: float = 0.0,
    spin: float = 0.0,
) -> tuple[Scene, Float[Array, "b p c"]]:
    """The scene after a frame was seen, and that frame with the background where slots are. Stage,
    look and told are the caller's; so is what a slot's middle is, if not all of it was seen.

    pull: standard deviation of a steady acceleration (64ths a step²) before anything was seen
    spin: the same of a spin (radians a step); 0: templates are upright, and stay so
    """
    scene, new, may_own = give_birth(scene, pixels, ground, cells, pull, spin)
    whose = owners(scene.place, scene.colour, scene.present, pixels, ground, cells)
    whose = whose._replace(share=whose.share * may_own)
    mask = whose.share * whose.covered
    found = mask.sum(-1, keepdims=True)
    side = round((scene.template.shape[-1] // 2) ** 0.5)
    fine = templates.fine(side)
    few = FEW * fine**2
    sure = found / (found + few)
    shown = openness(whose, scene.colour, pixels, ground, cells)
    empty = jnp.broadcast_to(whose.bare[:, None], mask.shape)
    images = jnp.stack([shown.open_ * shown.covered, shown.open_, empty], 2)

    spots = templates.spots(side**2, cells)
    turn = scene.turn if spin else None
    anchor = scene.place - _turn_by(scene.middle, turn)
    seen, clear, empty = view(images, anchor, side, cells, turn)
    coverage, known = templates.coverage_and_known(scene.template)
    coverage, known = jnp.where(new, seen, coverage), jnp.where(new, clear, known)
    gone = (coverage * known * empty).sum(-1, keepdims=True)
    gone = gone / ((coverage * known).sum(-1, keepdims=True) + 1e-6)

    # Roughly: the middle of what is seen. A hundredth of the template stands in where it is hidden.
    # Where little is open of what is known, the prediction is better than that: as when a side
    # comes out from behind something that was not there when the other one went in.
    expected = centre(known * clear * coverage + 0.01 * coverage, spots)
    off = _turn_by(centre(known * clear * seen, spots) - jnp.where(new, 0.0, expected), turn)
    shown_of_it = (known * clear * coverage).sum(-1) / ((known * coverage).sum(-1) + 1e-3)
    rough = jnp.square(ROUGH / (shown_of_it[..., None] + 1e-3))
    off = jnp.where(new, 1.0, scene.spread[..., :2] / (scene.spread[..., :2] + rough)) * off
    if spin:
        off, part, turning = lay_turning(
            images[:, :, :2], anchor, scene.turn, off, (coverage, known), new, cells
        )
    else:
        off, part = lay(images[:, :, :2], anchor, off, (coverage, known), new, cells)
    error = (CLEAR / fine) ** 2 / (part**2 + 1e-4) / jnp.maximum(sure, 1e-6)
    unseen = found <= 0.5 * few
    by, faster, pulled, spread = place_measured(scene.spread, off, jnp.where(unseen, 1e6, error))
    if spin:
        twist, doubt = turning
        doubt = (CLEAR / fine) ** 2 * doubt / jnp.maximum(sure, 1e-6) + BLUNT**2
        doubt = jnp.where(unseen | new, 1e6, doubt)
        turn_on, rate_on, sway = turn_measured(scene.sway, twist, doubt, spin)
        turn = scene.turn + turn_on
        scene = scene._replace(turn=turn, rate=scene.rate + rate_on, sway=sway)

    anchor = scene.place + by - _turn_by(scene.middle, turn)
    seen, clear = view(images[:, :, :2], anchor, side, cells, turn)
    template = templates.add(scene.template, seen, clear)
    step, template = templates.recentre(jnp.zeros_like(anchor), template, cells)
    anchor = anchor + _turn_by(step, turn)
    middle = centre(templates.coverage_and_known(template)[0], spots)

    gone = jnp.clip(2 * gone - 0.5, 0.0, 1.0) * (1 - sure)
    pure = mask * whose.covered**3 * shown.pure  # not the edges: they are mixed with what is behind
    some = pure.sum(-1, keepdims=True)
    colour = (pure @ pixels) / (some + 1e-6)
    age = scene.age + sure
    follow = sure * jnp.maximum(1 / (age + 1), 0.1) * jnp.minimum(some, 1.0)
    colour = scene.colour + follow * (colour - scene.colour)
    # A pixel on an edge is a mixture: the slot's part of it is taken out, not the pixel. What has
    # no hue may be a bar that a grey slot is hidden by.
    mask = _beside_pure(mask, cells) * has_hue(colour)
    bare = pixels - jnp.einsum("bkp,bkc->bpc", mask, colour) + mask.sum(1)[..., None] * ground
    past, ever = scene.past[..., :-1], scene.past[..., -1:]
    recent = jnp.where(ever > 0, past + 0.1 * (pixels - past), pixels)
    present, there = scene.present, scene.present > 0
    scene = scene._replace(
        place=jnp.where(there, anchor + _turn_by(middle, turn), scene.place),
        speed=scene.speed + faster,
        pull=scene.pull + pulled,
        present=present + there * 0.5 * sure * (1 - present) - 0.4 * gone * present,
        colour=colour,
        middle=jnp.where(there, middle, 0.0),
        template=template * there,
        spread=spread,
        visible=sure * part.min(-1, keepdims=True),
        age=age,
        past=jnp.concatenate([recent, jnp.ones_like(ever)], -1),
    )
    return scene, bare


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


def shared_pull(scene: Scene, pull: float) -> Float[Array, "b 1 2"]:
    """What all slots with a hue say of the pull that they share, each by what it has learned since
    it began with this standard deviation. A blow that was taken for a pull is far from what the
    others say, and counts little (reweighted least squares, a Cauchy weight)."""
    hued = (scene.present > 0.5) * has_hue(scene.colour)
    learned = jnp.maximum(1 / (scene.spread[..., 10:] + 1e-9) - 1 / pull**2, 0.0)
    # Never believed to more than an eighth of what is usual.
    learned = hued / (1 / (learned + 1e-9) + (pull / 8) ** 2)
    own, weight = UNIT * scene.pull, learned
    for _ in range(5):
        mean = (weight * own).sum(1, keepdims=True)
        mean = mean / (weight.sum(1, keepdims=True) + 1 / pull**2)
        weight = learned / (1 + learned * jnp.square(own - mean) / 2)
    return mean / UNIT


def told_pull(scene: Scene, pull: Float[Array, "b k 2"]) -> Scene:
    """What the filter believes of places and speeds once it is told each slot's pull."""
    _, _, _, xp, vp, pp = jnp.split(scene.spread, 6, -1)
    off = (pull - scene.pull) / (pp + 1e-9)
    return scene._replace(place=scene.place + xp * off, speed=scene.speed + vp * off)


def _beside_pure(mask: Float[Array, "b k p"], cells: tuple[int, int]) -> Float[Array, "b k p"]:
    """Of a mask, what is nearly 1 and what is beside that. A bar may have a colour between those of
    the background and of a slot, and so does an edge; but an edge is thin."""
    pure = (mask > 0.75).reshape(*mask.shape[:2], *cells).astype(mask.dtype)
    return mask * templates.spread_out(pure).reshape(mask.shape)


def _turn_by(vector: Float[Array, "b k 2"], by: Float[Array, "b k 1"] | None):
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


def _cut_off(rare: Bool[Array, "b p"], side: int, cells: tuple[int, int]):
    """Whether what is rare in the square of `_stands_alone` reaches the frame's rim: what goes on
    outside, as a bar does and what is beyond a wall, would stand alone in a corner."""
    rim = np.ones(cells, np.float32)
    rim[1:-1, 1:-1] = 0.0
    maps = rare.reshape(-1, *cells) * rim
    return (_sums(maps, side // 2 - 1) > 0.5).reshape(rare.shape)


def _sums(maps: Float[Array, "b h w"], reach: int) -> Float[Array, "b h w"]:
    """Of the square of 2 · reach + 1 pixels around each pixel; nothing is outside."""
    for axis in (1, 2):
        size = maps.shape[axis]
        near = np.abs(np.arange(size)[:, None] - np.arange(size)) <= reach
        maps = jnp.moveaxis(jnp.moveaxis(maps, axis, -1) @ near.astype(np.float32), -1, axis)
    return maps


def _moved(scene: Scene, pixels: Float[Array, "b p c"]) -> Float[Array, "b p"]:
    """How surprising a pixel is after its recent past, squared; 0 where it has none."""
    past, known = scene.past[..., :-1], scene.past[..., -1]
    return jnp.square(pixels - past).sum(-1) * known


def _may_own(
    colour: Float[Array, "b k c"], free: Bool[Array, "b p"], expected: Float[Array, "b k p"]
) -> Float[Array, "b k p"]:
    """A slot without a hue owns a pixel only if that is ``free`` (it changed, or stands alone) or
    is where the slot should be: a bar beside it may be of nearly its colour."""
    hue = has_hue(colour)
    return jnp.maximum(hue, jnp.maximum(free[:, None], expected))


def _expected(scene: Scene, cells: tuple[int, int], spin: float) -> Float[Array, "b k p"]:
    """Whether a slot's template covers a pixel, where it is thought to be, and turned as it is."""
    coverage, known = templates.coverage_and_known(scene.template)
    side = round(coverage.shape[-1] ** 0.5)
    maps = (coverage * known).reshape(*coverage.shape[:2], side, side)
    if spin:
        middle = jnp.full_like(scene.place, 0.5)
        maps = read_turned(maps[:, :, None], middle, -scene.turn, side, 1 / side)[:, :, 0]
    anchor = scene.place - _turn_by(scene.middle, scene.turn if spin else None)
    maps = write(maps, anchor, *cells).reshape(*maps.shape[:2], -1)
    return jnp.clip(4 * maps - 1, 0.0, 1.0)


def _where(choice: Bool[Array, "b k"], scene: Scene, values: dict[str, Any]) -> Scene:
    """The scene with these fields in the chosen slots."""
    new = {k: jnp.where(choice[..., None], v, getattr(scene, k)) for k, v in values.items()}
    return scene._replace(**new)
