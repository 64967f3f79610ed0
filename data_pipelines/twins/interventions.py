"""The eight interventions: what each does, how one is drawn, how it is said.

An intervention at frame t acts after frame t is drawn, so frame t + 1 is the first to show it.
`params` (8,) float32 holds, unused places 0:

| kind     | target     | params                                                              |
| -------- | ---------- | ------------------------------------------------------------------- |
| move     | object     | x, y: the new place, world units                                    |
| push     | object     | change of velocity x, y, world units a frame                        |
| recolour | object     | new hue                                                             |
| remove   | object     |                                                                     |
| add      | empty slot | x, y, velocity x, y, hue, shape, radius, mass                       |
| light    | -1         | change of gain, gradient x, gradient y                              |
| camera   | -1         | change of pan x, pan y (world units), log zoom                      |
| gravity  | -1         | the new gravity x, y, world units a frame^2                         |
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float

from data_pipelines.twins import geometry, language
from data_pipelines.twins.drives import drift_at
from data_pipelines.twins.geometry import unit_vector
from data_pipelines.twins.scene import HAND_RADIUS, Scene, fitting_shapes
from data_pipelines.twins.world import ARENA, HUES, Index

LIGHT_GAIN = (0.55, 0.94)  # what `light` aims at; drift adds at most 0.06
LIGHT_SLOPE = 0.14  # largest gradient, to which drift adds at most 0.057
CAMERA_PAN, CAMERA_ZOOM = (3.0, 8.0), (0.06, 0.2)


@dataclasses.dataclass(frozen=True)
class Intervention:
    """One named change at one frame; see the table above."""

    kind: str
    frame: int
    target: int
    params: Float[np.ndarray, " 8"]
    sentence: str


@dataclasses.dataclass(frozen=True)
class _View:
    """What a draw may look at: the scene's ranges and the state at the frame."""

    scene: Scene
    frame: int
    state: Mapping[str, np.ndarray]
    radius: np.ndarray
    used: np.ndarray  # hues of all slots ever filled

    def name(self, slot: int) -> str:
        return language.thing(self.state["hue"][slot], self.state["shape"][slot])

    def any_object(self, rng: np.random.Generator) -> int:
        """A random object, one not behind a bar where there is one."""
        slots = np.flatnonzero(self.state["present"])
        x = self.state["position"][slots, 0]
        hidden = np.zeros(len(slots), bool)
        for x0, _, x1, _ in self.scene.occluders:
            hidden |= (x0 < x) & (x < x1)
        slots = slots[~hidden] if not hidden.all() else slots
        return int(rng.choice(slots))

    def free_place(self, rng: np.random.Generator, own: float, ignoring: int = -1):
        """A place with room for a reach of `own`, in the arena and clear of all, or None."""
        others = [
            (self.state["position"][s], geometry.reach(self.state["shape"][s], self.radius[s]))
            for s in np.flatnonzero(self.state["present"])
            if s != ignoring
        ]
        if self.scene.hand[2]:
            others.append((self.state["hand"][:2], HAND_RADIUS))
        for _ in range(200):
            spot = rng.uniform(own + 0.5, ARENA - own - 0.5, 2)
            near = ignoring >= 0 and np.hypot(*(spot - self.state["position"][ignoring])) < 10
            if not near and all(np.hypot(*(spot - o)) > own + far + 1.0 for o, far in others):
                return spot
        return None

    def free_hue(self, rng: np.random.Generator, shape: Index) -> int | None:
        """A hue nothing has had yet, that may go with the shape in this split."""
        hues = [
            h
            for h in range(len(HUES))
            if h not in self.used and shape in fitting_shapes(self.scene.world, h)
        ]
        return int(rng.choice(hues)) if hues else None


