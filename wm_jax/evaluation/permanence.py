"""Permanence: is an object that was hidden there again when the truth shows it again?

Events are chosen on the truth alone, so what a prediction loses cannot leave the score.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from wm_jax.evaluation.protocol import TemporalProtocol
from wm_jax.evaluation.tracker import Tracks
from wm_jax.evaluation.world import Truth

#: Hidden in the last frame shown; hidden later; touched by something while hidden, whenever.
KINDS = ("context", "rollout", "struck")


class Events(NamedTuple):
    """Reappearances e. ``back`` is the frame of the horizon, from 0; ``hidden`` counts frames;
    ``kind`` is an index into `KINDS`."""

    clip: Int[np.ndarray, " e"]
    slot: Int[np.ndarray, " e"]
    back: Int[np.ndarray, " e"]
    hidden: Int[np.ndarray, " e"]
    kind: Int[np.ndarray, " e"]


class EventScores(NamedTuple):
    """error: px when it reappears, the cap where its hue is not found; same: what is nearest to
    where it should be (within the match distance) has its hue; paired: there is such a thing;
    success: its hue is found within its radius of its place, then or in the next frames."""

    error: Float[np.ndarray, " e"]
    same: Bool[np.ndarray, " e"]
    paired: Bool[np.ndarray, " e"]
    success: Bool[np.ndarray, " e"]


def hidden_events(truth: Truth, protocol: TemporalProtocol) -> Events:
    """Of whole clips, context included. An object counts from when it was clearly seen once."""
    found: list[tuple[int, ...]] = []
    context, least = protocol.context, protocol.hidden_share
    for clip, slot in np.ndindex(truth.present.shape[0], truth.present.shape[2]):
        present = truth.present[clip, :, slot]
        visible = np.where(present, truth.visible[clip, :, slot], 0)
        clear = np.flatnonzero(visible >= protocol.visible_share)
        for gone, back in zip(clear[:-1], clear[1:], strict=True):
            between = slice(gone + 1, back)
            hidden = int((visible[between] < least).sum())
            if back < context or not hidden or not present[between].all():
                continue
            at_cut = gone < context - 1 and visible[context - 1] < least
            struck = truth.touching[clip, between, slot][visible[between] < least].any()
            kind = "struck" if struck else "context" if at_cut else "rollout"
            found.append((clip, slot, back - context, hidden, KINDS.index(kind)))
    columns = np.array(found, np.int64).reshape(-1, 5).T
    return Events(*columns)


def score_events(
    tracks: Tracks,
    truth: Truth,
    radius: Float[np.ndarray, "r n"],
    events: Events,
    protocol: TemporalProtocol,
) -> EventScores:
    """``tracks`` and ``truth`` of the horizon's frames, ``radius`` in px."""
    steps = tracks.present.shape[1]
    clip, slot, back = events.clip, events.slot, events.back
    hue = truth.hue[clip, back, slot]

    def distance(frame: Int[np.ndarray, " e"]) -> Float[np.ndarray, "e k"]:
        """Of everything tracked from where the object should be; infinite where it is not."""
        gap = tracks.position[clip, frame] - truth.centroid[clip, frame, slot][:, None]
        far = np.where(tracks.present[clip, frame], np.linalg.norm(gap, axis=-1), np.inf)
        clear = truth.visible[clip, frame, slot] >= protocol.visible_share
        return np.where(clear[:, None], far, np.inf)

    first = distance(back)
    each = np.arange(len(clip))
    success = np.zeros(len(clip), bool)
    for late in range(protocol.soon):
        frame = np.minimum(back + late, steps - 1)
        success |= distance(frame)[each, hue] <= radius[clip, slot]
    nearest = first.argmin(1) if len(each) else np.zeros(0, np.int64)
    return EventScores(
        error=np.minimum(first[each, hue], protocol.cap),
        same=nearest == hue,
        paired=first[each, nearest] <= protocol.match,
        success=success,
    )
