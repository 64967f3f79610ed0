"""The filter of `tracking`: what a measurement of a place, or of a turn, says of what it changes.

A Kalman filter each for the place along x and along y, with speed and a steady pull, and for the
turn, with its rate. Lengths of variances are in 64ths of the frame, angles in radians, times in
steps. No parameters.
"""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float

#: The filter counts in 64ths of the frame.
UNIT = 64.0
#: Standard deviations of a place and a speed of which nothing is known yet.
PLACE, SPEED = 8.0, 1.5
#: Random change of the speed in a step.
WANDER = 0.002
#: Standard deviation of a turn of which nothing is known any more.
LOST = 0.5
#: Random change of the rate of a turn in a step.
FLUTTER = 0.001
#: Squared standard deviations from which on the filter believes that it lost the slot.
ASTRAY = 16.0


def widen(spread: Float[Array, "b k 12"], place: Array, speed: Array) -> Float[Array, "b k 12"]:
    """The spread a step later, in free flight, and with these variances (64ths) added."""
    xx, xv, vv, xp, vp, pp = jnp.split(spread, 6, -1)
    of_place = jnp.minimum(xx + 2 * xv + vv + xp + vp + 0.25 * pp + place, 64.0)
    of_speed = jnp.minimum(vv + 2 * vp + pp + WANDER**2 + speed, SPEED**2)
    # Or else what was cut off would leave a matrix that is no covariance.
    most = 0.99 * jnp.sqrt(of_place * of_speed)
    parts = [
        of_place,
        jnp.clip(xv + vv + xp + 1.5 * vp + 0.5 * pp, -most, most),
        of_speed,
        xp + vp + 0.5 * pp,
        vp + pp,
        pp,
    ]
    return jnp.concatenate(parts, -1)


def sway_on(sway: Float[Array, "b k 3"], more: Array | float) -> Float[Array, "b k 3"]:
    """The covariance of turn and rate a step later, and with this variance of the rate added."""
    tt, tr, rr = jnp.split(sway, 3, -1)
    tt = jnp.minimum(tt + 2 * tr + rr + more / 3, LOST**2)
    rr = jnp.minimum(rr + FLUTTER**2 + more, 1.0)
    most = 0.99 * jnp.sqrt(tt * rr)
    return jnp.concatenate([tt, jnp.clip(tr + rr, -most, most), rr], -1)


def place_measured(
    spread: Float[Array, "b k 12"], off: Float[Array, "b k 2"], error: Float[Array, "b k 2"]
) -> tuple[Array, Array, Array, Array]:
    """By how much a measurement that is ``off`` (shares of the frame), with this squared ``error``,
    changes place, speed and pull; and their spread after it."""
    xx, xv, vv, xp, vp, pp = jnp.split(spread, 6, -1)
    miss = UNIT**2 * jnp.square(off) / (xx + error)
    astray = miss.sum(-1, keepdims=True) > ASTRAY
    # Something happened that the prediction does not know: only the measurement counts.
    xx = jnp.where(astray, jnp.maximum(xx, PLACE**2), xx)
    vv = jnp.where(astray, SPEED**2, vv)
    xv, xp, vp = (jnp.where(astray, 0.0, x) for x in (xv, xp, vp))
    total = xx + error
    gain, turn, bend = xx / total, xv / total, xp / total
    parts = (
        [(1 - gain) * xx, (1 - gain) * xv, vv - turn * xv]
        + [(1 - gain) * xp, vp - turn * xp, pp - bend * xp]
    )  # fmt: skip
    return gain * off, turn * off, bend * off, jnp.concatenate(parts, -1)


def turn_measured(
    sway: Float[Array, "b k 3"],
    off: Float[Array, "b k 1"],
    error: Float[Array, "b k 1"],
    spin: float,
) -> tuple[Array, Array, Array]:
    """The same of turn and rate. ``spin``: standard deviation of a rate of which nothing is
    known."""
    tt, tr, rr = jnp.split(sway, 3, -1)
    astray = jnp.square(off) / (tt + error) > ASTRAY
    tt = jnp.where(astray, LOST**2, tt)
    tr, rr = jnp.where(astray, 0.0, tr), jnp.where(astray, spin**2, rr)
    gain, bend = tt / (tt + error), tr / (tt + error)
    sway = jnp.concatenate([(1 - gain) * tt, (1 - gain) * tr, rr - bend * tr], -1)
    return gain * off, bend * off, sway
