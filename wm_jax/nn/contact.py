"""Rigid contact of convex bodies within one step of time, differentiable in their outlines.

A convex outline is its support function, sampled: how far it reaches from the body's place along K
directions, evenly spaced from +x towards +y. Two bodies are apart as long as some direction
separates them (the separating axis theorem), so within a step of straight flight they touch when
the last direction stops to do so, and that direction is the normal of the contact (Ericson,
Real-Time Collision Detection, 2004, section 5.5). The last direction is a soft maximum, which makes
the normal of a round body continuous, and whether there is a touch at all is decided in the
forward pass and eased in the backward pass (a straight-through estimator, Bengio et al. 2013): a
bounce that is half made is wrong on both sides.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

#: A number of steps that stands for never.
NEVER = 3.0
#: Directions to either side by which it is told that one reaches too far: more of them beside each
#: other could all be wrong.
NEAR = 3
#: Steps around the end of a step over which the gradient of "they touch" is spread.
EASE = 0.1


class Bodies(NamedTuple):
    """n bodies. Lengths are in one unit, the side of the arena, say; speeds in units a step.

    support: how far the outline reaches along each direction; k a multiple of four
    sharp:   of the soft maximum, per length; two bodies add theirs
    log_mass: only differences count
    present: in [0, 1], how much of a body there is to bump into
    gyration: squared radius of gyration, I / m, where bodies turn (`wm_jax.nn.contact_turning`)
    """

    support: Float[Array, "b n k"]
    sharp: Float[Array, "b n 1"]
    log_mass: Float[Array, "b n 1"]
    present: Float[Array, "b n 1"]
    gyration: Float[Array, "b n 1"] | None = None


class Change(NamedTuple):
    """Of speed and of the place at the end of the step, beyond straight flight."""

    speed: Float[Array, "b n 2"]
    place: Float[Array, "b n 2"]


def directions(count: int) -> Float[np.ndarray, "k 2"]:
    """Unit vectors, evenly spaced."""
    angle = np.arange(count) * (2 * np.pi / count)
    return np.stack([np.cos(angle), np.sin(angle)], -1).astype(np.float32)


@jax.custom_vjp
def convex(support: Float[Array, "*lead k"]) -> Float[Array, "*lead k"]:
    """The support of what the half-planes ``x · direction ≤ support`` have in common: no direction
    reaches beyond where those of two others, one on either side and up to `NEAR` away, meet.

    A direction that claims to reach farther never separates anything, so no contact is ever found
    along it and no gradient mends it. Here it reaches as far as two others let it, and the gradient
    is one-sided: that it should reach less, is told to the direction itself; that it should reach
    more, to the two that hold it back.
    """
    return _common(support)


def _common(support: Float[Array, "*lead k"]) -> Float[Array, "*lead k"]:
    turn, common = 2 * np.pi / support.shape[-1], support
    for before, after in itertools.product(range(1, NEAR + 1), repeat=2):
        if (before + after) * turn < np.pi - 1e-6:
            sides = jnp.roll(support, before, -1) * np.sin(after * turn)
            sides += jnp.roll(support, -after, -1) * np.sin(before * turn)
            common = jnp.minimum(common, sides / np.sin((before + after) * turn))
    return common


def _convex_forward(support: Array) -> tuple[Array, Array]:
    common = _common(support)
    return common, support > common


def _convex_backward(held: Array, slope: Array) -> tuple[Array]:
    shorter, longer = jnp.maximum(slope, 0), jnp.minimum(slope, 0)
    # To the next direction on either side; and from there on, if that one is held back as well.
    share = 0.5 / np.cos(2 * np.pi / held.shape[-1])
    for _ in range(NEAR):
        passed = jnp.where(held, longer, 0) * share
        longer = jnp.where(held, 0, longer) + jnp.roll(passed, 1, -1) + jnp.roll(passed, -1, -1)
    return (shorter + jnp.where(held, 0, longer),)


convex.defvjp(_convex_forward, _convex_backward)


def collide(
    place: Float[Array, "b n 2"],
    speed: Float[Array, "b n 2"],
    bodies: Bodies,
    bounce: Float[Array, ""] | Float[Array, "b #p 1"] | float = 2.0,
    late: Float[Array, ""] | Float[Array, "b #p 1"] | float = 0.0,
) -> Change:
    """Every pair of bodies that meets within the step; three at once are the sum of the pairs.

    bounce: 1 + the coefficient of restitution
    late:   time from touch to rebound, in steps
    """
    count, directed = bodies.support.shape[-1], directions(bodies.support.shape[-1])
    first, second = np.triu_indices(place.shape[1], 1)
    apart, closing = place[:, second] - place[:, first], speed[:, second] - speed[:, first]
    opposite = np.roll(np.arange(count), -(count // 2))
    # The outline of both (their Minkowski sum). It is what contacts tell of; what one body has too
    # much along a direction and all others too little along the opposite one, they do not.
    reach = convex(bodies.support[:, first] + bodies.support[:, second][..., opposite])
    gap, drift = apart @ directed.T - reach, closing @ directed.T
    fast = jnp.sqrt(jnp.square(closing).sum(-1, keepdims=True) + 1e-12)
    sharp = (bodies.sharp[:, first] + bodies.sharp[:, second]) * fast
    _, normal, when = last_to_separate(gap, drift, sharp)
    touch = before_the_end(when) * bodies.present[:, first] * bodies.present[:, second]
    blow = bounce * touch * jnp.minimum((closing * normal).sum(-1, keepdims=True), 0.0) * normal
    share = jax.nn.sigmoid(bodies.log_mass[:, second] - bodies.log_mass[:, first])
    rest = jnp.maximum(1 - when - late, 0.0)
    speeds, places = jnp.zeros_like(place), jnp.zeros_like(place)
    for slot, change in ((first, share * blow), (second, (share - 1) * blow)):
        speeds, places = speeds.at[:, slot].add(change), places.at[:, slot].add(rest * change)
    return Change(speeds, places)


def last_to_separate(
    gap: Float[Array, "b p k"], drift: Float[Array, "b p k"], sharp: Float[Array, "b p 1"]
) -> tuple[Array, Array, Array]:
    """How much each direction is the last to separate a pair (…, k), their mean, which is the
    normal (…, 2), and when it ceases to (…, 1), in steps; of the ``gap`` along each, that grows by
    ``drift`` in the step."""
    # Where a direction separates: when it ceases to. Where it does not: how little it is missing,
    # so that bodies that overlap are pushed out the shortest way.
    ends = jnp.where(gap > 0, time_to_close(gap, -drift), jnp.maximum(30 * gap, -NEVER))
    last = jax.nn.softmax(sharp * ends, -1)
    normal = last @ directions(gap.shape[-1])
    normal = normal / jnp.sqrt(jnp.square(normal).sum(-1, keepdims=True) + 1e-6)
    return last, normal, jnp.maximum((last * ends).sum(-1, keepdims=True), 0.0)


def rebound(
    place: Float[Array, "b n 2"],
    speed: Float[Array, "b n 2"],
    bodies: Bodies,
    walls: Float[Array, "*b 4"],
    bounce: Float[Array, ""] | Float[Array, "b #p 1"] | float = 2.0,
    late: Float[Array, ""] | Float[Array, "b #p 1"] | float = 0.0,
) -> Change:
    """Bodies between four ``walls``: the largest x and y, then the smallest."""
    quarter = bodies.support.shape[-1] // 4
    side, sign = directions(4), np.array([1.0, 1.0, -1.0, -1.0], np.float32)
    reach = place @ side.T + bodies.support[..., ::quarter]
    closing = speed @ side.T
    gap = jnp.reshape(walls * sign, (-1, 1, 4)) - reach
    when = jnp.where(gap > 0, time_to_close(gap, closing), 0.0)
    blow = -bounce * before_the_end(when) * jnp.maximum(closing, 0.0)
    return Change(blow @ side, (blow * jnp.maximum(1 - when - late, 0.0)) @ side)


def time_to_close(gap: Array, closing: Array) -> Array:
    """Steps until a positive gap is closed; `NEVER` at most."""
    time = jnp.minimum(gap / jnp.maximum(closing, 1e-6), NEVER)
    return jnp.where(closing > 1e-6, time, NEVER)


def before_the_end(when: Array) -> Array:
    """Whether it is within the step, 0 or 1; its gradient is that of a sigmoid."""
    eased = jax.nn.sigmoid((1 - when) / EASE)
    return eased + jax.lax.stop_gradient((when < 1) - eased)
