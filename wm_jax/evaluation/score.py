"""Object scores: what was tracked in predicted frames against the true state.

Objects are paired by hue alone: the hues of a scene are distinct.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from wm_jax.evaluation.protocol import Protocol
from wm_jax.evaluation.tracker import Tracks
from wm_jax.evaluation.world import Truth


class ObjectScores(NamedTuple):
    """Per clip r, horizon step t and object slot n.

    error:     px, at most the cap; the cap where the object was not found
    asked:     the object is visible in the truth
    found:     its hue is in the prediction
    touched:   asked, and it touched something since the context ended
    invented:  objects of the prediction that the scene has not
    matched:   every asked object is within the protocol's match distance
    """

    error: Float[np.ndarray, "r t n"]
    asked: Bool[np.ndarray, "r t n"]
    found: Bool[np.ndarray, "r t n"]
    touched: Bool[np.ndarray, "r t n"]
    invented: Int[np.ndarray, "r t"]
    matched: Bool[np.ndarray, "r t"]


def capped(
    place: Float[np.ndarray, "r t n 2"], found: Bool[np.ndarray, "r t n"], truth: Truth, cap: float
) -> Float[np.ndarray, "r t n"]:
    """px from the true places, at most the cap; the cap where nothing was found."""
    off = np.linalg.norm(place - truth.centroid, axis=-1)
    return np.where(found, np.minimum(off, cap), cap)


def score_objects(tracks: Tracks, truth: Truth, protocol: Protocol) -> ObjectScores:
    """Scores ``tracks`` (r, t, …) of predicted frames; ``truth`` is of the same frames."""
    asked = truth.present & (truth.visible >= protocol.visible_share)
    slot_hue = np.where(truth.present, truth.hue, 0)
    found = np.take_along_axis(tracks.present, slot_hue, 2) & truth.present
    place = np.take_along_axis(tracks.position, slot_hue[..., None], 2)
    distance = np.linalg.norm(place - truth.centroid, axis=-1)
    error = np.where(asked & found, np.minimum(distance, protocol.cap), protocol.cap)
    touched = asked & (np.cumsum(truth.touching, axis=1) > 0)
    return ObjectScores(
        error=error,
        asked=asked,
        found=found & asked,
        touched=touched,
        invented=_invented(tracks, truth),
        matched=np.all(~asked | (error <= protocol.match), axis=2),
    )


def _invented(tracks: Tracks, truth: Truth) -> Int[np.ndarray, "r t"]:
    """Hues that no object of the scene has, and further blobs of hues that one has."""
    hues = tracks.present.shape[-1]
    owned = truth.present[..., None] & (truth.hue[..., None] == np.arange(hues))
    foreign = tracks.present & ~owned.any(2)
    return foreign.sum(2) + tracks.spares.sum(2)
