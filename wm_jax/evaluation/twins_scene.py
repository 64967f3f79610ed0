"""Scenes of the twins world as vectors: what is where in one, and the simulator in its state."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float32

from data_pipelines.twins import start
from data_pipelines.twins.physics import Simulator
from data_pipelines.twins.world import MAX_OBJECTS

Episode = Mapping[str, Any]

_N, _OCCLUDERS = MAX_OBJECTS, 4

#: The fields of a scene vector, in their order, each with its shape.
FIELDS: dict[str, tuple[int, ...]] = {
    "position": (_N, 2),
    "velocity": (_N, 2),
    **dict.fromkeys(("angle", "angular_velocity", "hue", "shape", "radius", "mass"), (_N,)),
    **dict.fromkeys(("inertia", "friction", "restitution", "depth"), (_N,)),
    "occluders": (_OCCLUDERS, 4),
    "hand": (3,),
    "hand_velocity": (2,),
    "gravity": (2,),
    "looks": (15,),
    "light": (3,),
    "camera": (3,),
}
_SIZES = [int(np.prod(shape)) for shape in FIELDS.values()]
_STARTS = dict(zip(FIELDS, np.concatenate([[0], np.cumsum(_SIZES)[:-1]]).tolist(), strict=True))
SCENE_SIZE = sum(_SIZES)

_WHOLE_NUMBERS = ("hue", "shape", "depth")
_CONSTANT = ("radius", "mass", "inertia", "friction", "restitution", "depth", "looks")
_MOVING = ("position", "velocity", "angle", "angular_velocity", "hue", "shape", "hand", "gravity")
#: What moves of a body, in the order in which `run` reads it.
_OF_A_BODY = (("position", 2), ("velocity", 2), ("angle", 1), ("angular_velocity", 1))
TRUTH = (*_CONSTANT, *_MOVING, "present", "visible_fraction", "centroid", "contact", "occluders")


def get(scenes: Float32[np.ndarray, "*lead k"], field: str) -> np.ndarray:
    """A field of some scenes."""
    shape, start = FIELDS[field], _STARTS[field]
    value = scenes[..., start : start + int(np.prod(shape))]
    value = value.reshape(*scenes.shape[:-1], *shape)
    return value.astype(np.int32) if field in _WHOLE_NUMBERS else value


def put(scenes: Float32[np.ndarray, "*lead k"], **fields: np.ndarray) -> np.ndarray:
    """A copy of the scenes with these fields replaced."""
    out = scenes.copy()
    for name, value in fields.items():
        size = int(np.prod(FIELDS[name]))
        start = _STARTS[name]
        out[..., start : start + size] = value.reshape(*scenes.shape[:-1], size)
    return out


def simulator(scene: Float32[np.ndarray, " k"]) -> Simulator:
    """The true simulator in the state of a scene."""
    fields = {name: get(scene, name) for name in FIELDS}
    fields["occluders"] = real(fields["occluders"])
    hand = fields["hand"]
    simulator = start(
        fields | {"hand_radius": hand[2]},
        fields["position"],
        fields["velocity"],
        fields["angle"],
        angular_velocity=fields["angular_velocity"],
        hand=hand[:2] if hand[2] else None,
        light=fields["light"],
        camera=fields["camera"],
    )
    if simulator.hand is not None:
        x, y = map(float, fields["hand_velocity"])
        simulator.hand.velocity = x, y
    return simulator


def read(scene: Float32[np.ndarray, " k"], simulator: Simulator) -> np.ndarray:
    """The scene with all that moves as it is in the simulator."""
    state = simulator.state()
    moved = {name: np.asarray(state[name], np.float32) for name in _MOVING}
    if simulator.hand is not None:
        moved["hand_velocity"] = np.array(simulator.hand.velocity, np.float32)
    return put(scene, **moved)


def run(
    scene: Float32[np.ndarray, " k"], actions: Float32[np.ndarray, "t a"]
) -> Float32[np.ndarray, "t k"]:
    """The true scenes of the next frames: what `read` reads after each, all of them at once."""
    simulated = simulator(scene)
    rows = np.repeat(read(scene, simulated)[None], len(actions), 0)
    moving = list(simulated.bodies.items())
    columns = [
        _STARTS[name] + size * slot + axis
        for slot, _ in moving
        for name, size in _OF_A_BODY
        for axis in range(size)
    ]
    bodies, hand = [body for _, body in moving], simulated.hand
    if hand is not None:
        columns += [_STARTS[name] + axis for name in ("hand", "hand_velocity") for axis in (0, 1)]
    values = []
    for action in actions:
        simulated.step(action)
        now: list[float] = []
        for body in bodies:
            now += [*body.position, *body.velocity, body.angle, body.angular_velocity]
        if hand is not None:
            now += [*hand.position, *hand.velocity]
        values.append(now)
    rows[:, columns] = np.array(values).reshape(len(actions), len(columns))
    return rows


def real(occluders: np.ndarray) -> np.ndarray:
    """Without the rows that only fill a scene vector up."""
    return occluders[occluders[:, 2] > 0]


def scenes_of(episode: Episode) -> Float32[np.ndarray, "t k"]:
    """The true scene vector of every frame of an episode."""
    length = len(episode["frames"])
    hand = np.asarray(episode["truth/hand"], np.float32)
    occluders = np.zeros(FIELDS["occluders"], np.float32)
    occluders[: len(episode["truth/occluders"])] = episode["truth/occluders"]
    values = {
        "occluders": occluders,
        "hand_velocity": np.diff(hand[:, :2], axis=0, prepend=hand[:1, :2]),
        "light": episode["light"],
        "camera": episode["camera"],
    }
    values |= {name: episode[f"truth/{name}"] for name in (*_CONSTANT, *_MOVING)}
    rows = []
    for name, shape in FIELDS.items():
        value = np.asarray(values[name], np.float32)
        rows.append(np.broadcast_to(value, (length, *shape)).reshape(length, -1))
    return np.concatenate(rows, 1)
