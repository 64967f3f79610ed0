"""The true simulator, started from a state that somebody else saw.

This is the entry point of the see-then-simulate baseline and of every test that perturbs a
state: positions and velocities come from a tracker, the rest is told.

>>> static = static_of(episode)                      # or a dict of the same keys of your own
>>> future = simulate_from(
...     static, position, velocity, angle,           # (N, 2), (N, 2), (N,) at frame c
...     actions=episode["actions"][c:], steps=40,
...     hand=episode["truth/hand"][c, :2], resolution=64,
...     light=episode["light"][c + 1 :], camera=episode["camera"][c + 1 :])
>>> future["position"][0]                            # frame c + 1: horizon step 1
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from data_pipelines.twins.physics import TABLE, Simulator
from data_pipelines.twins.render import render
from data_pipelines.twins.scene import Scene
from data_pipelines.twins.world import WORLDS
from wm_jax.errors import UserError

_FULL_LIGHT, _IDENTITY = np.array([1.0, 0.0, 0.0]), np.zeros(3)


def static_of(episode: Mapping[str, Any], frame: int = 0) -> dict[str, np.ndarray]:
    """What a simulation from `frame` is told: TABLE (N,) each, with hue -1 where a slot is empty
    at that frame, depth (N,), occluders (K,4), looks (15,), gravity (2,), hand_radius ().
    """
    static = {name: np.asarray(episode[f"truth/{name}"]) for name in TABLE[2:]}
    for name in ("hue", "shape", "gravity"):
        static[name] = np.asarray(episode[f"truth/{name}"][frame])
    for name in ("depth", "occluders", "looks"):
        static[name] = np.asarray(episode[f"truth/{name}"])
    static["hand_radius"] = np.asarray(episode["truth/hand"][frame, 2])
    return static


def start(
    static: Mapping[str, Any],
    position: Float[np.ndarray, "N 2"],
    velocity: Float[np.ndarray, "N 2"],
    angle: Float[np.ndarray, " N"] | None = None,
    *,
    angular_velocity: Float[np.ndarray, " N"] | None = None,
    hand: Float[np.ndarray, " 2"] | None = None,
    light: Float[np.ndarray, " 3"] = _FULL_LIGHT,
    camera: Float[np.ndarray, " 3"] = _IDENTITY,
) -> Simulator:
    """A Simulator in this state: world units, a frame; light and camera stay as given.

    Angles and angular velocities are 0 where they are None. Raises UserError for a present
    object whose position or velocity isn't finite.
    """
    hue = np.asarray(static["hue"], np.int32)
    state = {
        "position": _float(position),
        "velocity": _float(velocity),
        "angle": np.zeros(len(hue)) if angle is None else _float(angle),
        "angular_velocity": np.zeros(len(hue))
        if angular_velocity is None
        else _float(angular_velocity),
    }
    for name, value in state.items():
        if not np.isfinite(value[hue >= 0]).all():
            slots = np.flatnonzero((hue >= 0) & ~np.isfinite(value.reshape(len(hue), -1)).all(1))
            raise UserError(
                f"the {name} of object {slots[0]} isn't finite; give a number, or hue -1 to leave "
                "the object out."
            )
    drift = np.zeros((6, 4))
    drift[:, 0] = [*light, *camera]
    rigid = not np.any(_float(static["inertia"])[hue >= 0])
    scene = Scene(
        world=WORLDS["twins:motion" if rigid else "twins:full"],
        seed=-1,
        hue=hue,
        **{name: _float(static[name]) for name in TABLE[2:]},
        shape=np.asarray(static["shape"], np.int32),
        depth=np.asarray(static["depth"], np.int32),
        occluders=_float(static["occluders"]),
        looks=_float(static["looks"]),
        gravity=_float(static["gravity"]),
        hand=np.zeros(3) if hand is None else np.array([*hand[:2], float(static["hand_radius"])]),
        drift=drift,
        **state,
    )
    return Simulator(scene)


def simulate_from(
    static: Mapping[str, Any],
    position: Float[np.ndarray, "N 2"],
    velocity: Float[np.ndarray, "N 2"],
    angle: Float[np.ndarray, " N"] | None = None,
    actions: Float[np.ndarray, "_ 2"] | None = None,
    steps: int = 1,
    *,
    angular_velocity: Float[np.ndarray, " N"] | None = None,
    hand: Float[np.ndarray, " 2"] | None = None,
    light: Float[np.ndarray, "_ 3"] | None = None,
    camera: Float[np.ndarray, "_ 3"] | None = None,
    resolution: int | None = None,
) -> dict[str, np.ndarray]:
    """Simulate `steps` frames ahead; row k of every result is k + 1 frames after the start.

    `actions[k]` acts on the way to row k. `light` and `camera` are those of the rows, full light
    and the still camera where None. Returns the fields of `Simulator.state`, stacked, and with a
    `resolution` (px) also those of `render`.
    """
    sim = start(static, position, velocity, angle, angular_velocity=angular_velocity, hand=hand)
    rows = []
    for k in range(steps):
        sim.step((0.0, 0.0) if actions is None else actions[k])
        rows.append(sim.state())
    out = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    for name, told in (("light", light), ("camera", camera)):
        if told is not None:
            out[name] = _float(told[:steps])
    if resolution is not None:
        scene = sim.scene
        out |= render(
            out,
            radius=scene.radius,
            depth=scene.depth,
            occluders=scene.occluders,
            looks=scene.looks,
            resolution=resolution,
        )
    return out


def _float(value: Any) -> np.ndarray:
    return np.asarray(value, np.float64)
