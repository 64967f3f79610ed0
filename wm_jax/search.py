"""The cross-entropy method (Rubinstein 1999): candidates are drawn from a normal distribution, and
the best of them make the next. It needs no gradient, which collisions, being jumps, hardly have."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Float

#: Candidates a round, how many make the next, rounds.
CANDIDATES, BEST, ROUNDS = 64, 8, 8
#: Least standard deviation, as a share of the first.
NARROW = 0.02


def cross_entropy(
    cost: Callable[[Float[np.ndarray, "c p"]], Float[np.ndarray, " c"]],
    size: int,
    wide: float,
    seed: int = 0,
    first: Float[np.ndarray, " p"] | None = None,
    rounds: int = ROUNDS,
) -> Float[np.ndarray, " p"]:
    """The cheapest of ``rounds`` · `CANDIDATES` choices of ``size`` numbers.

    wide:  standard deviation of the first round, around ``first`` (None: zero), which is a
           candidate itself; so is in every round the best so far
    cost:  of all candidates of a round at once
    """
    rng = np.random.default_rng(seed)
    best = mean = np.zeros(size, np.float32) if first is None else np.asarray(first, np.float32)
    spread, least = np.full(size, wide), np.inf
    for _ in range(rounds):
        drawn = rng.normal(mean, spread, (CANDIDATES, size)).astype(np.float32)
        drawn[0] = best
        costs = cost(drawn)
        order = np.argsort(costs)[:BEST]
        if costs[order[0]] < least:
            best, least = drawn[order[0]], float(costs[order[0]])
        mean, spread = drawn[order].mean(0), drawn[order].std(0) + NARROW * wide
    return best
