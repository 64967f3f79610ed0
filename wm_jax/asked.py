"""What can be asked of a future, as numbers, and by how much a future misses it.

Constraints become arrays (`Aims`), so that one compiled program serves all of the same kinds; what
a hand does is written as knots, of which actions are straight lines from one to the next.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from wm_jax import naming, shapes
from wm_jax.edit import Who
from wm_jax.shapes import Conditions, LatentState, Signal

#: Largest action, and the frames from one to the next that are chosen; between two it is linear.
FORCE, KNOTS = 1.6, 4
#: px of 64 that a frame in which a `Keep` is wrong counts as.
FRAME = 16
#: By how much a colour may differ, in RGB, for an object to be seen.
ALIKE = 0.35


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


def last_frame(constraint: Constraint) -> int:
    """The last frame of the future that it is about."""
    if isinstance(constraint, At):
        return constraint.frame
    return constraint.by if isinstance(constraint, Meet) else constraint.until


class Aims(NamedTuple):
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


def actions_of(knots: Float[np.ndarray, "*c p"], steps: int) -> Float[np.ndarray, "*c t 2"]:
    """Smooth actions (world units a frame): straight from one knot to the next. A hand that is told
    something else in every frame goes nowhere."""
    return np.clip(between(steps) @ knots.reshape(*knots.shape[:-1], -1, 2), -FORCE, FORCE)


def knots_of(actions: Float[np.ndarray, "t 2"]) -> Float[np.ndarray, " p"]:
    """The inverse of `actions_of`."""
    at = np.minimum(KNOTS * np.arange(knot_count(len(actions))), len(actions) - 1)
    return np.asarray(actions, np.float32)[at].ravel()


def choices_of(
    drawn: Float[np.ndarray, "*c p"], steps: int, choices: int
) -> Int[np.ndarray, "*c t"]:
    """Discrete actions, each held for `KNOTS` frames: of as many numbers the place of the largest.
    So normal distributions of numbers, which a search narrows, are distributions of choices."""
    which = drawn.reshape(*drawn.shape[:-1], -1, choices).argmax(-1)
    return which[..., np.arange(steps) // KNOTS].astype(np.int32)


def drawn_of(which: Int[np.ndarray, " t"], choices: int) -> Float[np.ndarray, " p"]:
    """The inverse of `choices_of`: a one for what is chosen."""
    return np.eye(choices, dtype=np.float32)[which[::KNOTS]].ravel()


def knot_count(steps: int) -> int:
    """Knots of so many frames."""
    return -(-(steps - 1) // KNOTS) + 1


def between(steps: int) -> Float[np.ndarray, "t k"]:
    """What each knot has to say in each frame."""
    at, knots = np.arange(steps) / KNOTS, np.arange(knot_count(steps))
    return np.maximum(0.0, 1 - np.abs(at[:, None] - knots)).astype(np.float32)


@functools.lru_cache(maxsize=8)
def program(model: Any, kinds: tuple[type, ...]) -> Any:
    """`missed`, compiled once for all that is asked of a model over as many frames."""
    return jax.jit(functools.partial(missed, model, kinds))


@functools.lru_cache(maxsize=8)
def slope_program(model: Any, kinds: tuple[type, ...], steps: int) -> Any:
    """Costs of knots (c, p) and their gradient, through the rollout."""
    share = between(steps)

    def total(drawn, params, scene, told, aims, side, effort):
        actions = jnp.clip(share @ drawn.reshape(len(drawn), -1, 2), -FORCE, FORCE)
        off = missed(model, kinds, params, scene, acting(told, actions), aims, side)
        costs = off.sum(1) + effort * jnp.abs(drawn).mean(1)
        return costs.sum(), costs

    def costs_and_slopes(drawn, *inputs):
        (_, costs), slopes = jax.value_and_grad(total, has_aux=True)(drawn, *inputs)
        return costs, slopes

    return jax.jit(costs_and_slopes)


def acting(told: Conditions, actions: Float[Array, "c t 2"]) -> Conditions:
    """What is told, and the actions."""
    return told._replace(actions=Signal(actions, jnp.ones_like(told.actions.mask)))


def choosing(told: Conditions, which: Int[Array, "c t"]) -> Conditions:
    """What is told, and the discrete actions."""
    value = which[..., None].astype(jnp.float32)
    mask = jnp.ones_like(told.discrete_actions.mask)
    return told._replace(discrete_actions=Signal(value, mask))


def missed(
    model: Any,
    kinds: tuple[type, ...],
    params: Any,
    scene: LatentState,
    told: Conditions,
    aims: Aims,
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
    out = []
    for i, kind in enumerate(kinds):
        (a, b), last = aims.slots[i], aims.last[i]
        during = (jnp.arange(len(place)) < last)[:, None]
        if kind is At:
            off = place[last - 1, :, a] - aims.position[i]
            out.append(_length(off))
        elif kind is Meet:
            apart = _length(place[:, :, a] - place[:, :, b])
            least = jnp.where(during, apart, jnp.inf).min(0)
            out.append(jnp.maximum(least - aims.within[i], 0.0))
        else:
            wrong = (seen[:, :, a] != aims.visible[i]) & during
            out.append(FRAME * side / 64 * wrong.sum(0) / last)
    return jnp.stack(out, 1)


def _length(vector: Float[Array, "*lead 2"]) -> Float[Array, "*lead"]:
    """With a gradient where it is zero too."""
    return jnp.sqrt(jnp.square(vector).sum(-1) + 1e-8)


def _shown(frames: Float[Array, "c h w 3"], objects: Any) -> Array:
    """Whether the picture has an object's colour where its middle is."""
    size = frames.shape[1]
    at = jnp.clip((objects.place * size).astype(int), 0, size - 1)
    there = jax.vmap(lambda frame, spots: frame[spots[:, 1], spots[:, 0]])(frames, at)
    return jnp.linalg.norm(there - objects.colour, axis=-1) < ALIKE
