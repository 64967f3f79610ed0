"""A logistic read-out: the chance that something is true, linear in a frozen state.

Numbers are standardised, the penalty is an L2 one on all weights but the offset, and how strong it
is follows from cross-validation, as in the published read-outs of Physion (Bear et al. 2021).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.optimize import minimize
from scipy.special import expit

#: Of the mean log-loss; with n examples 1 / (n penalty) is what others call C.
PENALTIES = (1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0, 100.0)
FOLDS = 5
LEAST_SPREAD = 1e-6  # of the largest: what differs less is left out

Chances = Callable[[Float[np.ndarray, "e w"]], Float[np.ndarray, " e"]]


def fit(
    x: Float[np.ndarray, "e w"],
    y: Bool[np.ndarray, " e"],
    seed: int,
    penalties: Sequence[float] = PENALTIES,
    folds: int = FOLDS,
) -> Chances:
    """A function from states to chances in [0, 1], learned from the examples ``y`` of ``x``.

    The penalty is the one with the least log-loss over ``folds`` stratified folds (the stronger of
    equals). Where all examples, or all but fewer than two, agree, no state is looked at.
    """
    x, y = np.asarray(x, np.float64), np.asarray(y, bool)
    mean, spread = x.mean(0), x.std(0)
    scale = np.where(spread > LEAST_SPREAD * max(spread.max(), 1e-12), spread, np.inf)
    # An L2 penalty knows no axes: in those of the examples themselves there are at most e.
    turned, basis = _turned((x - mean) / scale)
    if min(y.sum(), (~y).sum()) < 2:
        share = float(y.mean())
        return lambda told: np.full(len(told), share)
    order = sorted(penalties, reverse=True)
    penalty = order[int(np.argmin(_held_out_losses(turned, y, seed, order, folds)))]
    chosen = _path(turned, y, [p for p in order if p >= penalty])[-1]
    weights, offset = basis @ chosen[1:], chosen[0]
    return lambda told: expit((np.asarray(told, np.float64) - mean) / scale @ weights + offset)


def log_loss(chance: Float[np.ndarray, " e"], y: Bool[np.ndarray, " e"]) -> float:
    """Mean over examples, in nats; a chance counts as at least 1e-12."""
    return float(-np.log(np.maximum(np.where(y, chance, 1 - chance), 1e-12)).mean())


def _turned(x: Float[np.ndarray, "e w"]) -> tuple[np.ndarray, np.ndarray]:
    """The examples in their own axes (e, r), and those axes (w, r)."""
    left, size, right = np.linalg.svd(x, full_matrices=False)
    kept = size > 1e-9 * max(float(size.max(initial=0)), 1e-12)
    return left[:, kept] * size[kept], right[kept].T


def _held_out_losses(
    x: np.ndarray, y: np.ndarray, seed: int, penalties: Sequence[float], folds: int
) -> Float[np.ndarray, " p"]:
    fold = stratified(y, min(folds, int(y.sum()), int((~y).sum())), seed)
    losses = np.zeros(len(penalties))
    for number in range(fold.max() + 1):
        held = fold == number
        for i, weights in enumerate(_path(x[~held], y[~held], penalties)):
            chance = expit(x[held] @ weights[1:] + weights[0])
            losses[i] += log_loss(chance, y[held]) * held.sum()
    return losses / len(y)


def stratified(y: Bool[np.ndarray, " e"], folds: int, seed: int) -> Int[np.ndarray, " e"]:
    """A fold for each example, with as many of either label in each as can be."""
    rng, fold = np.random.default_rng(seed), np.zeros(len(y), int)
    for label in (False, True):
        where = rng.permutation(np.flatnonzero(y == label))
        fold[where] = np.arange(len(where)) % folds
    return fold


def _path(x: np.ndarray, y: np.ndarray, penalties: Sequence[float]) -> list[np.ndarray]:
    """Offset and weights for each penalty, the strongest first; each starts from the last."""
    sign, out, start = np.where(y, 1.0, -1.0), [], np.zeros(x.shape[1] + 1)

    def loss(weights: np.ndarray, penalty: float) -> tuple[float, np.ndarray]:
        margin = sign * (x @ weights[1:] + weights[0])
        pull = -sign * expit(-margin) / len(y)
        value = np.logaddexp(0, -margin).mean() + penalty / 2 * np.square(weights[1:]).sum()
        return value, np.concatenate([[pull.sum()], x.T @ pull + penalty * weights[1:]])

    for penalty in penalties:
        found = minimize(
            loss, start, args=(penalty,), jac=True, method="L-BFGS-B",
            options={"maxiter": 500, "ftol": 1e-10, "gtol": 1e-7},
        )  # fmt: skip
        start = found.x
        out.append(start)
    return out