def sample_intervention(
    kind: str,
    frame: int,
    scene: Scene,
    state: Mapping[str, np.ndarray],
    rng: np.random.Generator,
    objects: Mapping[str, np.ndarray] | None = None,
) -> Intervention | None:
    """Draw one of a kind, valid in this state; None where this state allows none.

    `state` is `Simulator.state()` at the frame; `objects` the simulator's table
    (`Simulator.objects`) where objects were added or recoloured since frame 0.
    """
    table = objects if objects is not None else {"radius": scene.radius, "hue": scene.hue}
    drawn = _DRAW[kind](_View(scene, frame, state, table["radius"], table["hue"]), rng)
    if drawn is None:
        return None
    target, values, sentence = drawn
    params = np.zeros(8, np.float32)
    params[: len(values)] = values
    return Intervention(kind, int(frame), target, params, sentence)


def _move(view: _View, rng):
    slot = view.any_object(rng)
    own = geometry.reach(view.state["shape"][slot], view.radius[slot])
    spot = view.free_place(rng, own, ignoring=slot)
    if spot is None:
        return None
    place = view.state["position"][slot]
    return slot, spot, language.change("move", f"the {view.name(slot)}", np.asarray(spot), place)


def _push(view: _View, rng):
    slot = view.any_object(rng)
    change = rng.uniform(*view.scene.world.push) * unit_vector(rng.uniform(-np.pi, np.pi))
    return slot, change, language.change("push", f"the {view.name(slot)}", change)


def _recolour(view: _View, rng):
    slot = view.any_object(rng)
    hue = view.free_hue(rng, int(view.state["shape"][slot]))
    if hue is None:
        return None
    return slot, [hue], language.change("recolour", f"the {view.name(slot)}", np.array([hue]))


def _remove(view: _View, rng):
    if view.state["present"].sum() < 2:
        return None
    slot = view.any_object(rng)
    return slot, [], language.change("remove", f"the {view.name(slot)}", np.zeros(0))


def _add(view: _View, rng):
    empty = np.flatnonzero(view.used < 0)
    shape = int(rng.integers(3))
    hue = view.free_hue(rng, shape)
    world = view.scene.world
    radius = rng.uniform(*world.radius)
    spot = view.free_place(rng, geometry.reach(shape, radius))
    if not len(empty) or hue is None or spot is None:
        return None
    velocity = rng.uniform(*world.speed) * unit_vector(rng.uniform(-np.pi, np.pi))
    mass = 1.0 if world.rigid else np.exp2(rng.uniform(-1, 1))
    values = [*spot, *velocity, hue, shape, radius, mass]
    return int(empty[0]), values, language.change("add", "", np.array(values))


def _light(view: _View, rng):
    now = view.state["light"]
    (lowest, highest), least = LIGHT_GAIN, 0.12
    brighter = rng.random() < 0.5 and now[0] + least < highest or now[0] - least < lowest
    span = (now[0] + least, highest) if brighter else (lowest, now[0] - least)
    gain = rng.uniform(*span)
    slope = rng.uniform(0, LIGHT_SLOPE) * unit_vector(rng.uniform(-np.pi, np.pi))
    wobble = drift_at(view.scene, view.frame)[0] - view.scene.drift[:3, 0]
    change = np.array([gain, *slope]) - (now - wobble)
    return -1, change, language.change("light", "", gain - now[:1])


def _camera(view: _View, rng):
    pan = rng.uniform(*CAMERA_PAN) * unit_vector(rng.uniform(-np.pi, np.pi))
    zoom = rng.uniform(*CAMERA_ZOOM) * (1 if rng.random() < 0.5 else -1)
    now = view.state["camera"]
    pan = np.where(np.abs(now[:2] + pan) > 12, -pan, pan)
    zoom = -zoom if abs(now[2] + zoom) > 0.3 else zoom
    values = np.array([*pan, zoom])
    return -1, values, language.change("camera", "", values)


def _gravity(view: _View, rng):
    now = view.state["gravity"]
    turn = rng.uniform(np.pi / 2, np.pi) * (1 if rng.random() < 0.5 else -1)
    direction = np.arctan2(now[1], now[0]) + turn
    new = rng.uniform(0.015, 0.035) * unit_vector(direction)
    return -1, new, language.change("gravity", "", new)


_DRAW = {
    "move": _move, "push": _push, "recolour": _recolour, "remove": _remove, "add": _add,
    "light": _light, "camera": _camera, "gravity": _gravity,
}  # fmt: skip
KINDS = tuple(_DRAW)
