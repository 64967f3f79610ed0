"""Plans: what the hand should do so that the future is as asked, looking again on the way.

    done = pursue(world, scene, [At("red ball", frame=24, position=(50, 20))], act)

``act`` is the world outside: it takes actions (k, 2), or with ``choices`` which (k,), does them,
and returns the k frames that came of it. Every `LOOK` frames the model watches what really happened
and searches the rest anew, starting from what is left of the plan: model-predictive control, with
the cross-entropy method (as in PlaNet, Hafner et al. 2019) or down the gradient.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import UInt8

from wm_jax.asked import At, Constraint, Meet, last_frame
from wm_jax.constraints import Actions, Report, solve
from wm_jax.edit import Who
from wm_jax.errors import UserError
from wm_jax.naming import Thing, choose
from wm_jax.shapes import LatentState
from wm_jax.world import World

#: Frames that a plan is followed before it is made anew.
LOOK = 8
#: Scenes that differ by what a model may be wrong by, in which each plan is judged.
DOUBTS = 4

Act = Callable[[Actions], UInt8[np.ndarray, "k h w 3"]]


@dataclasses.dataclass(frozen=True)
class Pursuit:
    """What was done: ``actions`` (t, 2), or which (t,), and what each plan on the way promised,
    first to last. ``scene`` is the model's after the last frame, which it has seen."""

    actions: Actions
    promised: list[list[Report]]
    scene: LatentState


def pursue(
    world: World,
    scene: LatentState,
    goals: Sequence[Constraint],
    act: Act,
    *,
    seed: int = 0,
    told: Mapping[str, Any] | None = None,
    method: str = "cem",
    look: int = LOOK,
    doubts: int = DOUBTS,
    choices: int = 0,
) -> Pursuit:
    """See the module's docstring; ``told`` is what else will be told (`World.rollout`), of all
    frames up to the last goal, ``method`` that of `constraints.solve`, ``look`` how many frames
    pass from one plan to the next, ``doubts`` and ``choices`` those of `solve`: of a model that is
    told discrete actions, how many there are. Raises `UserError` as `solve` does. Whom a goal is
    about is settled in ``scene``: later a point may be somebody else's."""
    there = world.things(scene)
    goals = [_settled(goal, there, world.resolution) for goal in goals]
    told = {name: np.asarray(value) for name, value in (told or {}).items()}
    total = max((last_frame(goal) for goal in goals), default=0)
    done: list[np.ndarray] = []
    promised: list[list[Report]] = []
    first: Any = None
    over = "discrete_actions" if choices else "actions"
    for begin in range(0, max(total, 1), look):
        left = [_later(goal, begin) for goal in goals if last_frame(goal) > begin]
        ahead = {name: value[begin:total] for name, value in told.items()}
        try:
            how = seed + begin, ahead, first, method, doubts, choices
            found = solve(world, scene, left, over, *how)
            plan = found.actions
            promised.append(found.reports)
        except UserError:
            if first is None:
                raise
            plan = first  # it lost sight of what it is after, and goes on as it meant to
        assert plan is not None
        now, first = plan[:look], plan[look:]
        frames = act(now)
        heard = {name: value[: len(now)] for name, value in ahead.items()}
        scene = world.watch(scene, frames, **heard, **{over: now})
        done.append(now)
    return Pursuit(np.concatenate(done), promised, scene)


def _settled(goal: Constraint, there: Sequence[Thing], resolution: int) -> Constraint:
    """The goal, about slots."""

    def slot(who: Who) -> int:
        return choose(who, there, resolution).slot

    if isinstance(goal, Meet):
        return dataclasses.replace(goal, a=slot(goal.a), b=slot(goal.b))
    return dataclasses.replace(goal, what=slot(goal.what))


def _later(goal: Constraint, begin: int) -> Constraint:
    """The goal, ``begin`` frames later."""
    if isinstance(goal, At):
        return dataclasses.replace(goal, frame=goal.frame - begin)
    if isinstance(goal, Meet):
        return dataclasses.replace(goal, by=goal.by - begin)
    return dataclasses.replace(goal, until=goal.until - begin)
