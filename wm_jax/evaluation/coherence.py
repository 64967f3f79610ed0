"""Coherence: for how long does a free rollout keep the objects it began with?

Nothing here compares places with the truth, which is chaotic: only which objects there are, and how
fast they move. The first violation ends a rollout (`wm_jax.evaluation.survival`):

  lost     a hue of the scene is unseen for longer than anything is hidden in training
  doubled  a hue that the scene has not, or a further blob of one that it has, for `LASTING` frames
  swapped  two hues that trade places from one frame to the next; or an object in full sight that
           has another shape for `LASTING` frames in which its shape is asked
  astray   over `PACE` frames the mean speed is not within `PACES` of the truth's: a frozen picture
           keeps its objects and is no rollout
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from wm_jax.evaluation.identity import SHAPES_FROM
from wm_jax.evaluation.protocol import Protocol
from wm_jax.evaluation.tracker import Tracks
from wm_jax.evaluation.world import Truth

KINDS = ("lost", "doubled", "swapped", "astray")
LASTING = 3  # frames: an instrument that errs once is no violation
PACE = 32  # frames
PACES = (0.25, 4.0)
SLOWEST = 0.1  # px at 64 px a frame: all that is slower is as slow as this
LAG = 4  # frames over which a step is measured: the instrument's own jitter is no speed
FEW = 16  # steps below which a window has no speed
WHOLE = 0.9  # of the most that is ever seen of it: an object in full sight


class Violations(NamedTuple):
    """The first of each rollout: its step (1 … t) and kind (index into `KINDS`). Without one, the
    last step and -1."""

    step: Int[np.ndarray, " r"]
    kind: Int[np.ndarray, " r"]


def first_violations(
    tracks: Tracks, truth: Truth, longest_hidden: int, protocol: Protocol
) -> Violations:
    """Of predicted frames (r, t); ``truth`` is of the same frames."""
    hues = tracks.present.shape[-1]
    owned = (truth.present[..., None] & (truth.hue[..., None] == np.arange(hues))).any((1, 2))
    steps = np.stack(
        [
            _lost(tracks, owned, longest_hidden),
            _first(_lasting(_doubled(tracks, owned), LASTING), LASTING - 1),
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


def _lasting(what: Bool[np.ndarray, "r t *n"], frames: int) -> Bool[np.ndarray, "r t *n"]:
    """Whether it holds now and did in the ``frames - 1`` before."""
    held = np.zeros_like(what)
    if what.shape[1] >= frames:
        held[:, frames - 1 :] = np.lib.stride_tricks.sliding_window_view(what, frames, 1).all(-1)
    return held


def _lost(tracks: Tracks, owned: Bool[np.ndarray, "r k"], longest: int) -> Int[np.ndarray, " r"]:
    time = np.arange(tracks.present.shape[1])[:, None]
    last_seen = np.maximum.accumulate(np.where(tracks.present, time, -1), axis=1)
    gone = owned[:, None] & (time - last_seen > longest)
    return _first(np.any(gone, axis=-1), longest)


def _doubled(tracks: Tracks, owned: Bool[np.ndarray, "r k"]) -> Bool[np.ndarray, "r t"]:
    return ((tracks.present & ~owned[:, None]) | (tracks.spares > 0)).any(-1)


def _traded(tracks: Tracks, protocol: Protocol) -> Int[np.ndarray, " r"]:
    """Two hues are each nearer to where the other was, by more than any step of theirs."""
    place = np.where(tracks.present[..., None], tracks.position, np.nan)
    with np.errstate(invalid="ignore"):
        moved = np.linalg.norm(place[:, 1:, :, None] - place[:, :-1, None], axis=-1)
        own = np.diagonal(moved, axis1=2, axis2=3)
        stay = own[..., :, None] + own[..., None, :]
        trade = moved + np.swapaxes(moved, 2, 3)
        traded = (stay - trade > 2 * protocol.match) & (trade < protocol.match)
    return _first(np.pad(traded.any((2, 3)), ((0, 0), (1, 0))))


def _reshaped(tracks: Tracks, truth: Truth, protocol: Protocol) -> Int[np.ndarray, " r"]:
    if protocol.resolution < SHAPES_FROM:
        return np.full(len(tracks.present), tracks.present.shape[1] + 1)
    hues = tracks.present.shape[-1]
    slot = (truth.hue[..., None] == np.arange(hues)) & truth.present[..., None]
    shape = np.where(slot, truth.shape[..., None], -1).max(2)
    largest = tracks.mass.max(1, keepdims=True)
    asked = tracks.present & (tracks.mass >= WHOLE * largest) & (shape >= 0)
    wrong = asked & (tracks.shape != shape)
    # Frames in which it is not asked neither count nor break the run.
    run, steps = np.zeros(asked[:, 0].shape, np.int64), asked.shape[1]
    found = np.full(len(asked), steps + 1)
    for t in range(steps):
        run = np.where(wrong[:, t], run + 1, np.where(asked[:, t], 0, run))
        found = np.where((run >= LASTING).any(-1) & (found > steps), t + 1, found)
    return found


def _astray(
    tracks: Tracks, truth: Truth, owned: Bool[np.ndarray, "r k"], protocol: Protocol
) -> Int[np.ndarray, " r"]:
    """Dated to when a picture that stands still would have come to a halt; to the first step where
    the first window is astray."""
    seen = truth.present & (truth.visible >= protocol.visible_share)
    speeds = (
        _pace(np.where((tracks.present & owned[:, None])[..., None], tracks.position, np.nan)),
        _pace(np.where(seen[..., None], truth.centroid, np.nan)),
    )
    least = SLOWEST * protocol.unit
    with np.errstate(invalid="ignore"):
        ratio = np.maximum(speeds[0], least) / np.maximum(speeds[1], least)
        off = (ratio < PACES[0]) | (ratio > PACES[1])
    steps = tracks.present.shape[1]
    first = (
        np.where(off[:, 0], 1, off.argmax(1) + round(PACE * PACES[0]) + 1)
        if off.shape[1]
        else steps + 1
    )
    return np.where(off.any(1), first, steps + 1)


def _pace(place: Float[np.ndarray, "r t n 2"]) -> Float[np.ndarray, "r windows"]:
    """Mean speed, px a frame, of the objects seen in each window; NaN where few were. (The median
    of two objects, one fast and one slow, leaps from one to the other.)"""
    speed = np.linalg.norm(place[:, LAG:] - place[:, :-LAG], axis=-1) / LAG
    if speed.shape[1] < PACE:
        return np.zeros((len(speed), 0))
    windows = np.lib.stride_tricks.sliding_window_view(speed, PACE, 1)
    flat = np.moveaxis(windows, 2, -1).reshape(*windows.shape[:2], -1)
    out = np.full(flat.shape[:2], np.nan)
    enough = (~np.isnan(flat)).sum(-1) >= FEW
    out[enough] = np.nanmean(flat[enough], axis=-1)
    return out
