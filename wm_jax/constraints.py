"""Constraints on a future, and changes of the scene or of the actions that meet them.

    found = solve(world, scene, [At("red ball", frame=30, position=(50, 20))])
    found.changes        # [Push(slot, velocity)]: what to do, as a person would write it
    found.reports        # At(...): met, 0.4 px off
    world.rollout(found.scene, 60)

Nobody trained the model for this: its latent state is searched. What may change is the velocity of
the objects that the constraints name (``over='latents'``; each costs `EFFORT` px of error a px a
frame, so what is found stays near what was seen), or what the hand does (``over='actions'``, of a
model that is told actions; see `wm_jax.planning` for plans that look again on the way). Candidates
are rolled out in one batch; the search is `wm_jax.search`.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from wm_jax import naming, shapes, telling
from wm_jax.edit import Change, Push, Who
from wm_jax.errors import UserError
from wm_jax.search import cross_entropy
from wm_jax.shapes import LatentState, Signal
from wm_jax.world import World

#: px a frame (of a frame of 64) that the first round is drawn with.
WIDE = 1.5
#: Largest action, and the frames from one to the next that are chosen; between two it is linear.
FORCE, KNOTS = 1.6, 4
#: px of error that a px a frame costs.
EFFORT = 0.2
#: px of 64 within which a constraint counts as met; and by how much a colour may differ, in RGB,
#: for an object to be seen.
MET, ALIKE = 2.0, 0.35


@dataclasses.dataclass(frozen=True)
class At:
    """``what`` is at a ``position`` (px) in a ``frame`` of the future, the first being 1."""

    what: Who
    frame: int
    position: tuple[float, float]


@dataclasses.dataclass(frozen=True)
class Meet:
    """The middles of ``a`` and ``b`` are within ``within`` px in some frame up to ``by``."""

    a: Who
    b: Who
    by: int
    within: float | None = None


@dataclasses.dataclass(frozen=True)
class Keep:
    """``what`` can be seen (or, not ``visible``, cannot) in every frame up to ``until``."""

    what: Who
    until: int
    visible: bool = True


Constraint = At | Meet | Keep


@dataclasses.dataclass(frozen=True)
class Report:
    """Whether a constraint is met in the future that was found, and by how many px it is missed; of
    `Keep` the share of frames in which it is missed."""

    constraint: Constraint
    met: bool
    off: float

    def __str__(self) -> str:
        unit = "of its frames" if isinstance(self.constraint, Keep) else "px"
        return f"{self.constraint}: {'met' if self.met else 'not met'}, {self.off:.2f} {unit} off"


@dataclasses.dataclass(frozen=True)
class Solution:
    """What was found. ``scene`` has the changes in it; ``actions`` (steps, 2) are to be told to
    `World.rollout` where they were searched."""

    scene: LatentState
    changes: list[Change]
    actions: Float[np.ndarray, "t 2"] | None
    reports: list[Report]

    @property
    def met(self) -> bool:
        return all(report.met for report in self.reports)


class _Future(NamedTuple):
    """Of c candidates: places (px) and whether a slot can be seen, by frame."""

    place: Float[np.ndarray, "c t k 2"]
    seen: Float[np.ndarray, "c t k"]


def solve(
    world: World,
    scene: LatentState,
    constraints: Sequence[Constraint],
    over: str = "latents",
    seed: int = 0,
    told: Mapping[str, Any] | None = None,
    first: Float[np.ndarray, "t 2"] | None = None,
) -> Solution:
    """See the module's docstring. ``scene`` is one stream.

    told:  what else will be told, as `World.rollout` takes it, for as many frames as the last
           constraint needs
    first: actions to start from, of as many frames

    Raises `UserError` for an object that is not there, a place or frame that cannot be, a model
    without slots, and actions that a model is not told.
    """
    problem = _Problem(world, scene, constraints, over, told or {})
    start = None if first is None else knots_of(first)
    return problem.solution(cross_entropy(problem.cost, problem.size, problem.wide, seed, start))


def actions_of(knots: Float[np.ndarray, "*c p"], steps: int) -> Float[np.ndarray, "*c t 2"]:
    """Smooth actions (world units a frame): straight from one knot to the next. A hand that is told
    something else in every frame goes nowhere."""
    at = np.minimum(np.arange(steps) / KNOTS, knots.shape[-1] // 2 - 1)
    low = at.astype(int)
    high = np.minimum(low + 1, knots.shape[-1] // 2 - 1)
    values = knots.reshape(*knots.shape[:-1], -1, 2)
    part = (at - low)[:, None].astype(np.float32)
    return np.clip((1 - part) * values[..., low, :] + part * values[..., high, :], -FORCE, FORCE)


def knots_of(actions: Float[np.ndarray, "t 2"]) -> Float[np.ndarray, " p"]:
    """The inverse of `actions_of`."""
    at = np.minimum(KNOTS * np.arange(knot_count(len(actions))), len(actions) - 1)
    return np.asarray(actions, np.float32)[at].ravel()


def knot_count(steps: int) -> int:
    """Knots of so many frames."""
    return -(-(steps - 1) // KNOTS) + 1


class _Problem:
    """What is searched, what it costs."""

    def __init__(
        self,
        world: World,
        scene: LatentState,
        constraints: Sequence[Constraint],
        over: str,
        told: Mapping[str, Any],
    ):
        self.world, self.scene, self.constraints = world, scene, list(constraints)
        self.unit = world.resolution / 64
        there = world.things(scene)
        if not self.constraints:
            raise UserError("there is no constraint to meet; give At, Meet or Keep.")
        self.steps = max(last_frame(constraint) for constraint in self.constraints)
        self.told = told
        self.slots = [self._slots(constraint, there) for constraint in self.constraints]
        self.over = over
        if over == "actions":
            if "actions" not in world.modalities:
                raise UserError(f"{world.path or 'this model'} is not told actions; use 'latents'.")
            self.size, self.wide = 2 * knot_count(self.steps), FORCE
        elif over == "latents":
            if "push" not in world.edits:
                raise UserError(f"{world.path or 'this model'} has no slots to change.")
            self.free = sorted({slots[0] for slots in self.slots})
            self.size, self.wide = 2 * len(self.free), WIDE * self.unit
        else:
            raise UserError(f"over='{over}' cannot be searched; choose latents or actions.")
        needs_pictures = any(isinstance(c, Keep) for c in self.constraints)
        self._roll = _program(world.model, needs_pictures)

    def _slots(self, constraint: Constraint, there: Sequence[naming.Thing]) -> list[int]:
        if last_frame(constraint) < 1:
            raise UserError(f"{constraint}: the first frame of the future is 1.")
        if isinstance(constraint, At):
            side = self.world.resolution
            if not all(0 <= x <= side for x in constraint.position):
                raise UserError(f"{constraint}: that is outside the frame of {side} px.")
        whom = (constraint.a, constraint.b) if isinstance(constraint, Meet) else (constraint.what,)
        return [naming.choose(who, there, self.world.resolution).slot for who in whom]

    def changes(self, drawn: np.ndarray) -> list[Change]:
        if self.over == "actions":
            return []
        return [
            Push(slot, (float(x), float(y)))
            for slot, (x, y) in zip(self.free, drawn.reshape(-1, 2), strict=True)
        ]

    def cost(self, drawn: Float[np.ndarray, "c p"]) -> Float[np.ndarray, " c"]:
        future = self._imagine(drawn)
        missed = [
            self._missed(constraint, slots, future)
            for constraint, slots in zip(self.constraints, self.slots, strict=True)
        ]
        effort = EFFORT * np.abs(drawn).mean(1) * (1 if self.over == "latents" else self.unit)
        return sum(missed) + effort

    def _missed(self, constraint: Constraint, slots: list[int], future: _Future) -> np.ndarray:
        """px; of `Keep` 16 px of 64 for every frame that is wrong, over frames."""
        if isinstance(constraint, At):
            place = future.place[:, constraint.frame - 1, slots[0]]
            return np.linalg.norm(place - np.array(constraint.position), axis=-1)
        if isinstance(constraint, Meet):
            a, b = (future.place[:, : constraint.by, slot] for slot in slots)
            apart = np.linalg.norm(a - b, axis=-1).min(1)
            return np.maximum(apart - self._within(constraint), 0.0)
        seen = future.seen[:, : constraint.until, slots[0]]
        return 16 * self.unit * (seen != constraint.visible).mean(1)

    def _within(self, constraint: Meet) -> float:
        return 12.0 * self.unit if constraint.within is None else constraint.within

    def _imagine(self, drawn: Float[np.ndarray, "c p"]) -> _Future:
        count = len(drawn)
        scene = jax.tree.map(lambda x: jnp.repeat(x, count, 0), self.scene)
        told = self.world.told(self.told, (count, self.steps))
        if scene.pending is not None:
            spread = jax.tree.map(lambda x: jnp.repeat(x[:, None], self.steps, 1), scene.pending)
            told = telling.with_held(told, spread)
        if self.over == "actions":
            value = actions_of(drawn, self.steps)
            told = told._replace(actions=Signal(jnp.asarray(value), told.actions.mask | True))
        else:
            for one in zip(*(self.changes(row) for row in drawn), strict=True):
                scene = self.world.edit_each(scene, one)[0]
        place, seen = self._roll(self.world.params, scene._replace(pending=None), told)
        return _Future(self.world.resolution * np.asarray(place), np.asarray(seen))

    def solution(self, best: np.ndarray) -> Solution:
        future = self._imagine(best[None])
        reports = []
        for constraint, slots in zip(self.constraints, self.slots, strict=True):
            off = float(self._missed(constraint, slots, future)[0])
            if isinstance(constraint, Keep):
                off /= 16 * self.unit
            allowed = 0.0 if isinstance(constraint, Meet | Keep) else MET * self.unit
            reports.append(Report(constraint, off <= allowed + 1e-6, off))
        changes = self.changes(best)
        scene = self.world.edit(self.scene, changes)
        actions = None
        if self.over == "actions":
            actions = actions_of(best, self.steps)
        return Solution(scene, changes, actions, reports)


@functools.lru_cache(maxsize=8)
def _program(model: Any, pictures: bool) -> Any:
    """Compiled once for all that is asked of a model over the same number of frames."""
    return jax.jit(functools.partial(_roll, model, pictures))


def last_frame(constraint: Constraint) -> int:
    """The last frame of the future that it is about."""
    if isinstance(constraint, At):
        return constraint.frame
    return constraint.by if isinstance(constraint, Meet) else constraint.until


def _roll(
    model: Any, pictures: bool, params: Any, scene: LatentState, told: Any
) -> tuple[Float[Array, "c t k 2"], Array]:
    """Places of slots in futures, and, where ``pictures`` are asked for, whether their colour is
    seen there."""

    def on(state, told_t):
        state = model.step(params, state, told_t, None, None)
        objects = model.objects(params, state)
        seen = objects.present > naming.THERE
        if pictures:
            seen &= _shown(model.decode(params, state), objects)
        return state, (objects.place, seen)

    _, (place, seen) = jax.lax.scan(on, scene, shapes.time_major(told))
    return jnp.swapaxes(place, 0, 1), jnp.swapaxes(seen, 0, 1)


def _shown(frames: Float[Array, "c h w 3"], objects: Any) -> Array:
    """Whether the picture has an object's colour where its middle is."""
    size = frames.shape[1]
    at = jnp.clip((objects.place * size).astype(int), 0, size - 1)
    there = jax.vmap(lambda frame, spots: frame[spots[:, 1], spots[:, 0]])(frames, at)
    return jnp.linalg.norm(there - objects.colour, axis=-1) < ALIKE
