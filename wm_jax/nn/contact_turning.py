"""Rigid contact of convex bodies that turn: `wm_jax.nn.contact` with spin, arms and friction.

The outline of a body that has turned by θ is its support function moved by θ, which its Fourier
series does exactly (`turned`). A direction ceases to separate between the outlines of the start and
of the end of the step, so a corner that swings round is met where it is.

The impulse, j along the normal and f along the tangent, acts at the point of the contact, whose arm
from each body's place is r along the normal and s along the tangent (Baraff 1997, An Introduction
to Physically Based Modeling: Rigid Body Simulation II, section 8). It reverses the speed u_n at
which the two points part, with restitution e, and stops their sliding u_t if friction can:

  K_n j + K_c f = −(1 + e) u_n          K_n = Σ 1/m + s²/I,  K_c = −Σ r s / I
  K_c j + K_t f = −u_t, or |f| = μ j    K_t = Σ 1/m + r²/I

At a corner the derivative of the support function is s; where the contact is on an edge, s is what
the other body's corner and the distance of the two places leave of it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from wm_jax.nn import contact
from wm_jax.nn.contact import Bodies, convex, directions


class Spin(NamedTuple):
    """How n bodies turn; angles in radians from +x towards +y.

    turn: of each outline at the start of the step
    rate: radians a step
    """

    turn: Float[Array, "b n 1"]
    rate: Float[Array, "b n 1"]


class Change(NamedTuple):
    """`contact.Change`, of the spin, and of the turn at the end of the step beyond steady spin."""

    speed: Float[Array, "b n 2"]
    place: Float[Array, "b n 2"]
    rate: Float[Array, "b n 1"]
    turn: Float[Array, "b n 1"]


def turned(
    support: Float[Array, "*lead k"], by: Float[Array, "*lead 1"]
) -> Float[Array, "*lead k"]:
    """The support function, at the same directions, of outlines that have turned ``by``."""
    count = support.shape[-1]
    waves = np.arange(count // 2 + 1)
    phase = 2 * np.pi * np.outer(np.arange(count), waves) / count
    weight = np.where((waves == 0) | (2 * waves == count), 1.0, 2.0) / count
    cos, sin = (np.asarray(f(phase), np.float32) for f in (np.cos, np.sin))
    even, odd = (support @ cos) * weight, (support @ sin) * weight
    c, s = jnp.cos(waves * by), jnp.sin(waves * by)
    return (even * c - odd * s) @ cos.T + (odd * c + even * s) @ sin.T


def collide(
    place: Float[Array, "b n 2"],
    speed: Float[Array, "b n 2"],
    bodies: Bodies,
    spin: Spin,
    bounce: Float[Array, ""] | Float[Array, "b #p 1"] | float = 2.0,
    late: Float[Array, ""] | Float[Array, "b #p 1"] | float = 0.0,
    grip: Float[Array, ""] | Float[Array, "b #p 1"] | float = 0.0,
) -> Change:
    """`contact.collide` of bodies that turn; ``grip`` is the friction coefficient μ."""
    count, directed = bodies.support.shape[-1], directions(bodies.support.shape[-1])
    first, second = np.triu_indices(place.shape[1], 1)
    apart, closing = place[:, second] - place[:, first], speed[:, second] - speed[:, first]
    opposite = np.roll(np.arange(count), -(count // 2))
    start, end = (turned(bodies.support, spin.turn + t * spin.rate) for t in (0.0, 1.0))
    gap = apart @ directed.T - convex(start[:, first] + start[:, second][..., opposite])
    growth = end - start
    drift = closing @ directed.T - growth[:, first] - growth[:, second][..., opposite]
    pace = jnp.square(closing).sum(-1, keepdims=True)
    fast = jnp.sqrt(pace + jnp.square(0.1 * (spin.rate[:, first] - spin.rate[:, second])) + 1e-12)
    sharp = (bodies.sharp[:, first] + bodies.sharp[:, second]) * fast
    last, normal, when = contact.last_to_separate(gap, drift, sharp)
    tangent = _quarter(normal)
    touch = contact.before_the_end(when) * bodies.present[:, first] * bodies.present[:, second]

    at = jnp.clip(when, 0.0, 1.0)
    middle = (start + end) / 2
    outline = jnp.stack([*_corner(middle), middle], 1)
    slope_a, bend_a, reach_a = _read(outline, last, first)
    slope_b, bend_b, reach_b = _read(outline[..., opposite], last, second)
    aside = ((apart + at * closing) * tangent).sum(-1, keepdims=True)
    left = aside - slope_a - slope_b
    share = jax.lax.stop_gradient(bend_a / (bend_a + bend_b + 1e-6))
    arm_a, arm_b = slope_a + share * left, -(slope_b + (1 - share) * left)

    light_a, light_b = (jnp.exp(-bodies.log_mass[:, i]) for i in (first, second))
    assert bodies.gyration is not None
    turns_a, turns_b = light_a / bodies.gyration[:, first], light_b / bodies.gyration[:, second]
    rate_a, rate_b = spin.rate[:, first], spin.rate[:, second]
    meet = (closing * normal).sum(-1, keepdims=True) - rate_b * arm_b + rate_a * arm_a
    slide = (closing * tangent).sum(-1, keepdims=True) - rate_b * reach_b - rate_a * reach_a
    blow, rub = _impulse(
        meet,
        slide,
        light_a + light_b + arm_a**2 * turns_a + arm_b**2 * turns_b,
        light_a + light_b + reach_a**2 * turns_a + reach_b**2 * turns_b,
        reach_b * arm_b * turns_b - reach_a * arm_a * turns_a,
        bounce,
        grip,
    )
    blow, rub = touch * blow, touch * rub
    push = blow * normal + rub * tangent
    rest = jnp.maximum(1 - when - late, 0.0)
    speeds, rates = jnp.zeros_like(place), jnp.zeros_like(spin.rate)
    places, turns = speeds, rates
    for slot, change, spun in (
        (first, -light_a * push, turns_a * (arm_a * blow - reach_a * rub)),
        (second, light_b * push, turns_b * (-arm_b * blow - reach_b * rub)),
    ):
        speeds, places = speeds.at[:, slot].add(change), places.at[:, slot].add(rest * change)
        rates, turns = rates.at[:, slot].add(spun), turns.at[:, slot].add(rest * spun)
    return Change(speeds, places, rates, turns)


def rebound(
    place: Float[Array, "b n 2"],
    speed: Float[Array, "b n 2"],
    bodies: Bodies,
    spin: Spin,
    walls: Float[Array, "*b 4"],
    bounce: Float[Array, ""] | Float[Array, "b #p 1"] | float = 2.0,
    late: Float[Array, ""] | Float[Array, "b #p 1"] | float = 0.0,
    grip: Float[Array, ""] | Float[Array, "b #p 1"] | float = 0.0,
) -> Change:
    """`contact.rebound` of bodies that turn."""
    quarter = bodies.support.shape[-1] // 4
    side, sign = directions(4), np.array([1.0, 1.0, -1.0, -1.0], np.float32)
    outline = [turned(bodies.support, spin.turn + t * spin.rate) for t in (0.0, 1.0)]
    start, end = (x[..., ::quarter] for x in outline)
    gap = jnp.reshape(walls * sign, (-1, 1, 4)) - place @ side.T - start
    when = jnp.where(gap > 0, contact.time_to_close(gap, speed @ side.T + end - start), 0.0)
    at = jnp.clip(when, 0.0, 1.0)
    arms = [_corner(x)[0][..., ::quarter] for x in outline]
    arm, reach = (x[0] + at * (x[1] - x[0]) for x in (arms, (start, end)))
    assert bodies.gyration is not None
    turns = 1 / bodies.gyration
    parts = arm * spin.rate - speed @ side.T, -spin.rate * reach - speed @ _quarter(side).T
    gives = 1 + arm**2 * turns, 1 + reach**2 * turns, -reach * arm * turns
    blow, rub = _impulse(*parts, *gives, bounce, grip)
    touch = contact.before_the_end(when)
    blow, rub = touch * blow, touch * rub
    rest = jnp.maximum(1 - when - late, 0.0)
    spun = turns * (arm * blow - reach * rub)

    def along(part):
        return -((part * blow) @ side + (part * rub) @ _quarter(side))

    def all_sides(x):
        return x.sum(-1, keepdims=True)

    return Change(along(1.0), along(rest), all_sides(spun), all_sides(rest * spun))


def _impulse(part, slide, give, yields, couple, bounce, grip) -> tuple[Array, Array]:
    """Along normal and tangent, on the second of two points that part and slide at these speeds;
    K_n, K_t and K_c are as in the module's docstring."""
    wanted = -bounce * jnp.minimum(part, 0.0)
    stuck = wanted * yields + couple * slide
    share = -(slide * give + couple * wanted) / jnp.maximum(stuck, 1e-9)
    share = jnp.clip(jnp.where(stuck > 1e-9, share, -jnp.sign(slide) * 1e3), -grip, grip)
    blow = wanted / (give + couple * share)
    return blow, share * blow


