"""The true simulator: rigid bodies in the plane (pymunk), eight substeps a frame.

`Simulator` steps one scene; it can be copied, edited and started from any state. Restitution
and friction of a contact are the products of the two partners'; walls have 1, so against them
an object shows its own; the hand has restitution 0.5 and friction 1.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pymunk
from jaxtyping import Float

from data_pipelines.twins import geometry
from data_pipelines.twins.drives import drift_at
from data_pipelines.twins.interventions import Intervention
from data_pipelines.twins.scene import Scene
from data_pipelines.twins.world import ARENA, MAX_OBJECTS

SUBSTEPS = 8
WALLS = ("left", "right", "top", "bottom")
WALL, HAND = MAX_OBJECTS, MAX_OBJECTS + 1  # columns of `contact` after the objects
HAND_MASS = 8.0
HAND_RESTITUTION = 0.5
HAND_PULL = 1.0  # largest acceleration towards the desired velocity, world units a frame^2

TABLE = ("hue", "shape", "radius", "mass", "inertia", "friction", "restitution")

# Collision types: slot + 1, then the four walls, then the hand.
_FIRST_WALL = MAX_OBJECTS + 1
_HAND_TYPE = _FIRST_WALL + len(WALLS)


class Contact(NamedTuple):
    """The beginning of a touch, in substep 0..7 of the step just made."""

    substep: int
    a: int  # object slot
    b: int  # object slot, WALL or HAND
    wall: str  # which wall, or ''
    impulse: float  # mass x world units a frame


def _log_contact(arbiter: pymunk.Arbiter, space: pymunk.Space, data: dict[str, Any]) -> None:
    one, other = arbiter.shapes
    low, high = sorted((one.collision_type, other.collision_type))
    impulse = arbiter.total_impulse.length
    data["log"].append((data["substep"], low, high, impulse, arbiter.is_first_contact))


class Simulator:
    """One scene in motion.

    >>> sim = Simulator(draw_scene(get_world("full"), seed=1))
    >>> sim.step((0.5, 0.0))               # the hand's desired velocity, world units a frame
    >>> twin = sim.copy()
    >>> twin.apply(intervention)           # after frame t is drawn, before the step to t + 1
    >>> twin.step((0.5, 0.0))
    >>> twin.state()["position"]           # (N, 2)

    Attributes: `frame`; `objects`, the table of what belongs to a slot ((N,) each of TABLE);
    `contact` (N, N + 2), impulses of the last step with each object, the walls, the hand;
    `onsets`, the touches that began in it.
    """

    def __init__(self, scene: Scene):
        self.scene = scene
        self.frame = 0
        self._history: list[tuple[str, tuple]] = []
        self.objects = {name: getattr(scene, name).copy() for name in TABLE}
        self.light_offset, self.camera_offset = np.zeros(3), np.zeros(3)
        self.contact = np.zeros((MAX_OBJECTS, MAX_OBJECTS + 2))
        self.onsets: list[Contact] = []
        self.space = pymunk.Space()
        self.space.collision_slop = 0.01  # world units; the default 0.1 would show
        self.space.gravity = float(scene.gravity[0]), float(scene.gravity[1])
        self._listen()
        self._add_walls()
        self.bodies: dict[int, pymunk.Body] = {}
        for slot in map(int, np.flatnonzero(scene.present)):
            self._add_body(slot, scene.position[slot], scene.velocity[slot], scene.angle[slot])
            self.bodies[slot].angular_velocity = float(scene.angular_velocity[slot])
        self.hand: pymunk.Body | None = None
        if scene.hand[2]:
            self._add_hand(scene.hand)

    def _listen(self) -> None:
        self._heard: dict[str, Any] = {"log": [], "substep": 0}
        self.space.on_collision(post_solve=_log_contact, data=self._heard)

    def _add_walls(self) -> None:
        thick, far = 16.0, 3 * ARENA
        low, high = -thick, ARENA + thick
        ends = (
            ((low, -far), (low, far)),
            ((high, -far), (high, far)),
            ((-far, low), (far, low)),
            ((-far, high), (far, high)),
        )
        for k, (start, stop) in enumerate(ends):
            wall = pymunk.Segment(self.space.static_body, start, stop, thick)
            wall.elasticity = wall.friction = 1.0
            wall.collision_type = _FIRST_WALL + k
            self.space.add(wall)

    def _add_body(self, slot: int, position, velocity, angle: float) -> None:
        table = {name: column[slot] for name, column in self.objects.items()}
        body = pymunk.Body(float(table["mass"]), float(table["inertia"]) or float("inf"))
        body.position = float(position[0]), float(position[1])
        body.velocity = float(velocity[0]), float(velocity[1])
        body.angle = float(angle)
        kind, radius = int(table["shape"]), float(table["radius"])
        outline: pymunk.Shape
        if kind == geometry.CIRCLE:
            outline = pymunk.Circle(body, radius)
        else:
            outline = pymunk.Poly(body, geometry.corners(kind, radius))
        outline.elasticity = float(table["restitution"])
        outline.friction = float(table["friction"])
        outline.collision_type = slot + 1
        self.space.add(body, outline)
        self.bodies[slot] = body

    def _add_hand(self, hand: np.ndarray) -> None:
        self.hand = pymunk.Body(HAND_MASS, float("inf"))
        self.hand.position = float(hand[0]), float(hand[1])
        disc = pymunk.Circle(self.hand, float(hand[2]))
        disc.elasticity, disc.friction = HAND_RESTITUTION, 1.0
        disc.collision_type = _HAND_TYPE
        self.space.add(self.hand, disc)

    def step(self, action: Sequence[float] | Float[np.ndarray, " 2"] = (0.0, 0.0)) -> None:
        """Advance one frame under the hand's desired velocity, world units a frame."""
        wanted, gravity = (float(action[0]), float(action[1])), self.space.gravity
        self._history.append(("step", (wanted,)))
        self._heard["log"].clear()
        for substep in range(SUBSTEPS):
            self._heard["substep"] = substep
            if self.hand is not None:
                self._drive(self.hand, *wanted, gravity)
            self.space.step(1.0 / SUBSTEPS)
        self.frame += 1
        self._read_contacts()

    def _drive(self, hand: pymunk.Body, wanted_x: float, wanted_y: float, gravity) -> None:
        """Pull the hand to its desired velocity with bounded force; gravity leaves it alone."""
        vx, vy = hand.velocity
        ax, ay = (wanted_x - vx) * SUBSTEPS, (wanted_y - vy) * SUBSTEPS
        size = (ax * ax + ay * ay) ** 0.5
        scale = HAND_MASS * (HAND_PULL / size if size > HAND_PULL else 1.0)
        gx, gy = gravity
        hand.force = ax * scale - HAND_MASS * gx, ay * scale - HAND_MASS * gy

    def _read_contacts(self) -> None:
        self.contact = np.zeros((MAX_OBJECTS, MAX_OBJECTS + 2))
        self.onsets = []
        for substep, low, high, impulse, begins in self._heard["log"]:
            if low > MAX_OBJECTS:  # the hand on a wall
                continue
            a, b, wall = low - 1, high - 1, ""
            if high == _HAND_TYPE:
                b = HAND
            elif high >= _FIRST_WALL:
                b, wall = WALL, WALLS[high - _FIRST_WALL]
            self.contact[a, b] += impulse
            if b < MAX_OBJECTS:
                self.contact[b, a] += impulse
            if begins:
                self.onsets.append(Contact(substep, a, b, wall, impulse))

    def state(self) -> dict[str, np.ndarray]:
        """The state now, float64: position, velocity (N,2), angle, angular_velocity, present,
        hue, shape (N), contact (N,N+2), hand (3) as x, y, radius, gravity (2), light (3) as
        gain and gradient, camera (3) as pan and log zoom. Absent slots hold 0, hue and shape -1.
        """
        position, velocity = np.zeros((MAX_OBJECTS, 2)), np.zeros((MAX_OBJECTS, 2))
        angle, spin = np.zeros(MAX_OBJECTS), np.zeros(MAX_OBJECTS)
        present = np.zeros(MAX_OBJECTS, bool)
        for slot, body in self.bodies.items():
            position[slot], velocity[slot] = body.position, body.velocity
            angle[slot], spin[slot], present[slot] = body.angle, body.angular_velocity, True
        hand = self.scene.hand.copy()
        if self.hand is not None:
            hand[:2] = self.hand.position
        light, camera = drift_at(self.scene, self.frame)
        return {
            "position": position,
            "velocity": velocity,
            "angle": angle,
            "angular_velocity": spin,
            "present": present,
            "hue": np.where(present, self.objects["hue"], -1).astype(np.int32),
            "shape": np.where(present, self.objects["shape"], -1).astype(np.int32),
            "contact": self.contact,
            "hand": hand,
            "gravity": np.array(self.space.gravity),
            "light": light + self.light_offset,
            "camera": camera + self.camera_offset,
        }

    def set_state(self, position, velocity, angle=None, angular_velocity=None, hand=None) -> None:
        """Put the present objects at these places (N,2) with these velocities (N,2).

        `angle` and `angular_velocity` (N,), and `hand` (2,2), its place and velocity, are kept
        where they are None; empty slots are ignored.
        """
        given = (position, velocity, angle, angular_velocity, hand)
        self._history.append(("set_state", copy.deepcopy(given)))
        for slot, body in self.bodies.items():
            body.position = float(position[slot][0]), float(position[slot][1])
            body.velocity = float(velocity[slot][0]), float(velocity[slot][1])
            if angle is not None:
                body.angle = float(angle[slot])
            if angular_velocity is not None:
                body.angular_velocity = float(angular_velocity[slot])
        if hand is not None and self.hand is not None:
            (x, y), (vx, vy) = hand
            self.hand.position, self.hand.velocity = (float(x), float(y)), (float(vx), float(vy))

    def apply(self, change: Intervention) -> None:
        """Make one intervention now. Its `frame` is not looked at."""
        self._history.append(("apply", (change,)))
        slot, values = change.target, [float(v) for v in change.params]
        if change.kind == "move":
            self.bodies[slot].position = values[0], values[1]
        elif change.kind == "push":
            vx, vy = self.bodies[slot].velocity
            self.bodies[slot].velocity = vx + values[0], vy + values[1]
        elif change.kind == "recolour":
            self.objects["hue"][slot] = int(values[0])
        elif change.kind == "remove":
            body = self.bodies.pop(slot)
            self.space.remove(body, *body.shapes)
        elif change.kind == "add":
            self._add_object(slot, values)
        elif change.kind == "light":
            self.light_offset = self.light_offset + values[:3]
        elif change.kind == "camera":
            self.camera_offset = self.camera_offset + values[:3]
        elif change.kind == "gravity":
            self.space.gravity = values[0], values[1]
        else:
            raise ValueError(f"unknown intervention '{change.kind}'")

    def _add_object(self, slot: int, values: Sequence[float]) -> None:
        """Fill an empty slot; friction and restitution are the middle of the world's range."""
        x, y, vx, vy, hue, shape, radius, mass = values
        world = self.scene.world
        row = (
            hue, shape, radius, mass,
            0.0 if world.rigid else geometry.moment_of_inertia(int(shape), radius, mass),
            sum(world.friction) / 2, sum(world.restitution) / 2,
        )  # fmt: skip
        for name, value in zip(TABLE, row, strict=True):
            self.objects[name][slot] = value
        self._add_body(slot, (x, y), (vx, vy), 0.0)

    def copy(self) -> Simulator:
        """A twin that continues to the same bits until one of the two is edited.

        It replays this simulator's history, 0.1 ms a frame: `pymunk.Space.copy` loses the order
        in which simultaneous contacts are solved, and with it the last bits.
        """
        twin = Simulator(self.scene)
        for name, arguments in self._history:
            getattr(twin, name)(*arguments)
        return twin
