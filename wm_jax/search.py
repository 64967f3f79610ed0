"""Two searches for the numbers that cost least.

The cross-entropy method (Rubinstein 1999): candidates are drawn from a normal distribution, and the
best of them make the next. It needs no gradient, which collisions, being jumps, hardly have.

Descent: from several starts at once down the gradient, by Adam (Kingma & Ba 2015).
"""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Float

#: Candidates a round, how many make the next, rounds.
CANDIDATES, BEST, ROUNDS = 64, 8, 8
#: Starts of a descent, its updates, and their size as a share of how wide the starts are drawn.
STARTS, UPDATES, RATE = 16, 32, 0.1
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


def descend(
    cost_and_slope: Callable[
        [Float[np.ndarray, "c p"]], tuple[Float[np.ndarray, " c"], Float[np.ndarray, "c p"]]
    ],
    size: int,
    wide: float,
    seed: int = 0,
    first: Float[np.ndarray, " p"] | None = None,
) -> Float[np.ndarray, " p"]:
    """The cheapest choice on `STARTS` ways down, of which one begins at ``first`` (None: zero) and
    the others are drawn around it with a standard deviation of ``wide``."""
    centre = np.zeros(size) if first is None else first
    drawn = np.random.default_rng(seed).normal(centre, wide, (STARTS, size)).astype(np.float32)
    drawn[0] = centre
    adam = optax.adam(RATE * wide)
    at, state = jnp.asarray(drawn), adam.init(jnp.asarray(drawn))
    best, least = drawn[0], np.inf
    for _ in range(UPDATES):
        costs, slopes = cost_and_slope(np.asarray(at))
        costs = np.nan_to_num(costs, nan=np.inf)
        cheapest = int(np.argmin(costs))
        if costs[cheapest] < least:
            best, least = np.asarray(at)[cheapest], float(costs[cheapest])
        change, state = adam.update(jnp.nan_to_num(jnp.asarray(slopes)), state)
        at = at + change
    return best
