"""Coherence: for how long does a free rollout keep the objects it began with?

Nothing here compares places with the truth, which is chaotic: only which objects there are, and how
fast they move. The first violation ends a rollout (`wm_jax.evaluation.survival`):

  lost     a hue of the scene is unseen for longer than anything is hidden in training
  doubled  a hue that the scene has not, or a further blob of one that it has, for `lasting` frames
  swapped  two hues that trade places from one frame to the next; or an object in full sight that
           has another shape for `lasting` frames in which its shape is asked
  astray   over `pace` frames the mean speed is not within `paces` of the truth's: a frozen picture
           keeps its objects and is no rollout
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from wm_jax.evaluation.identity import SHAPES_FROM
from wm_jax.evaluation.protocol import TemporalProtocol
from wm_jax.evaluation.tracker import Tracks
from wm_jax.evaluation.world import Truth

KINDS = ("lost", "doubled", "swapped", "astray")


class Violations(NamedTuple):
    """The first of each rollout: its step (1 … t) and kind (index into `KINDS`). Without one, the
    last step and -1."""

    step: Int[np.ndarray, " r"]
    kind: Int[np.ndarray, " r"]


def first_violations(tracks: Tracks, truth: Truth, protocol: TemporalProtocol) -> Violations:
    """Of predicted frames (r, t); ``truth`` is of the same frames."""
    hues = tracks.present.shape[-1]
    owned = (truth.present[..., None] & (truth.hue[..., None] == np.arange(hues))).any((1, 2))
    steps = np.stack(
        [
            _lost(tracks, owned, protocol.longest_hidden),
            _doubled(tracks, owned, protocol.lasting),
            np.minimum(_traded(tracks, protocol), _reshaped(tracks, truth, protocol)),
            _astray(tracks, truth, owned, protocol),
        ]
    )
    last = tracks.present.shape[1]
    first = steps.min(0)
    none = first > last
    return Violations(np.where(none, last, first), np.where(none, -1, steps.argmin(0)))


def _first(violated: Bool[np.ndarray, "r t"], late: int = 0) -> Int[np.ndarray, " r"]:
    """The step of the first, known ``late`` frames after; beyond the last if there is none."""
    steps = violated.shape[1]
    found = np.maximum(violated.argmax(1) - late, 0) + 1
    return np.where(violated.any(1), found, steps + 1)


def _lost(tracks: Tracks, owned: Bool[np.ndarray, "r k"], longest: int) -> Int[np.ndarray, " r"]:
    time = np.arange(tracks.present.shape[1])[:, None]
    last_seen = np.maximum.accumulate(np.where(tracks.present, time, -1), axis=1)
    gone = owned[:, None] & (time - last_seen > longest)
    return _first(np.any(gone, axis=-1), longest)


def _doubled(tracks: Tracks, owned: Bool[np.ndarray, "r k"], lasting: int) -> Int[np.ndarray, " r"]:
    more = ((tracks.present & ~owned[:, None]) | (tracks.spares > 0)).any(-1)
    held = np.zeros_like(more)
    if more.shape[1] >= lasting:
        held[:, lasting - 1 :] = np.lib.stride_tricks.sliding_window_view(more, lasting, 1).all(-1)
    return _first(held, lasting - 1)


def _traded(tracks: Tracks, protocol: TemporalProtocol) -> Int[np.ndarray, " r"]:
    """Two hues are each nearer to where the other was, by more than any step of theirs."""
    place = np.where(tracks.present[..., None], tracks.position, np.nan)
    with np.errstate(invalid="ignore"):
        moved = np.linalg.norm(place[:, 1:, :, None] - place[:, :-1, None], axis=-1)
        own = np.diagonal(moved, axis1=2, axis2=3)
        stay = own[..., :, None] + own[..., None, :]
        trade = moved + np.swapaxes(moved, 2, 3)
        traded = (stay - trade > 2 * protocol.match) & (trade < protocol.match)
    return _first(np.pad(traded.any((2, 3)), ((0, 0), (1, 0))))


def _reshaped(tracks: Tracks, truth: Truth, protocol: TemporalProtocol) -> Int[np.ndarray, " r"]:
    if protocol.resolution < SHAPES_FROM:
        return np.full(len(tracks.present), tracks.present.shape[1] + 1)
    hues = tracks.present.shape[-1]
    slot = (truth.hue[..., None] == np.arange(hues)) & truth.present[..., None]
    shape = np.where(slot, truth.shape[..., None], -1).max(2)
    largest = tracks.mass.max(1, keepdims=True)
    asked = tracks.present & (tracks.mass >= protocol.whole_share * largest) & (shape >= 0)
    wrong = asked & (tracks.shape != shape)
    # Frames in which it is not asked neither count nor break the run.
    run, steps = np.zeros(asked[:, 0].shape, np.int64), asked.shape[1]
    found = np.full(len(asked), steps + 1)
    for t in range(steps):
        run = np.where(wrong[:, t], run + 1, np.where(asked[:, t], 0, run))
        found = np.where((run >= protocol.lasting).any(-1) & (found > steps), t + 1, found)
    return found


def _astray(
    tracks: Tracks, truth: Truth, owned: Bool[np.ndarray, "r k"], protocol: TemporalProtocol
) -> Int[np.ndarray, " r"]:
    """Dated to when a picture that stands still would have come to a halt; to the first step where
    the first window is astray."""
    seen = truth.present & (truth.visible >= protocol.visible_share)
    speeds = (
        _pace(np.where(known[..., None], place, np.nan), protocol)
        for known, place in (
            (tracks.present & owned[:, None], tracks.position),
            (seen, truth.centroid),
        )
    )
    with np.errstate(invalid="ignore"):
        ratio = np.divide(*(np.maximum(speed, protocol.slowest) for speed in speeds))
        off = (ratio < protocol.paces[0]) | (ratio > protocol.paces[1])
    steps = tracks.present.shape[1]
    if not off.shape[1]:
        return np.full(len(off), steps + 1)
    halt = round(protocol.pace * protocol.paces[0])
    first = np.where(off[:, 0], 1, off.argmax(1) + halt + 1)
    return np.where(off.any(1), first, steps + 1)


def _pace(
    place: Float[np.ndarray, "r t n 2"], protocol: TemporalProtocol
) -> Float[np.ndarray, "r windows"]:
    """Mean speed, px a frame, of the objects seen in each window; NaN where few were. (The median
    of two objects, one fast and one slow, leaps from one to the other.)"""
    lag = protocol.pace_lag
    speed = np.linalg.norm(place[:, lag:] - place[:, :-lag], axis=-1) / lag
    if speed.shape[1] < protocol.pace:
        return np.zeros((len(speed), 0))
    windows = np.lib.stride_tricks.sliding_window_view(speed, protocol.pace, 1)
    flat = np.moveaxis(windows, 2, -1).reshape(*windows.shape[:2], -1)
    out = np.full(flat.shape[:2], np.nan)
    enough = (~np.isnan(flat)).sum(-1) >= protocol.pace_steps
    out[enough] = np.nanmean(flat[enough], axis=-1)
    return out
