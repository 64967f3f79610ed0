"""How long something lasts, where some are watched for less long than they last.

Kaplan & Meier 1958: of those still watched at a step, the share that ends there; what survives is
the product of the rest.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Int

from wm_jax.evaluation import statistics
from wm_jax.evaluation.statistics import Estimate


def survival(
    last: Int[np.ndarray, " r"],
    ended: Bool[np.ndarray, " r"],
    weights: Float[np.ndarray, "*draws r"],
    steps: int,
) -> Float[np.ndarray, "*draws t"]:
    """The share that outlasts each of the steps 1 … ``steps``.

    last:    the step at which one ended or, where it did not, up to which it was watched
    ended:   whether it ended there
    weights: how often each counts
    """
    at = np.arange(1, steps + 1)
    ends = weights @ (ended[:, None] & (last[:, None] == at)).astype(np.float64)
    watched = weights @ (last[:, None] >= at).astype(np.float64)
    share = np.divide(ends, watched, out=np.zeros_like(ends), where=watched > 0)
    return np.cumprod(1 - share, axis=-1)


def half_life(curve: Float[np.ndarray, "*draws t"]) -> Float[np.ndarray, "*draws"]:
    """The first step that no more than half outlast; one beyond the last where more do."""
    below = curve <= 0.5
    first = np.where(below.any(-1), below.argmax(-1), curve.shape[-1])
    return (first + 1).astype(np.float64)


def estimates(
    last: Int[np.ndarray, " r"],
    ended: Bool[np.ndarray, " r"],
    units: Int[np.ndarray, " r"],
    steps: int,
    seed: int = 0,
) -> tuple[Estimate, Estimate]:
    """The curve, and the half-life (one number), with 95 % intervals over ``units``."""
    number = int(units.max()) + 1
    drawn = statistics.resamples(number, seed)[:, units]
    curve, curves = (survival(last, ended, w, steps) for w in (np.ones(len(last)), drawn))
    n = np.full(steps, number)
    half = Estimate(half_life(curve)[None], *statistics.interval(half_life(curves)[:, None]), n[:1])
    return Estimate(curve, *statistics.interval(curves), n), half
