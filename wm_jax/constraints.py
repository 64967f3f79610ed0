"""Constraints on a future, and changes of the scene or of the actions that meet them.

    found = solve(world, scene, [At("red ball", frame=30, position=(50, 20))])
    found.changes        # [Push(slot, velocity)]: what to do, as a person would write it
    found.reports        # At(...): met, 0.4 px off
    world.rollout(found.scene, 60)

Nobody trained the model for this: its latent state is searched. What may change is the velocity of
the objects that the constraints name (``over='latents'``; each costs `EFFORT` px of error a px a
frame, so what is found stays near what was seen), or what the hand does (``over='actions'``, of a
model that is told actions, or ``over='discrete_actions'``, which of so many ``choices``; see
`wm_jax.planning` for plans that look again on the way). Candidates are rolled out in one batch; the
search is `wm_jax.search`. With ``doubts`` each of them is judged in as many scenes that differ by
as little as a model may be wrong: what only just works is not chosen.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from wm_jax import naming, telling
from wm_jax.asked import (
    FORCE,
    FRAME,
    Aims,
    At,
    Constraint,
    Keep,
    Meet,
    acting,
    actions_of,
    choices_of,
    choosing,
    drawn_of,
    knot_count,
    knots_of,
    last_frame,
    program,
    slope_program,
)
from wm_jax.edit import Change, Push
from wm_jax.errors import UserError
from wm_jax.search import cross_entropy, descend
from wm_jax.shapes import CHOICES, Conditions, LatentState
from wm_jax.world import World

#: px a frame (of a frame of 64) that the first round is drawn with.
WIDE = 1.5
#: px of error that a px a frame costs.
EFFORT = 0.2
#: px of 64 within which a constraint counts as met.
MET = 2.0
#: How far things may be from where a model that doubts believes them, px of 64 and px a frame, and
#: what a hand is told from what it does, world units a frame: standard deviations.
DOUBT = (0.3, 0.05, 0.1)


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


#: What a hand does in each frame: a velocity, or which of some choices.
Actions = Float[np.ndarray, "t 2"] | Int[np.ndarray, " t"]


@dataclasses.dataclass(frozen=True)
class Solution:
    """What was found. ``scene`` has the changes in it; ``actions`` (steps, 2), or which (steps,),
    are to be told to `World.rollout` where they were searched."""

    scene: LatentState
    changes: list[Change]
    actions: Actions | None
    reports: list[Report]

    @property
    def met(self) -> bool:
        return all(report.met for report in self.reports)


def solve(
    world: World,
    scene: LatentState,
    constraints: Sequence[Constraint],
    over: str = "latents",
    seed: int = 0,
    told: Mapping[str, Any] | None = None,
    first: Actions | None = None,
    method: str = "cem",
    doubts: int = 1,
    choices: int = 0,
) -> Solution:
    """See the module's docstring. ``scene`` is one stream.

    told:    what else will be told, as `World.rollout` takes it, for as many frames as the last
             constraint needs
    first:   actions to start from, of as many frames
    method:  'cem', or for actions 'gradient': `search.descend` through the rollout
    doubts:  scenes that each candidate is judged in, the first of them ``scene``: see `DOUBT`
    choices: how many discrete actions there are, numbered from 0

    Raises `UserError` for an object that is not there, a place or frame that cannot be, a model
    without slots, and actions that a model is not told.
    """
    problem = _Problem(world, scene, constraints, over, told or {}, doubts, seed, choices)
    start = None if first is None else problem.drawn_of(first)
    space = problem.size, problem.wide, seed, start
    if method == "cem":
        return problem.solution(cross_entropy(problem.cost, *space))
    if method != "gradient" or over != "actions":
        raise UserError(
            f"method='{method}' does not search over='{over}'; 'cem' does, and 'gradient' actions."
        )
    return problem.solution(descend(problem.cost_and_slope, *space))


class _Problem:
    """What is searched, what it costs."""

    def __init__(
        self,
        world: World,
        scene: LatentState,
        constraints: Sequence[Constraint],
        over: str,
        told: Mapping[str, Any],
        doubts: int,
        seed: int,
        choices: int,
    ):
        self.world, self.scene, self.constraints = world, scene, list(constraints)
        self.unit = world.resolution / 64
        there = world.things(scene)
        if not self.constraints:
            raise UserError("there is no constraint to meet; give At, Meet or Keep.")
        self.steps = max(last_frame(constraint) for constraint in self.constraints)
        if doubts < 1:
            raise UserError(f"doubts={doubts}: judge plans in at least one scene.")
        self.told = told
        self.slots = [self._slots(constraint, there) for constraint in self.constraints]
        self.over, self.choices = over, choices
        if over in ("actions", "discrete_actions") and over not in world.modalities:
            raise UserError(f"{world.path or 'this model'} is not told {over}; use 'latents'.")
        if over == "actions":
            self.size, self.wide = 2 * knot_count(self.steps), FORCE
        elif over == "discrete_actions":
            if not 2 <= choices <= CHOICES:
                raise UserError(f"choices={choices}: say how many there are, 2 to {CHOICES}.")
            self.size, self.wide = self.drawn_of(np.zeros(self.steps, np.int32)).size, 1.0
        elif over == "latents":
            if "push" not in world.edits:
                raise UserError(f"{world.path or 'this model'} has no slots to change.")
            self.free = sorted({slots[0] for slots in self.slots})
            self.size, self.wide = 2 * len(self.free), WIDE * self.unit
        else:
            raise UserError(
                f"over='{over}' cannot be searched; choose latents, actions or discrete_actions."
            )
        self._scenes, self._astray = self._doubted(doubts, np.random.default_rng((seed, doubts)))
        self._kinds = tuple(type(c) for c in self.constraints)
        self._aims = self._numbers()
        self._missed = program(world.model, self._kinds)

    def _numbers(self) -> Aims:
        within = 12.0 * self.unit
        asked = [getattr(c, "within", None) for c in self.constraints]
        return Aims(
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

    def drawn_of(self, actions: Actions) -> Float[np.ndarray, " p"]:
        """The inverse of `actions`."""
        if self.over == "discrete_actions":
            return drawn_of(actions, self.choices)
        return knots_of(actions)

    def actions(self, drawn: Float[np.ndarray, "*c p"]) -> np.ndarray | None:
        """What is done in each frame, (*c, t, 2) or which (*c, t); None where nothing is."""
        if self.over == "discrete_actions":
            return choices_of(drawn, self.steps, self.choices)
        return actions_of(drawn, self.steps) if self.over == "actions" else None

    def changes(self, drawn: np.ndarray) -> list[Change]:
        if self.over != "latents":
            return []
        return [
            Push(slot, (float(x), float(y)))
            for slot, (x, y) in zip(self.free, drawn.reshape(-1, 2), strict=True)
        ]

    def _doubted(
        self, doubts: int, rng: np.random.Generator
    ) -> tuple[LatentState, Float[np.ndarray, "s p"]]:
        """The scenes in which all is judged, the first as it is, and what is added to all that is
        done in each."""

        def wrong(size: float, *shape: int) -> Float[np.ndarray, "s *shape"]:
            """Nothing at first, and nothing in the mean."""
            drawn = rng.normal(0, size, (doubts - 1, *shape))
            drawn = drawn - drawn.mean(0) if doubts > 1 else drawn
            return np.concatenate([np.zeros((1, *shape)), drawn]).astype(np.float32)

        place, speed, act = DOUBT
        scenes = jax.tree.map(lambda x: jnp.repeat(x, doubts, 0), self.scene)
        if doubts > 1 and hasattr(self.world.model, "nudged"):
            objects = self.world.objects(self.scene)
            assert objects is not None
            there = np.shape(objects.place)[1:]
            by = wrong(place / 64, *there), wrong(speed / 64, *there)
            scenes = self.world.model.nudged(self.world.params, scenes, *by)
        return scenes, wrong(act if self.over == "actions" else 0.0, self.size)

    def cost(self, drawn: Float[np.ndarray, "c p"]) -> Float[np.ndarray, " c"]:
        return self._imagine(drawn).sum(2).mean(1) + self._effort * np.abs(drawn).mean(1)

    def cost_and_slope(self, drawn: Float[np.ndarray, "c p"]):
        """The same, and its gradient, (c, p)."""
        slope = slope_program(self.world.model, self._kinds, self.steps)
        scene, told = self._begin(len(drawn))
        inputs = (self.world.params, scene, told, self._aims, self.world.resolution)
        found = slope(jnp.asarray(self._everywhere(drawn)), *inputs, self._effort)
        values, slopes = (np.asarray(x).reshape(*self._each, *x.shape[1:]).mean(1) for x in found)
        return values, slopes

    @property
    def _effort(self) -> float:
        return EFFORT * {"latents": 1.0, "actions": self.unit, "discrete_actions": 0.0}[self.over]

    @property
    def _each(self) -> tuple[int, int]:
        """What is split into candidates and scenes."""
        return -1, len(self._astray)

    def _everywhere(self, drawn: Float[np.ndarray, "c p"]) -> Float[np.ndarray, "cs p"]:
        """Each candidate as it comes out in each scene."""
        return (drawn[:, None] + self._astray).reshape(-1, self.size).astype(np.float32)

    def _begin(self, count: int) -> tuple[LatentState, Conditions]:
        """The scenes as often, and what is told besides."""
        scene = jax.tree.map(lambda x: jnp.tile(x, (count, *[1] * (x.ndim - 1))), self._scenes)
        held = telling.throughout(scene.pending, self.steps)
        lead = (len(scene.step), self.steps)
        told = telling.with_held(self.world.told(self.told, lead), held)
        return scene._replace(pending=None), told

    def _imagine(self, drawn: Float[np.ndarray, "c p"]) -> Float[np.ndarray, "c s n"]:
        """By how much each constraint is missed in each scene: see `_missed`."""
        scene, told = self._begin(len(drawn))
        every = self._everywhere(drawn)
        if (acts := self.actions(every)) is not None:
            told = (acting if self.over == "actions" else choosing)(told, jnp.asarray(acts))
        else:
            for one in zip(*(self.changes(row) for row in every), strict=True):
                scene = self.world.edit_each(scene, one)[0]
        inputs = (self.world.params, scene, told, self._aims, self.world.resolution)
        return np.asarray(self._missed(*inputs)).reshape(*self._each, len(self.constraints))

    def solution(self, best: np.ndarray) -> Solution:
        reports = []
        missed = self._imagine(best[None])[0, 0]
        for constraint, off in zip(self.constraints, map(float, missed), strict=True):
            if isinstance(constraint, Keep):
                off /= FRAME * self.unit
            allowed = 0.0 if isinstance(constraint, Meet | Keep) else MET * self.unit
            reports.append(Report(constraint, off <= allowed + 1e-6, off))
        changes = self.changes(best)
        scene = self.world.edit(self.scene, changes)
        return Solution(scene, changes, self.actions(best), reports)
