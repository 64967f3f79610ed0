"""Flicker: what changes from frame to frame where nothing should."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, UInt8


def flicker(
    predicted: UInt8[np.ndarray, "r t h w c"],
    true: UInt8[np.ndarray, "r t h w c"],
    covered: Bool[np.ndarray, "r t h w"],
    still: Bool[np.ndarray, "r t"],
) -> tuple[Float[np.ndarray, "r t"], Float[np.ndarray, "r t"]]:
    """Energy of frame differences above the truth's, squared 8-bit levels, and how many pixels it
    is summed over: those that no true object covers (``covered``: one does) in this frame or the
    one before, where light and camera did not change since (``still``). Nothing in the first."""
    total, count = np.zeros(still.shape), np.zeros(still.shape)
    for t in range(1, still.shape[1]):
        free = ~(covered[:, t] | covered[:, t - 1]) & still[:, t, None, None]
        energy = _change(predicted, t) - _change(true, t)
        total[:, t] = (energy * free).sum((1, 2))
        count[:, t] = free.sum((1, 2))
    return total, count


def _change(frames: UInt8[np.ndarray, "r t h w c"], t: int) -> Float[np.ndarray, "r h w"]:
    change = frames[:, t].astype(np.float32) - frames[:, t - 1]
    return np.square(change).mean(-1)
