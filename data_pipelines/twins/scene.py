"""Scenes: what is in a twins world at frame 0, drawn from one integer."""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Bool, Float, Int

from data_pipelines.twins import geometry
from data_pipelines.twins.geometry import unit_vector
from data_pipelines.twins.world import (
    ARENA,
    HUES,
    MAX_OBJECTS,
    SHAPES,
    Index,
    World,
    held_out_pair,
    stream,
)

HAND_RADIUS = 3.5


@dataclasses.dataclass(frozen=True)
class Scene:
    """Everything at frame 0 for N = 8 slots; an empty slot has hue and shape -1."""

    world: World
    seed: int
    position: Float[np.ndarray, "N 2"]  # world units
    velocity: Float[np.ndarray, "N 2"]  # world units a frame
    angle: Float[np.ndarray, " N"]  # radians
    angular_velocity: Float[np.ndarray, " N"]  # radians a frame
    hue: Int[np.ndarray, " N"]  # index into HUES
    shape: Int[np.ndarray, " N"]  # index into SHAPES
    radius: Float[np.ndarray, " N"]  # of the circle of the same area
    mass: Float[np.ndarray, " N"]
    inertia: Float[np.ndarray, " N"]  # 0 means that the object never turns
    friction: Float[np.ndarray, " N"]
    restitution: Float[np.ndarray, " N"]
    depth: Int[np.ndarray, " N"]  # drawing order, the highest in front
    occluders: Float[np.ndarray, "K 4"]  # x0, y0, x1, y1
    hand: Float[np.ndarray, " 3"]  # x, y, radius; radius 0 where there is no hand
    gravity: Float[np.ndarray, " 2"]  # world units a frame^2
    looks: Float[np.ndarray, " 15"]  # greys and texture, see render.py
    drift: Float[np.ndarray, "6 4"]  # of light and camera, see drives.py

    @property
    def present(self) -> Bool[np.ndarray, " N"]:
        return self.hue >= 0


def draw_scene(world: World, seed: int, attempt: int = 0) -> Scene:
    """Draw a scene; `attempt` counts the redraws of those that were too slow."""
    rng = stream(seed, f"scene/{attempt}")
    count = int(rng.integers(world.objects[0], world.objects[1] + 1))
    objects = _draw_objects(world, count, rng)
    occluders = _draw_occluders(world, rng)
    reaches = [
        geometry.reach(s, r)
        for s, r in zip(objects["shape"], objects["radius"], strict=True)
        if s >= 0
    ]
    if world.hand_speed:
        reaches.append(HAND_RADIUS)
    spots = _place(reaches, occluders, rng)
    position, hand = np.zeros((MAX_OBJECTS, 2)), np.zeros(3)
    position[:count] = spots[:count]
    if world.hand_speed:
        hand[:] = *spots[count], HAND_RADIUS
    gravity = np.zeros(2)
    if rng.random() >= world.weightless:
        gravity = rng.uniform(*world.gravity) * unit_vector(rng.uniform(-np.pi, np.pi))
    return Scene(
        world=world,
        seed=seed,
        position=position,
        depth=rng.permutation(MAX_OBJECTS).astype(np.int32),
        occluders=occluders,
        hand=hand,
        gravity=gravity,
        looks=_draw_looks(world, rng),
        drift=_draw_drift(world, rng),
        **objects,
    )


