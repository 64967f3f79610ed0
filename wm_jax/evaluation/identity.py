"""Identity: does an object that the prediction shows still look like the one whose place it has?

Position error pairs by hue, so it cannot tell a swap of colours from two wrong places. Here places
are paired first, whatever their hue, and looks are compared after.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Int
from scipy.optimize import linear_sum_assignment

from wm_jax.evaluation.protocol import Protocol
from wm_jax.evaluation.tracker import Tracks
from wm_jax.evaluation.world import Truth

SHAPES_FROM = 64  # px: at lower resolutions shape is not asked
WHOLE = 0.99  # an object is in full sight where the truth shows this share of it


def score_identity(
    tracks: Tracks, truth: Truth, protocol: Protocol
) -> tuple[Int[np.ndarray, "r t"], Int[np.ndarray, "r t"]]:
    """Of the pairs of a predicted and a true visible object (least total distance, none farther
    apart than the protocol's match distance): those with the right looks, and all of them.

    Looks are the hue, and from `SHAPES_FROM` px on the shape of what is in full sight, where the
    prediction states one. Objects that are missed or invented make no pair: they are counted by
    other metrics, and a prediction without objects has no identity at all.
    """
    asked = truth.present & (truth.visible >= protocol.visible_share)
    clips, steps = asked.shape[:2]
    right, pairs = np.zeros((clips, steps), np.int64), np.zeros((clips, steps), np.int64)
    for r, t in np.ndindex(clips, steps):
        slots, hues = np.flatnonzero(asked[r, t]), np.flatnonzero(tracks.present[r, t])
        if not len(slots) or not len(hues):
            continue
        places, true = tracks.position[r, t, hues], truth.centroid[r, t, slots]
        distance = np.linalg.norm(places[:, None] - true[None], axis=-1)
        # A pair too far apart costs more than any number of near ones: near pairs come first.
        far = ~(distance <= protocol.match)
        i, j = linear_sum_assignment(np.where(far, 1e3 * protocol.match, distance))
        near = ~far[i, j]
        hue, slot = hues[i[near]], slots[j[near]]
        same = hue == truth.hue[r, t, slot]
        if protocol.resolution >= SHAPES_FROM:
            told = tracks.shape[r, t, hue]
            asks = (truth.visible[r, t, slot] >= WHOLE) & (told >= 0)
            same &= ~asks | (told == truth.shape[r, t, slot])
        right[r, t], pairs[r, t] = same.sum(), len(hue)
    return right, pairs