def _read(outlines: Float[Array, "b m n k"], where: Float[Array, "b p k"], body: np.ndarray):
    """Each of m maps of the body of each pair, at the directions ``where``: (b, p, 1) each."""
    lead, count = outlines.shape[:-1], where.shape[1]
    read = where @ jnp.swapaxes(outlines.reshape(lead[0], -1, outlines.shape[-1]), 1, 2)
    read = read.reshape(-1, count, *lead[1:])
    return [read[:, np.arange(count), i, body][..., None] for i in range(lead[1])]


def _quarter(vector: Any) -> Any:
    """Turned by a quarter, from +x to +y."""
    return vector[..., ::-1] * np.array([-1.0, 1.0], np.float32)


def _corner(support: Float[Array, "*lead k"]) -> tuple[Array, Array]:
    """The derivative of a support function, and its radius of curvature. An edge whose normal lies
    between two directions makes the difference of the two meaningless: what counts is that of the
    side on which there is less curvature."""
    turn = 2 * np.pi / support.shape[-1]
    before, after = jnp.roll(support, 1, -1), jnp.roll(support, -1, -1)
    cos, sin = np.cos(turn), np.sin(turn)
    bend = jnp.maximum(before + after - 2 * cos * support, 0.0) / (2 - 2 * cos)
    back, ahead = (cos * support - before) / sin, (after - cos * support) / sin
    earlier, later = jnp.roll(bend, 1, -1), jnp.roll(bend, -1, -1)
    share = jax.lax.stop_gradient((later + 1e-3) / (earlier + later + 2e-3))
    return share * back + (1 - share) * ahead, bend
