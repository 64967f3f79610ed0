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
from jaxtyping import Array, Bool, Float, Int

from wm_jax import naming, shapes, telling
from wm_jax.edit import Change, Push, Who
from wm_jax.errors import UserError
from wm_jax.search import cross_entropy, descend
from wm_jax.shapes import Conditions, LatentState, Signal
from wm_jax.world import World

#: px a frame (of a frame of 64) that the first round is drawn with.
WIDE = 1.5
#: Largest action, and the frames from one to the next that are chosen; between two it is linear.
FORCE, KNOTS = 1.6, 4
#: px of error that a px a frame costs.
EFFORT = 0.2
#: px of 64 that a frame in which a `Keep` is wrong counts as.
FRAME = 16
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


class _Aims(NamedTuple):
    """The numbers of n constraints, so that one program serves all of the same kinds.

    slots:    whom it is about; the same twice if one
    last:     the last frame that it is about, from 1
    position: px                within: px
    visible:  what `Keep` asks
    """

    slots: Int[np.ndarray, "n 2"]
    last: Int[np.ndarray, " n"]
    position: Float[np.ndarray, "n 2"]
    within: Float[np.ndarray, " n"]
    visible: Bool[np.ndarray, " n"]


def solve(
    world: World,
    scene: LatentState,
    constraints: Sequence[Constraint],
    over: str = "latents",
    seed: int = 0,
    told: Mapping[str, Any] | None = None,
    first: Float[np.ndarray, "t 2"] | None = None,
    method: str = "cem",
) -> Solution:
    """See the module's docstring. ``scene`` is one stream.

    told:   what else will be told, as `World.rollout` takes it, for as many frames as the last
            constraint needs
    first:  actions to start from, of as many frames
    method: 'cem', or for actions 'gradient': `search.descend` through the rollout

    Raises `UserError` for an object that is not there, a place or frame that cannot be, a model
    without slots, and actions that a model is not told.
    """
    problem = _Problem(world, scene, constraints, over, told or {})
    start = None if first is None else knots_of(first)
    space = problem.size, problem.wide, seed, start
    if method == "cem":
        return problem.solution(cross_entropy(problem.cost, *space))
    if method != "gradient" or over != "actions":
        raise UserError(
            f"method='{method}' does not search over='{over}'; 'cem' does, and 'gradient' actions."
        )
    return problem.solution(descend(problem.cost_and_slope, *space))


def actions_of(knots: Float[np.ndarray, "*c p"], steps: int) -> Float[np.ndarray, "*c t 2"]:
    """Smooth actions (world units a frame): straight from one knot to the next. A hand that is told
    something else in every frame goes nowhere."""
    return np.clip(_between(steps) @ knots.reshape(*knots.shape[:-1], -1, 2), -FORCE, FORCE)


def knots_of(actions: Float[np.ndarray, "t 2"]) -> Float[np.ndarray, " p"]:
    """The inverse of `actions_of`."""
    at = np.minimum(KNOTS * np.arange(knot_count(len(actions))), len(actions) - 1)
    return np.asarray(actions, np.float32)[at].ravel()


