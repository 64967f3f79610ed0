"""Distances of two sets of clips by their features: of distributions, not of pairs.

Fréchet distance (of Gaussians; Heusel et al. 2017, arXiv 1706.08500, equation 6; of videos: FVD,
Unterthiner et al. 2018, arXiv 1812.01717), kernel distance (Bińkowski et al. 2018, arXiv
1801.01401, section 4: the unbiased estimate of MMD² with the kernel (xᵀy / d + 1)³); and features
that need no network and no weights: how fast what the instrument tracks moves and turns (in the
spirit of FVMD, Liu et al. 2024, arXiv 2407.16124, with our tracker in the place of its own).
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from wm_jax.evaluation.tracker import Tracks

#: Edges of bins, px a frame (and px a frame²) at 64 px.
SPEEDS = np.array([0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 8.0])
TURNS = np.array([0.0, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4])


def frechet(
    x: Float[np.ndarray, "n d"],
    y: Float[np.ndarray, "m d"],
    weight_x: Float[np.ndarray, " n"] | None = None,
    weight_y: Float[np.ndarray, " m"] | None = None,
) -> float:
    """|μx − μy|² + tr(Cx + Cy − 2 (Cx Cy)^½), of n and m samples, each counted ``weight`` times."""
    (mean_x, cov_x), (mean_y, cov_y) = _gaussian(x, weight_x), _gaussian(y, weight_y)
    root = _root(cov_x)
    cross = np.linalg.eigvalsh(root @ cov_y @ root)
    trace = np.trace(cov_x) + np.trace(cov_y) - 2 * np.sqrt(np.maximum(cross, 0)).sum()
    return float(np.square(mean_x - mean_y).sum() + trace)


def kernel_distance(x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "m d"]) -> float:
    """MMD² with a cubic kernel, unbiased: below zero by chance where there is no difference. NaN of
    a single sample."""
    if min(len(x), len(y)) < 2:
        return float("nan")

    def kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return (a @ b.T / a.shape[1] + 1) ** 3

    n, m = len(x), len(y)
    own_x, own_y = kernel(x, x), kernel(y, y)
    within = (own_x.sum() - np.trace(own_x)) / (n * (n - 1))
    within += (own_y.sum() - np.trace(own_y)) / (m * (m - 1))
    return float(within - 2 * kernel(x, y).mean())


def motion_features(tracks: Tracks, resolution: int) -> Float[np.ndarray, "r d"]:
    """Of each clip: how often an object has a speed of each bin, and a change of speed of each bin,
    as shares; and how many objects are seen in a frame, on average."""
    place = np.where(tracks.present[..., None], tracks.position, np.nan) * (64 / resolution)
    speed = np.diff(place, axis=1)
    turn = np.diff(speed, axis=1)
    parts = [
        _histogram(np.linalg.norm(x, axis=-1), edges)
        for x, edges in ((speed, SPEEDS), (turn, TURNS))
    ]
    seen = tracks.present.sum(-1).mean(1, keepdims=True)
    return np.concatenate([*parts, seen], 1)


def _histogram(value: np.ndarray, edges: np.ndarray) -> np.ndarray:
    known = ~np.isnan(value)
    which = np.searchsorted(edges, np.where(known, value, 0), side="right") - 1
    counts = [((which == i) & known).sum((1, 2)) for i in range(len(edges))]
    return np.stack(counts, 1) / np.maximum(known.sum((1, 2)), 1)[:, None]


def _gaussian(x: np.ndarray, weight: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    weight = np.ones(len(x)) if weight is None else weight
    total = weight.sum()
    mean = weight @ x / total
    off = x - mean
    return mean, (off * weight[:, None]).T @ off / max(total - 1, 1)


def _root(matrix: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
