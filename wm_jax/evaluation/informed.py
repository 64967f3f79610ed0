"""Baselines that see with the instrument and are told the rest: constant velocity, and
see-then-simulate, the ceiling for a prediction that is limited by perception alone.

Both state where every object is going to be, so their position error is not read off frames; their
frames are drawn by the world's own renderer, which is told all but the places. Constant velocity is
told the camera and nothing else that moves its places. See-then-simulate is told whatever the
tracker cannot read: shape, size, angle, spin, depth order, occluders, light, camera, masses,
friction, restitution, gravity and the hand's actions. An object that was never in sight during the
context does not exist for them.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Int, UInt8

from wm_jax.evaluation.protocol import Protocol
from wm_jax.evaluation.tracker import Instrument, Tracks
from wm_jax.evaluation.world import Clips, World

CLEAR = 0.5  # less of an object than this tells its middle badly
REFINEMENTS = 6  # times that see-then-simulate corrects the middles of partly hidden objects
FIT_FRAMES = 8  # longest run of frames from which see-then-simulate reads a velocity
SURE = 4  # shortest run whose velocity it believes more than its own simulation
STRAIGHT = 0.12  # world units: a run that departs further from free flight had a collision in it
LOST = 1.0  # world units: a simulated object farther from where it is seen is started anew


class Prediction(NamedTuple):
    """Frames of the horizon and, from baselines that state positions, those by hue."""

    frames: UInt8[np.ndarray, "r t h w 3"]
    stated: Tracks | None = None


class Sight(NamedTuple):
    """What the instrument saw of some frames, by object slot: middles in world units; where any of
    it was seen, and where enough of it to tell its middle."""

    place: Float[np.ndarray, "r t n 2"]
    seen: Bool[np.ndarray, "r t n"]
    clear: Bool[np.ndarray, "r t n"]

    @property
    def used(self) -> Bool[np.ndarray, "r t n"]:
        """Slivers are used only of objects of which there is little better."""
        return self.clear | (self.seen & (self.clear.sum(1, keepdims=True) < SURE))


class Belief(NamedTuple):
    """The scene of the last frame that was seen, which objects are known, and what was seen."""

    scene: Float32[np.ndarray, "r k"]
    known: Bool[np.ndarray, "r n"]
    sight: Sight


def look(
    clips: Clips,
    world: World,
    instrument: Instrument,
    end: int,
    refinements: int = 0,
    begin: int = 0,
) -> Sight:
    """Reads the frames from ``begin`` to ``end``, each on its own. Hue names the slot.

    The centroid of what can be seen of an object is not its middle where something hides a part.
    With ``refinements`` the middles are moved, that many times, towards where the renderer, told
    all but them, shows the centroids that were read.
    """
    some = slice(begin, end)
    tracks, scenes = instrument.track(clips.frames[:, some]), clips.scenes[:, some]
    present, hue = clips.truth.present[:, some], clips.truth.hue[:, some]
    slot_hue = np.where(present, hue, 0)
    seen = np.take_along_axis(tracks.present, slot_hue, 2) & present
    read = np.take_along_axis(tracks.position, slot_hue[..., None], 2)
    read = np.where(seen[..., None], read, 0)
    place = world.to_world(read, scenes)
    clear = seen
    for _ in range(refinements):
        drawn = world.draw(world.put(scenes, position=place, hue=np.where(seen, hue, -1)))
        usable = seen & (drawn.visible > 0)
        shown = np.where(usable[..., None], drawn.centroid, read)
        place = place + world.to_world(read, scenes) - world.to_world(shown, scenes)
        clear = seen & (drawn.visible >= CLEAR)
    return Sight(place, seen, clear)


def constant_velocity(
    clips: Clips, world: World, instrument: Instrument, protocol: Protocol
) -> Prediction:
    """Straight on: least squares on the last three frames in which an object was in sight,
    clipped to the arena."""
    ahead = np.arange(protocol.context, protocol.length)
    place, known = straight_on(clips, world, instrument, protocol.context, ahead)
    return _state(clips, world, instrument, protocol, place, known)


def straight_on(
    clips: Clips, world: World, instrument: Instrument, context: int, ahead: Int[np.ndarray, " a"]
) -> tuple[Float[np.ndarray, "r a n 2"], Bool[np.ndarray, "r n"]]:
    """Where constant velocity says that objects are in the frames ``ahead``, in world units, after
    ``context`` frames; and which of them it saw at all."""
    sight = look(clips, world, instrument, context)
    known = np.any(sight.seen, axis=1)
    # The last three such frames of each object; fewer where it was seen in fewer.
    rank = np.cumsum(sight.seen[:, ::-1], axis=1)[:, ::-1]
    used = (sight.seen & (rank <= 3))[..., None].astype(np.float64)
    times = np.arange(context, dtype=np.float64)[None, :, None, None]
    count = np.maximum(used.sum(1), 1)
    middle, centre = (used * times).sum(1) / count, (used * sight.place).sum(1) / count
    away = (times - middle[:, None]) * used
    spread = (away**2).sum(1)
    velocity = (away * sight.place).sum(1) / np.maximum(spread, 1e-9)
    place = centre[:, None] + velocity[:, None] * (ahead[None, :, None, None] - middle[:, None])
    radius = world.get(clips.scenes[:, context - 1], "radius")[:, None, :, None]
    return np.clip(place, radius, 64 - radius), known


def see_then_simulate(
    clips: Clips, world: World, instrument: Instrument, protocol: Protocol
) -> Prediction:
    """The true simulator, started from what the instrument saw and corrected while it sees."""
    believed, known, _ = believe(clips, world, instrument, protocol.context)
    future = world.future(believed, clips.actions[:, protocol.context - 1 : protocol.length - 1])
    place, angle = world.get(future, "position"), world.get(future, "angle")
    return _state(clips, world, instrument, protocol, place, known, angle)


def believe(
    clips: Clips,
    world: World,
    instrument: Instrument,
    frames: int,
    before: Belief | None = None,
) -> Belief:
    """The scene of the last of the first ``frames`` of each clip, as the instrument saw and the
    simulator continued it, without the objects that were never seen. What is believed ``before``,
    of fewer frames of the same clips, is gone on with."""
    past = 0 if before is None else before.sight.place.shape[1]
    sight = look(clips, world, instrument, frames, REFINEMENTS, past)
    if before is not None:
        joined = (np.concatenate(x, 1) for x in zip(before.sight, sight, strict=True))
        sight = Sight(*joined)
    flight = _fit(sight, world.get(clips.scenes[:, 0], "gravity"))
    hues, used = world.get(clips.scenes[:, :frames], "hue"), sight.used
    if before is None:
        believed, known = clips.scenes[:, 0], np.zeros(hues[:, 0].shape, bool)
    else:
        believed, known = before.scene, before.known
    for t in range(past, frames):
        hue = hues[:, t]
        if t:
            believed = world.advance(believed, clips.actions[:, t - 1])
        place, velocity = world.get(believed, "position"), world.get(believed, "velocity")
        seen, run = used[:, t], flight.frames[:, t]
        known = known & (hue == hues[:, max(t - 1, 0)])  # of another colour, it is another object
        # A short run may hide a collision, which the simulator, where it was right, did not miss.
        lost = ~known | (np.linalg.norm(place - sight.place[:, t], axis=-1) > LOST)
        known |= seen & (run >= 2)
        trust = (run >= SURE) | (seen & lost)
        place = np.where(seen[..., None], sight.place[:, t], place)
        believed = world.put(
            clips.scenes[:, t],
            position=np.where(trust[..., None], flight.place[:, t], place),
            velocity=np.where(trust[..., None], flight.velocity[:, t], velocity),
            hue=np.where(known, hue, -1),
        )
    return Belief(believed, known, sight)


class Flight(NamedTuple):
    """Place and velocity at each frame, from the longest straight run of frames that ends there.

    frames: length of the run; 1 where a velocity could not be read, 0 where nothing was seen
    """

    place: Float[np.ndarray, "r t n 2"]
    velocity: Float[np.ndarray, "r t n 2"]
    frames: Int[np.ndarray, "r t n"]


def _fit(sight: Sight, gravity: Float32[np.ndarray, "r 2"]) -> Flight:
    """Least squares in free flight over the last 2, 3, … frames, as long as they are straight."""
    seen = sight.used
    flight = Flight(sight.place.copy(), np.zeros_like(sight.place), seen.astype(np.int64))
    for length in range(2, FIT_FRAMES + 1):
        back = np.arange(1 - length, 1, dtype=np.float64)
        design = np.stack([np.ones(length), back], 1)
        solve = np.linalg.pinv(design)
        fall = 0.5 * gravity[:, None, None, :] * (back**2)[None, :, None, None]
        for t in range(length - 1, sight.place.shape[1]):
            run = slice(t + 1 - length, t + 1)
            # Without the fall, free flight is a straight line through the last frame's state.
            line = sight.place[:, run] - fall
            fit = np.einsum("ck,rknd->rcnd", solve, line)
            error = np.abs(np.einsum("kc,rcnd->rknd", design, fit) - line).max((1, 3))
            good = seen[:, run].all(1) & (error < STRAIGHT)
            good &= flight.frames[:, t] == length - 1
            flight.place[:, t][good] = fit[:, 0][good]
            flight.velocity[:, t][good] = fit[:, 1][good]
            flight.frames[:, t][good] = length
    return flight


def _state(
    clips: Clips,
    world: World,
    instrument: Instrument,
    protocol: Protocol,
    place: Float[np.ndarray, "r t n 2"],
    known: Bool[np.ndarray, "r n"],
    angle: Float[np.ndarray, "r t n"] | None = None,
) -> Prediction:
    """Draws stated places, and gives them by hue: the visible centroid where at least half of the
    object would be seen (as the truth is compared), else its middle."""
    last = clips.scenes[:, protocol.context - 1]
    told = clips.scenes[:, protocol.context :]
    hue = np.where(known, world.get(last, "hue"), -1)
    hues = np.broadcast_to(hue[:, None], place.shape[:3])
    if angle is None:
        angle = np.broadcast_to(world.get(last, "angle")[:, None], place.shape[:3])
    scenes = world.put(told, position=place, hue=hues, angle=angle)
    drawn = world.draw(scenes)
    seen = drawn.visible >= protocol.visible_share
    position = np.where(seen[..., None], drawn.centroid, world.to_pixels(place, scenes))
    shape = (*place.shape[:2], len(instrument.palette))
    by_hue = np.full((*shape, 2), np.nan, np.float32)
    present = np.zeros(shape, bool)
    index = np.nonzero(hues >= 0)
    where = (index[0], index[1], hues[index])
    by_hue[where], present[where] = position[index], True
    unread = np.full(shape, -1)
    stated = Tracks(present, by_hue, np.zeros(shape, np.float32), unread, np.zeros_like(unread))
    return Prediction(drawn.frames, stated)
