"""Means with 95 % bootstrap intervals, and paired differences of them.

Every number is a ratio of sums: each bootstrap unit (an episode, or a group of twins) brings a sum
and a weight (how many were summed), and the mean over a resample is the ratio of their sums. So a
unit in which nothing qualifies weighs nothing, and a mean of ratios cannot happen. All numbers of
one evaluation share the same resamples: that is what makes differences paired.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Num

RESAMPLES = 2000
CONFIDENCE = 0.95


class Sums(NamedTuple):
    """What each unit contributes to a mean, per horizon step."""

    total: Float[np.ndarray, "units t"]
    weight: Float[np.ndarray, "units t"]


class Estimate(NamedTuple):
    """A mean per step, its 95 % interval, and the number of units behind it. NaN where there is
    nothing to average."""

    value: Float[np.ndarray, " t"]
    low: Float[np.ndarray, " t"]
    high: Float[np.ndarray, " t"]
    n: Int[np.ndarray, " t"]


def sums_by_unit(
    values: Num[np.ndarray, "rollouts t ..."],
    units: Int[np.ndarray, " rollouts"],
    where: Bool[np.ndarray, "rollouts t ..."] | None = None,
    number: int | None = None,
) -> Sums:
    """Adds the ``values`` that qualify (``where``) up within each unit.

    Axes after time (objects, samples) are summed too. ``units`` numbers the units from 0, of which
    there are ``number``, by default as many as bring something.
    """
    mask = np.ones(values.shape, bool) if where is None else np.broadcast_to(where, values.shape)
    axes = tuple(range(2, values.ndim))
    total = np.where(mask, values, 0.0).sum(axes)
    count = mask.sum(axes).astype(np.float64)
    number = int(units.max()) + 1 if number is None else number
    sums = Sums(np.zeros((number, total.shape[1])), np.zeros((number, total.shape[1])))
    np.add.at(sums.total, units, total)
    np.add.at(sums.weight, units, count)
    return sums


def resamples(units: int, seed: int = 0, number: int = RESAMPLES) -> Float[np.ndarray, "r units"]:
    """How often each unit is drawn in each bootstrap resample."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(units, np.full(units, 1 / units), size=number).astype(np.float64)


def _ratio(total: np.ndarray, count: np.ndarray) -> np.ndarray:
    return np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)


def interval(draws: Float[np.ndarray, "r t"]) -> tuple[np.ndarray, np.ndarray]:
    """Percentile interval per step; a resample in which nothing qualified is left out."""
    tail = (1 - CONFIDENCE) / 2
    low, high = np.full(draws.shape[1], np.nan), np.full(draws.shape[1], np.nan)
    seen = ~np.isnan(draws).all(0)
    if seen.any():
        low[seen], high[seen] = np.nanquantile(draws[:, seen], [tail, 1 - tail], axis=0)
    return low, high


def estimate(sums: Sums, seed: int = 0) -> Estimate:
    """The mean per step with its interval."""
    drawn = resamples(len(sums.total), seed)
    low, high = interval(_ratio(drawn @ sums.total, drawn @ sums.weight))
    value = _ratio(sums.total.sum(0), sums.weight.sum(0))
    return Estimate(value, low, high, (sums.weight > 0).sum(0))


def difference(first: Sums, second: Sums, seed: int = 0) -> Estimate:
    """The paired difference ``first - second`` of two means over the same units.

    ``n`` counts the units that bring something to both.
    """
    if first.total.shape != second.total.shape:
        raise ValueError("A paired difference needs the same units and steps on both sides.")
    drawn = resamples(len(first.total), seed)
    draws = _ratio(drawn @ first.total, drawn @ first.weight)
    draws -= _ratio(drawn @ second.total, drawn @ second.weight)
    value = _ratio(first.total.sum(0), first.weight.sum(0))
    value -= _ratio(second.total.sum(0), second.weight.sum(0))
    both = (first.weight > 0) & (second.weight > 0)
    return Estimate(value, *interval(draws), both.sum(0))