def _draw_objects(world: World, count: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """All per-slot fields but the position. Mass is independent of looks."""
    floats = ("angle", "angular_velocity", "radius", "mass", "inertia", "friction", "restitution")
    out: dict[str, np.ndarray] = {name: np.zeros(MAX_OBJECTS) for name in floats}
    out["velocity"] = np.zeros((MAX_OBJECTS, 2))
    out["hue"] = np.full(MAX_OBJECTS, -1, np.int32)
    out["shape"] = np.full(MAX_OBJECTS, -1, np.int32)
    out["hue"][:count] = rng.permutation(len(HUES))[:count]
    for slot in range(count):
        fitting = fitting_shapes(world, out["hue"][slot])
        out["shape"][slot] = fitting[int(rng.integers(len(fitting)))]
    out["radius"][:count] = rng.uniform(*world.radius, count)
    out["mass"][:count] = 1.0 if world.rigid else np.exp2(rng.uniform(-1, 1, count))
    out["friction"][:count] = rng.uniform(*world.friction, count)
    out["restitution"][:count] = rng.uniform(*world.restitution, count)
    heading, speed = rng.uniform(-np.pi, np.pi, count), rng.uniform(*world.speed, count)
    out["velocity"][:count] = speed[:, None] * unit_vector(heading)
    if not world.rigid:
        out["angle"][:count] = rng.uniform(-np.pi, np.pi, count)
        out["angular_velocity"][:count] = rng.uniform(-0.1, 0.1, count)
        for slot in range(count):
            kind = (int(out["shape"][slot]), out["radius"][slot], out["mass"][slot])
            out["inertia"][slot] = geometry.moment_of_inertia(*kind)
    return out


def fitting_shapes(world: World, hue: Index) -> list[int]:
    """The shapes that an object of this hue may have in this world's split."""
    return [s for s in range(len(SHAPES)) if held_out_pair(hue, s) == world.new_pairs]


def _draw_occluders(world: World, rng: np.random.Generator) -> np.ndarray:
    """Vertical bars of full height, clear of the walls and of each other."""
    count = int(rng.integers(world.occluders[0], world.occluders[1] + 1))
    while True:
        width = rng.uniform(*world.occluder_width, count)
        left = np.sort(rng.uniform(4.0, ARENA - 4.0, count))
        right = left + width
        if np.all(right < ARENA - 4.0) and np.all(left[1:] - right[:-1] > 8.0):
            rows = [[x0, 0.0, x1, ARENA] for x0, x1 in zip(left, right, strict=True)]
            return np.array(rows, np.float64).reshape(count, 4)


def _place(reaches: list[float], occluders: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Centres that touch nothing and, where there is room, are not behind a bar."""
    placed: list[np.ndarray] = []
    tries = 0
    while len(placed) < len(reaches):
        own = reaches[len(placed)]
        spot = rng.uniform(own + 0.5, ARENA - own - 0.5, 2)
        tries += 1
        apart = all(
            np.hypot(*(spot - other)) > own + far + 1.0
            for other, far in zip(placed, reaches, strict=False)
        )
        hidden = any(x0 - own / 2 < spot[0] < x1 + own / 2 for x0, _, x1, _ in occluders)
        if apart and (not hidden or tries > 400):
            placed.append(spot)
        elif tries % 200 == 0:  # painted into a corner: start again
            placed = []
    return np.array(placed)


def _draw_looks(world: World, rng: np.random.Generator) -> np.ndarray:
    looks = np.zeros(15)
    looks[0] = rng.uniform(0.3, 0.5)
    looks[1] = rng.uniform(0.12, 0.2) if rng.random() < 0.5 else rng.uniform(0.6, 0.7)
    looks[2] = 0.76
    for k in range(3):
        wave = 2 * np.pi / rng.uniform(10.0, 28.0) * unit_vector(rng.uniform(0, np.pi))
        looks[3 + 4 * k : 7 + 4 * k] = world.texture, *wave, rng.uniform(0, 2 * np.pi)
    return looks if world.texture else looks * (np.arange(15) < 3)


def _draw_drift(world: World, rng: np.random.Generator) -> np.ndarray:
    drift = np.zeros((6, 4))
    drift[0, 0] = 1.0
    if not world.drifting:
        return drift
    drift[0, 0] = rng.uniform(0.7, 0.94)
    drift[1:3, 0] = rng.uniform(0, 0.14) * unit_vector(rng.uniform(-np.pi, np.pi))
    drift[:, 2] = 1 / rng.uniform(80.0, 240.0, 6)
    drift[:, 3] = rng.uniform(0, 2 * np.pi, 6)
    light, camera = rng.uniform(0, 1, 3), rng.uniform(0.3, 1, 3)
    if rng.random() < 0.5:
        drift[:3, 1] = light * (0.06, 0.04, 0.04)
    if rng.random() < 0.5:
        drift[3:, 1] = camera * (4.0, 4.0, 0.1)
        drift[3:, 0] = -drift[3:, 1] * np.sin(drift[3:, 3])  # starts as the identity
    return drift
