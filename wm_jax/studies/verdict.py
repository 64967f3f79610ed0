"""The rules by which a claim stands or falls, frozen before any result.

An effect is the gain of one arm over another in the expected direction, in the metric's unit. Its
interval is a paired bootstrap: all arms and seeds share the same resamples of the test episodes.
From `SEEDS_RESAMPLED` seeds on, seeds are resampled as well; below that an interval cannot tell how
much seeds differ, so every seed must agree by itself.

confirmed:      the whole interval is beyond the smallest effect of interest (with few seeds, so is
                the effect of every single seed), and there are at least `LEAST_SEEDS` seeds
not confirmed:  the same on the other side: the interval leaves that effect out
undecided:      everything else, also where there is nothing to average
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from wm_jax.evaluation.statistics import CONFIDENCE, Sums, resamples

LEAST_SEEDS = 3
SEEDS_RESAMPLED = 5  # from so many on

CONFIRMED, NOT_CONFIRMED, UNDECIDED = "confirmed", "not confirmed", "undecided"


class Effect(NamedTuple):
    """A mean over seeds with its 95 % interval, the value of each seed, and the number of episodes
    that bring something to it. NaN where there is nothing to average."""

    value: float
    low: float
    high: float
    seeds: tuple[float, ...]
    episodes: int


def mean(sums: Sequence[Sums], seed: int = 0) -> Effect:
    """Of one metric at one step: ``sums`` (units, 1) of every seed over the same units."""
    values = tuple(float(_ratio(s.total.sum(0), s.weight.sum(0))[0]) for s in sums)
    some = np.any([s.weight[:, 0] > 0 for s in sums], axis=0) if sums else np.zeros(0, bool)
    return _effect(values, _draws(sums, seed), int(some.sum()), seed)


def gain(arm: Sequence[Sums], against: Sequence[Sums], expected: str, seed: int = 0) -> Effect:
    """How much lower (or higher, as ``expected`` says) ``arm`` is than ``against``.

    The two lists hold the same seeds in the same order. Raises ValueError where units differ.
    """
    if len(arm) != len(against):
        raise ValueError("A paired effect needs the same seeds on both sides.")
    sign = {"lower": -1.0, "higher": 1.0}[expected]
    pairs = list(zip(arm, against, strict=True))
    if any(a.total.shape != b.total.shape for a, b in pairs):
        raise ValueError("A paired effect needs the same episodes on both sides.")
    values = tuple(
        sign * (first - second)
        for first, second in zip(mean(arm).seeds, mean(against).seeds, strict=True)
    )
    draws = sign * (_draws(arm, seed) - _draws(against, seed))
    both = [(a.weight[:, 0] > 0) & (b.weight[:, 0] > 0) for a, b in pairs]
    some = np.any(both, axis=0) if both else np.zeros(0, bool)
    return _effect(values, draws, int(some.sum()), seed)


def decide(effect: Effect, smallest: float) -> str:
    """`CONFIRMED`, `NOT_CONFIRMED` or `UNDECIDED`, by the rules above; ``smallest`` effect of
    interest, in the metric's unit."""
    count = len(effect.seeds)
    numbers = np.array([effect.value, effect.low, effect.high, *effect.seeds])
    if count < LEAST_SEEDS or not np.isfinite(numbers).all():
        return UNDECIDED
    alone = np.array(effect.seeds if count < SEEDS_RESAMPLED else [effect.value])
    if effect.low > smallest and (alone > smallest).all():
        return CONFIRMED
    if effect.high < smallest and (alone < smallest).all():
        return NOT_CONFIRMED
    return UNDECIDED


def _ratio(total: np.ndarray, count: np.ndarray) -> np.ndarray:
    return np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)


def _draws(sums: Sequence[Sums], seed: int) -> Float[np.ndarray, "r s"]:
    """The mean of every seed in every resample of the episodes."""
    if not sums:
        return np.zeros((1, 0))
    drawn = resamples(len(sums[0].total), seed)
    return np.stack([_ratio(drawn @ s.total, drawn @ s.weight)[:, 0] for s in sums], 1)


def _effect(
    values: tuple[float, ...], draws: Float[np.ndarray, "r s"], episodes: int, seed: int
) -> Effect:
    if not values or not np.isfinite(values).all():
        return Effect(np.nan, np.nan, np.nan, values, episodes)
    if len(values) >= SEEDS_RESAMPLED:
        # Another stream of random numbers than the one that draws episodes.
        often = resamples(len(values), seed + 1, len(draws))
        over_seeds = (draws * often).sum(1) / len(values)
    else:
        over_seeds = draws.mean(1)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.nanquantile(over_seeds, [tail, 1 - tail])
    return Effect(float(np.mean(values)), float(low), float(high), values, episodes)
