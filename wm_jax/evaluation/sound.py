"""Use of sound: what is struck where nobody sees it, is it better known to who hears it?

Objects are asked for that something touched, in the horizon, while they could not be seen, from
when they can be seen again. A model that is told sound is told the true one, none, and that of
another episode. What there is to gain is shown by see-then-simulate told when, and by what impulse,
an object was struck; without that it is what it is elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, UInt8

from wm_jax.evaluation import statistics
from wm_jax.evaluation.protocol import CausalProtocol
from wm_jax.evaluation.score import capped
from wm_jax.evaluation.statistics import Sums
from wm_jax.evaluation.world import Clips, World

#: What is heard in place of the true sound.
OTHERWISE = ("silent", "shuffled")
#: A blow that differs from the told one by at most this share of it is the same.
NEAR = 0.3
#: metric -> (unit, whether more is better)
METRICS = {"struck_error": ("px", False), "sound_gain": ("px", True)}


@runtime_checkable
class HearsSound(Protocol):
    """A subject of the causal suite to which sound may make a difference."""

    def hear(
        self, state: Any, clips: Clips, sound: str | None, sample: int
    ) -> UInt8[np.ndarray, "r t h w 3"] | None:
        """The horizon when it hears the true sound (None) or one of `OTHERWISE`, which ``clips``
        say; None where it is not told sound, or cannot be told that."""
        ...


class Struck(NamedTuple):
    """In the horizon of some clips, by object slot.

    hit:   touched by something between two frames in neither of which it could be seen
    asked: can be seen, at most ``heard_frames`` after it was hit
    """

    hit: Bool[np.ndarray, "r t n"]
    asked: Bool[np.ndarray, "r t n"]


def struck(clips: Clips, protocol: CausalProtocol) -> Struck:
    """Read off the truth of clips as the world made them."""
    visible, context = clips.truth.visible, protocol.context
    hidden = visible < protocol.unseen_share
    both = hidden[:, context:] & hidden[:, context - 1 : -1]
    hit = clips.truth.touching[:, context:] & clips.truth.present[:, context:] & both
    recent = np.zeros_like(hit)
    for late in range(min(protocol.heard_frames, hit.shape[1])):
        recent[:, late:] |= hit[:, : hit.shape[1] - late]
    return Struck(hit, recent & (visible[:, context:] >= protocol.visible_share))


def heard_otherwise(clips: Clips, protocol: CausalProtocol) -> dict[str | None, Clips] | None:
    """The clips by what is heard in them (None: the true sound); None where nothing is ever struck
    out of sight."""
    if not struck(clips, protocol).asked.any():
        return None
    return {None: clips} | {sound: _hearing(clips, sound, protocol) for sound in OTHERWISE}


def _hearing(clips: Clips, sound: str, protocol: CausalProtocol) -> Clips:
    signal, first = clips.conditions.audio, protocol.context
    value, mask = np.array(signal.value), np.array(signal.mask)
    if sound == "silent":
        mask[:, first:] = False
    else:
        apart = max(1, len(protocol.starts))  # clips of an episode follow each other
        value[:, first:] = np.roll(value[:, first:], apart, axis=0)
    told = signal._replace(value=jnp.asarray(value), mask=jnp.asarray(mask))
    return clips._replace(conditions=clips.conditions._replace(audio=told))


def told_of_blows(
    start: Float[np.ndarray, "r k"],
    future: Float[np.ndarray, "r t k"],
    clips: Clips,
    world: World,
    protocol: CausalProtocol,
) -> Float[np.ndarray, "r t k"]:
    """What is believed to come after ``start`` (``future``), when every blow out of sight is told,
    its frame and its impulse. One that it makes itself, at that frame or beside it and by nearly
    that impulse, stays. Else the object flew freely since it went out of sight, or since the blow
    before, until its velocity changes as it truly did."""
    out, context = future.copy(), protocol.context
    hit = struck(clips, protocol).hit
    seen = clips.truth.visible[:, context:] >= protocol.unseen_share
    true = world.get(clips.scenes, "velocity")[:, context - 1 :]
    change = true[:, 1:] - true[:, :-1]
    for clip in np.flatnonzero(hit.any((1, 2))):
        for now in np.flatnonzero(hit[clip].any(1)):
            known = (seen | hit)[clip, :now]
            own = np.diff(_speeds(start[clip], out[clip], world), axis=0)
            new = hit[clip, now] & ~_is_made(own, change[clip, now], int(now))
            if not new.any():
                continue
            scene = out[clip, now]
            place, speed = (np.array(world.get(scene, n)) for n in ("position", "velocity"))
            for slot in np.flatnonzero(new):
                last = np.flatnonzero(known[:, slot])
                from_ = out[clip, last[-1]] if len(last) else start[clip]
                frames = now - (last[-1] if len(last) else -1)
                was, went = (world.get(from_, n)[slot] for n in ("position", "velocity"))
                pull = world.get(from_, "gravity")
                # The blow falls, on average, in the middle of the frame; gravity is in the change.
                place[slot] = was + frames * went + (frames**2 - 1) / 2 * pull
                place[slot] += change[clip, now, slot] / 2
                speed[slot] = went + (frames - 1) * pull + change[clip, now, slot]
            out[clip, now] = scene = world.put(scene, position=place, velocity=speed)
            left = hit.shape[1] - now - 1
            if left:
                actions = clips.actions[clip, context + now :][:left]
                out[clip, now + 1 :] = world.future(scene[None], actions[None])[0]
    lit = {name: world.get(future, name) for name in ("light", "camera")}
    return world.put(out, **lit)


def _speeds(start: np.ndarray, scenes: np.ndarray, world: World) -> Float[np.ndarray, "t n 2"]:
    return world.get(np.concatenate([start[None], scenes]), "velocity")


def _is_made(
    own: Float[np.ndarray, "t n 2"], change: Float[np.ndarray, "n 2"], now: int
) -> Bool[np.ndarray, " n"]:
    """Whether velocities change by nearly that in the three frames around ``now``."""
    around = own[max(0, now - 1) : now + 2].sum(0)
    off, size = (np.linalg.norm(x, axis=-1) for x in (around - change, change))
    return off <= NEAR * np.maximum(size, 1e-6)


def measure(
    heard: Mapping[str | None, tuple[np.ndarray, np.ndarray]],
    clips: Clips,
    protocol: CausalProtocol,
) -> dict[tuple[str, str | None], Sums]:
    """By metric and control, per step: the error of what was struck unseen, px, and by how much
    the true sound, or another episode's, makes it smaller than silence does. ``heard`` are
    whereabouts (see `causal.places`), of the true sound under None."""
    ahead = jax.tree.map(lambda x: x[:, protocol.context :], clips.truth)
    asked = struck(clips, protocol).asked
    count = int(clips.unit.max()) + 1
    sums: dict[str | None, Sums] = {}
    for sound, (place, found) in heard.items():
        off = capped(place, found, ahead, protocol.cap)
        sums[sound] = statistics.sums_by_unit(np.where(asked, off, 0.0), clips.unit, asked, count)
    out = {("struck_error", sound): s for sound, s in sums.items()}
    for sound in (None, "shuffled"):
        if "silent" in sums and sound in sums:
            silent = sums["silent"]
            out["sound_gain", sound] = Sums(silent.total - sums[sound].total, silent.weight)
    return out
