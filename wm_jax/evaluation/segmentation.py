"""Do slots hold objects? Masks of slots against the true segmentation, one number a scene.

A *scene* is one frame. True labels are 0 … of which some are objects; predicted labels are slots,
each pixel the one whose mask is largest there. Neither measure sees pixels of the background.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int


def contingency(
    truth: Int[np.ndarray, "h w"], slots: Int[np.ndarray, "h w"], objects: Int[np.ndarray, " n"]
) -> Int[np.ndarray, "n m"]:
    """Pixels of each of ``objects`` (true labels) that each predicted label won."""
    number = int(slots.max()) + 1
    return np.stack([np.bincount(slots[truth == label], minlength=number) for label in objects])


def adjusted_rand_index(counts: Int[np.ndarray, "n m"]) -> float:
    """Agreement of two partitions of the same pixels (Hubert & Arabie 1985), from `contingency`.

    1: the same; about 0: as alike as chance; it may be negative. Over the pixels of objects alone
    it is the foreground ARI of the slot literature (Greff et al. 2019), which does not see whether
    a slot also paints background. NaN with fewer than two pixels; 1 where both partitions are one
    part, in which nothing can disagree.
    """

    def pairs(x) -> float:
        x = np.asarray(x, np.float64)
        return float((x * (x - 1) / 2).sum())

    total = pairs(counts.sum())
    if not total:
        return float("nan")
    rows, columns = pairs(counts.sum(1)), pairs(counts.sum(0))
    chance = rows * columns / total
    most = (rows + columns) / 2
    return 1.0 if most == chance else (pairs(counts) - chance) / (most - chance)


def bound(
    counts: Int[np.ndarray, "n m"], sizes: Int[np.ndarray, " n"], share: float = 0.5
) -> Bool[np.ndarray, " n"]:
    """Which objects have a slot of their own: one that wins more than ``share`` of the object's
    pixels, and of no other object's. ``counts`` has a column for each slot that can bind, ``sizes``
    are all pixels."""
    won = counts > share * sizes[:, None]
    return (won & (won.sum(0) == 1)).any(1)


class Binding(NamedTuple):
    """Of one scene; NaN where it has no object to ask for.

    foreground_ari: over the pixels of all objects of which any can be seen
    bound_share:    share of the objects asked for that have a slot of their own (see `bound`)
    one_a_slot:     1 where all of them have one, else 0
    """

    foreground_ari: float
    bound_share: float
    one_a_slot: float


def binding(
    truth: Int[np.ndarray, "h w"],
    masks: Float[np.ndarray, "m h w"],
    visible: Float[np.ndarray, " n"],
    least: float = 0.5,
) -> Binding:
    """Scores one scene.

    truth: label i + 1 where object i is seen    masks: each slot's share of each pixel
    visible: share of each object that is seen; objects with at least ``least`` are asked for

    A mask that wins more than half of what is no object is the backdrop's: it binds nothing, or one
    slot that paints everything would hold the object of every scene with one. In the ARI it is a
    part like the others.
    """
    nothing = float("nan")
    seen = np.flatnonzero([np.any(truth == i + 1) for i in range(len(visible))])
    if not len(seen):
        return Binding(nothing, nothing, nothing)
    slots = masks.argmax(0)
    counts = contingency(truth, slots, seen + 1)
    asked = counts[visible[seen] >= least]
    if not len(asked):
        return Binding(adjusted_rand_index(counts), nothing, nothing)
    behind = np.bincount(slots[~np.isin(truth, seen + 1)], minlength=counts.shape[1])
    own = bound(asked[:, behind <= behind.sum() / 2], asked.sum(1))
    return Binding(adjusted_rand_index(counts), float(own.mean()), float(own.all()))
