"""Physics of a rollout, judged for itself: walls hold, energy lasts, contacts keep momentum and
bounce as they should. A future may be another one than the truth's and still be a possible one.

Everything is read off frames by the instrument, so the truth's own frames tell what that costs.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from wm_jax.evaluation.protocol import CausalProtocol
from wm_jax.evaluation.statistics import Sums, sums_by_unit
from wm_jax.evaluation.world import Clips, World

#: metric -> unit
METRICS = {
    "wall_penetration": "px",
    "energy_ratio": "1",
    "restitution_error": "1",
    "momentum_error": "1",
}
#: Of a circle, a square and a triangle of the same area: radius of the largest circle inside.
INSIDE = np.array([1.0, np.sqrt(np.pi) / 2, np.sqrt(np.pi / (3 * np.sqrt(3)))])


class Course(NamedTuple):
    """Objects over the horizon, in world units: where they are, NaN where they are not found."""

    place: Float[np.ndarray, "r t n 2"]
    radius: Float[np.ndarray, "r n"]
    inside: Float[np.ndarray, "r n"]
    mass: Float[np.ndarray, "r n"]
    restitution: Float[np.ndarray, "r n"]


def course(
    place: Float[np.ndarray, "r t n 2"],
    found: Bool[np.ndarray, "r t n"],
    clips: Clips,
    world: World,
    protocol: CausalProtocol,
) -> Course:
    """From places in px, as `causal.places` gives them."""
    ahead = clips.scenes[:, protocol.context :]
    start = clips.scenes[:, protocol.context - 1]
    there = world.to_world(np.where(found[..., None], place, 0.0), ahead)
    radius = world.get(start, "radius")
    inside = radius * INSIDE[np.maximum(world.get(start, "shape"), 0)]
    told = (world.get(start, name) for name in ("mass", "restitution"))
    return Course(np.where(found[..., None], there, np.nan), radius, inside, *told)


def free(clips: Clips, world: World, protocol: CausalProtocol) -> Bool[np.ndarray, " r"]:
    """Whether nothing but contacts changes a speed: no gravity and no hand."""
    start = clips.scenes[:, protocol.context - 1]
    return (world.get(start, "gravity") == 0).all(-1) & (world.get(start, "hand")[:, 2] == 0)


def measure(
    own: Course, true: Course, clips: Clips, world: World, protocol: CausalProtocol
) -> dict[str, Sums]:
    """Sums per episode of every metric; over steps of the energy, else over the whole rollout."""
    number = int(clips.unit.max()) + 1
    alone = free(clips, world, protocol)

    def sums(value: np.ndarray, where: np.ndarray) -> Sums:
        return sums_by_unit(value[:, None], clips.unit, where[:, None], number)

    gone, asked = _penetration(own)
    bounced, bounces = _restitution(own)
    lost, meetings = _momentum(own)
    return {
        "wall_penetration": sums(gone * protocol.unit, asked),
        "energy_ratio": _energy(own, true, alone, clips.unit, number),
        "restitution_error": sums(bounced, bounces),
        "momentum_error": sums(lost, meetings & alone[:, None, None]),
    }


def _penetration(own: Course) -> tuple[np.ndarray, np.ndarray]:
    """World units by which each object was in a wall, at its worst; and whether it was there."""
    edge = np.minimum(own.place, 64 - own.place).min(-1)
    deep = np.maximum(own.inside[:, None] - edge, 0)
    there = ~np.isnan(edge).all(1)
    return np.where(there, np.nanmax(np.nan_to_num(deep, nan=0.0), axis=1), 0), there


def _energy(own: Course, true: Course, alone: np.ndarray, unit: np.ndarray, number: int) -> Sums:
    """Kinetic energy of the objects that are found, over that of the same ones in the truth, both
    from displacements over `LAG` frames, which the instrument's jitter hardly changes."""
    energies = []
    for one in (own, true):
        moved = np.full(one.place.shape[:3], np.nan)
        moved[:, LAG:] = np.square(one.place[:, LAG:] - one.place[:, :-LAG]).sum(-1)
        energies.append(moved * one.mass[:, None])
    both = ~np.isnan(energies[0]) & ~np.isnan(energies[1]) & alone[:, None, None]
    total, weight = (sums_by_unit(e, unit, both, number).total for e in energies)
    return Sums(total, weight)


LAG = 4  # frames over which an energy is read
RUN = 3  # frames before and after a contact over which a speed is read
SLOW = 0.4  # world units a frame: less says little about a bounce


def _speeds(own: Course) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Around each step from frame t to t + 1: speeds before and after, (r, s, n, 2), and the frame
    t; NaN where an object is not found or did not fly straight."""
    place, count = own.place, own.place.shape[1]
    frames = np.arange(RUN, count - RUN - 1)
    steps = np.diff(place, axis=1)
    out = []
    for first in (-RUN, 1):
        each = np.stack([steps[:, frames + first + k] for k in range(RUN)])
        straight = np.abs(each - each.mean(0)).max((0, -1)) < 0.15
        out.append(np.where(straight[..., None], each.mean(0), np.nan))
    return out[0], out[1], frames


def _restitution(own: Course) -> tuple[np.ndarray, np.ndarray]:
    """At the bounces off walls: how far the speed after, over that before, is from the truth; per
    clip, step, object and axis, and where there was one."""
    before, after, frames = _speeds(own)
    here = own.place[:, frames]
    toward = np.where(before > 0, 64 - here, here)
    near = toward < own.radius[:, None, :, None] + 2 * np.abs(before) + 1
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = np.abs(after) / np.abs(before)
        turned = (before * after < 0) & near & (np.abs(before) > SLOW)
        same = np.abs(after - before)[..., ::-1] < 0.1  # along the wall: no other contact
    off = np.abs(ratio - own.restitution[:, None, :, None])
    happened = turned & same
    return np.where(happened, off, 0), happened


def _momentum(own: Course) -> tuple[np.ndarray, np.ndarray]:
    """At the contacts of two: change of their momentum over what they bring; per clip, step and
    pair, and where there was one."""
    before, after, frames = _speeds(own)
    first, second = np.triu_indices(before.shape[2], 1)
    mass = own.mass[:, None, :, None]
    gap = own.place[:, frames][:, :, second] - own.place[:, frames][:, :, first]
    apart = np.linalg.norm(gap, axis=-1)
    normal = gap / np.maximum(apart, 1e-6)[..., None]
    closing, parting = (
        ((v[:, :, second] - v[:, :, first]) * normal).sum(-1) for v in (before, after)
    )
    reach = own.radius[:, first] + own.radius[:, second]
    with np.errstate(invalid="ignore", divide="ignore"):
        met = (closing < -SLOW) & (parting > 0) & (apart < 1.3 * reach[:, None] + np.abs(closing))
        both = [mass[:, :, i] * v[:, :, i] for v in (before, after) for i in (first, second)]
        brought = sum(np.linalg.norm(p, axis=-1) for p in both[:2])
        off = np.linalg.norm(both[2] + both[3] - both[0] - both[1], axis=-1) / brought
    return np.where(met, off, 0), met