def knot_count(steps: int) -> int:
    """Knots of so many frames."""
    return -(-(steps - 1) // KNOTS) + 1


def _between(steps: int) -> Float[np.ndarray, "t k"]:
    """What each knot has to say in each frame."""
    at, knots = np.arange(steps) / KNOTS, np.arange(knot_count(steps))
    return np.maximum(0.0, 1 - np.abs(at[:, None] - knots)).astype(np.float32)


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
        self._kinds = tuple(type(c) for c in self.constraints)
        self._aims = self._numbers()
        self._missed = _program(world.model, self._kinds)

    def _numbers(self) -> _Aims:
        within = 12.0 * self.unit
        asked = [getattr(c, "within", None) for c in self.constraints]
        return _Aims(
            np.array([(slots[0], slots[-1]) for slots in self.slots]),
            np.array([last_frame(c) for c in self.constraints]),
            np.array([getattr(c, "position", (0, 0)) for c in self.constraints], np.float32),
            np.array([within if x is None else x for x in asked], np.float32),
            np.array([getattr(c, "visible", True) for c in self.constraints]),
        )

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
        return self._imagine(drawn).sum(1) + self._effort * np.abs(drawn).mean(1)

    def cost_and_slope(self, drawn: Float[np.ndarray, "c p"]):
        """The same, and its gradient, (c, p)."""
        slope = _slope_program(self.world.model, self._kinds, self.steps)
        scene, told = self._begin(len(drawn))
        inputs = (self.world.params, scene, told, self._aims, self.world.resolution)
        values, slopes = slope(jnp.asarray(drawn), *inputs, self._effort)
        return np.asarray(values), np.asarray(slopes)

    @property
    def _effort(self) -> float:
        return EFFORT * (1 if self.over == "latents" else self.unit)

    def _begin(self, count: int) -> tuple[LatentState, Conditions]:
        """As many copies of the scene, and what is told besides."""
        scene = jax.tree.map(lambda x: jnp.repeat(x, count, 0), self.scene)
        told = self.world.told(self.told, (count, self.steps))
        if scene.pending is not None:
            spread = jax.tree.map(lambda x: jnp.repeat(x[:, None], self.steps, 1), scene.pending)
            told = telling.with_held(told, spread)
        return scene._replace(pending=None), told

    def _imagine(self, drawn: Float[np.ndarray, "c p"]) -> Float[np.ndarray, "c n"]:
        """By how much each constraint is missed: see `_missed`."""
        scene, told = self._begin(len(drawn))
        if self.over == "actions":
            told = _acting(told, jnp.asarray(actions_of(drawn, self.steps)))
        else:
            for one in zip(*(self.changes(row) for row in drawn), strict=True):
                scene = self.world.edit_each(scene, one)[0]
        inputs = (self.world.params, scene, told, self._aims, self.world.resolution)
        return np.asarray(self._missed(*inputs))

    def solution(self, best: np.ndarray) -> Solution:
        reports = []
        missed = self._imagine(best[None])[0]
        for constraint, off in zip(self.constraints, map(float, missed), strict=True):
            if isinstance(constraint, Keep):
                off /= FRAME * self.unit
            allowed = 0.0 if isinstance(constraint, Meet | Keep) else MET * self.unit
            reports.append(Report(constraint, off <= allowed + 1e-6, off))
        changes = self.changes(best)
        scene = self.world.edit(self.scene, changes)
        actions = None
        if self.over == "actions":
            actions = actions_of(best, self.steps)
        return Solution(scene, changes, actions, reports)


@functools.lru_cache(maxsize=8)
def _program(model: Any, kinds: tuple[type, ...]) -> Any:
    """Compiled once for all that is asked of a model over the same number of frames."""
    return jax.jit(functools.partial(_missed, model, kinds))


@functools.lru_cache(maxsize=8)
def _slope_program(model: Any, kinds: tuple[type, ...], steps: int) -> Any:
    between = _between(steps)

    def total(drawn, params, scene, told, aims, side, effort):
        actions = jnp.clip(between @ drawn.reshape(len(drawn), -1, 2), -FORCE, FORCE)
        missed = _missed(model, kinds, params, scene, _acting(told, actions), aims, side)
        costs = missed.sum(1) + effort * jnp.abs(drawn).mean(1)
        return costs.sum(), costs

    def costs_and_slopes(drawn, *inputs):
        (_, costs), slopes = jax.value_and_grad(total, has_aux=True)(drawn, *inputs)
        return costs, slopes

    return jax.jit(costs_and_slopes)


def _acting(told: Conditions, actions: Float[Array, "c t 2"]) -> Conditions:
    return told._replace(actions=Signal(actions, jnp.ones_like(told.actions.mask)))


def last_frame(constraint: Constraint) -> int:
    """The last frame of the future that it is about."""
    if isinstance(constraint, At):
        return constraint.frame
    return constraint.by if isinstance(constraint, Meet) else constraint.until


def _missed(
    model: Any,
    kinds: tuple[type, ...],
    params: Any,
    scene: LatentState,
    told: Conditions,
    aims: _Aims,
    side: int,
) -> Float[Array, "c n"]:
    """By how many px each constraint is missed in the futures of c scenes; of `Keep`, `FRAME` px of
    64 for every frame that is wrong, over frames."""
    pictures = Keep in kinds

    def on(state, told_t):
        state = model.step(params, state, told_t, None, None)
        objects = model.objects(params, state)
        seen = objects.present > naming.THERE
        if pictures:
            seen &= _shown(model.decode(params, state), objects)
        return state, (side * objects.place, seen)

    _, (place, seen) = jax.lax.scan(on, scene, shapes.time_major(told))  # (t, c, k, …)
    missed = []
    for i, kind in enumerate(kinds):
        (a, b), last = aims.slots[i], aims.last[i]
        during = (jnp.arange(len(place)) < last)[:, None]
        if kind is At:
            off = place[last - 1, :, a] - aims.position[i]
            missed.append(_length(off))
        elif kind is Meet:
            apart = _length(place[:, :, a] - place[:, :, b])
            least = jnp.where(during, apart, jnp.inf).min(0)
            missed.append(jnp.maximum(least - aims.within[i], 0.0))
        else:
            wrong = (seen[:, :, a] != aims.visible[i]) & during
            missed.append(FRAME * side / 64 * wrong.sum(0) / last)
    return jnp.stack(missed, 1)


def _length(vector: Float[Array, "*lead 2"]) -> Float[Array, "*lead"]:
    """With a gradient where it is zero too."""
    return jnp.sqrt(jnp.square(vector).sum(-1) + 1e-8)


def _shown(frames: Float[Array, "c h w 3"], objects: Any) -> Array:
    """Whether the picture has an object's colour where its middle is."""
    size = frames.shape[1]
    at = jnp.clip((objects.place * size).astype(int), 0, size - 1)
    there = jax.vmap(lambda frame, spots: frame[spots[:, 1], spots[:, 0]])(frames, at)
    return jnp.linalg.norm(there - objects.colour, axis=-1) < ALIKE
