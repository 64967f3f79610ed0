"""Which events there are is the truth's to say; what becomes of them, the prediction's."""

from __future__ import annotations

import numpy as np
import pytest

from wm_jax.evaluation.flicker import flicker
from wm_jax.evaluation.permanence import KINDS, hidden_events, score_events
from wm_jax.evaluation.protocol import TemporalProtocol
from wm_jax.evaluation.tracker import Tracks
from wm_jax.evaluation.world import Truth

CONTEXT, STEPS = 6, 30
PROTOCOL = TemporalProtocol(context=CONTEXT, horizon=STEPS)


def clip(visible, touching=()):
    """One object of hue 2 that moves a pixel a frame."""
    frames = CONTEXT + STEPS
    lead = (1, frames, 1)
    seen = np.ones(lead, np.float32)
    for (first, end), share in visible.items():
        seen[0, first:end] = share
    touch = np.zeros(lead, bool)
    touch[0, list(touching)] = True
    place = np.stack([np.arange(frames), np.full(frames, 20.0)], -1)[None, :, None]
    hue = np.full(lead, 2)
    return Truth(hue, hue * 0, np.ones(lead, bool), seen, place.astype(np.float32), touch, touch)


def events(*args, **kwargs):
    found = hidden_events(clip(*args, **kwargs), PROTOCOL)
    return [
        (int(back), int(hidden), KINDS[kind])
        for back, hidden, kind in zip(found.back, found.hidden, found.kind, strict=True)
    ]


def test_kinds_of_events():
    assert events({(4, 10): 0}) == [(4, 6, "context")]
    assert events({(10, 20): 0}) == [(14, 10, "rollout")]
    assert events({(10, 20): 0}, touching=[15]) == [(14, 10, "struck")]
    assert events({(10, 20): 0}, touching=[25]) == [(14, 10, "rollout")], "seen again by then"
    assert events({(10, 12): 0, (20, 22): 0}) == [(6, 2, "rollout"), (16, 2, "rollout")]


def test_what_is_no_event():
    assert events({}) == []
    assert events({(10, 20): 0.3}) == [], "never out of sight"
    assert events({(0, 20): 0}) == [], "never in sight before"
    assert events({(10, 36): 0}) == [], "never in sight again"
    assert events({(2, 5): 0}) == [], "back before the context ends"


def test_only_frames_out_of_sight_count():
    assert events({(10, 13): 0.3, (13, 18): 0, (18, 21): 0.3}) == [(15, 5, "rollout")]


@pytest.mark.parametrize(
    "shift, late, hue, expected",
    [
        (0, 0, 2, (0.0, True, True)),
        (3, 0, 2, (3.0, True, True)),
        (6, 0, 2, (6.0, True, False)),  # outside its radius
        (0, 2, 2, (16.0, None, True)),  # two frames late: missed at first, in time all the same
        (0, 3, 2, (16.0, None, False)),
        (0, 0, 1, (16.0, False, False)),  # there, in another colour
    ],
)
def test_scores_of_an_event(shift, late, hue, expected):
    truth = clip({(10, 20): 0})
    found = hidden_events(truth, PROTOCOL)
    ahead = Truth(*(field[:, CONTEXT:] for field in truth))
    present = np.zeros((1, STEPS, 4), bool)
    present[0, 14 + late :, hue] = True
    position = np.full((1, STEPS, 4, 2), np.nan, np.float32)
    position[0, :, hue] = ahead.centroid[0, :, 0] + [shift, 0]
    empty = np.zeros((1, STEPS, 4), np.int64)
    tracks = Tracks(present, position, empty.astype(np.float32), empty, empty)
    scores = score_events(tracks, ahead, np.full((1, 1), 5.0), found, PROTOCOL)
    error, same, success = expected
    assert scores.error[0] == pytest.approx(error)
    assert bool(scores.success[0]) == success
    assert bool(scores.paired[0]) == (same is not None)
    assert same is None or bool(scores.same[0]) == same


def test_no_events_are_no_error():
    truth = clip({})
    found = hidden_events(truth, PROTOCOL)
    empty = np.zeros((1, STEPS, 4), np.int64)
    tracks = Tracks(empty > 0, np.zeros((1, STEPS, 4, 2)), empty, empty, empty)
    scores = score_events(tracks, truth, np.ones((1, 1)), found, PROTOCOL)
    assert len(scores.error) == len(scores.same) == len(scores.paired) == 0


def test_flicker_is_the_change_that_the_truth_has_not():
    rng = np.random.default_rng(0)
    true = np.repeat(rng.integers(0, 255, (1, 1, 8, 8, 3), np.uint8), 3, 1)
    covered = np.zeros((1, 3, 8, 8), bool)
    covered[0, 1, 0] = True
    still = np.array([[True, True, False]])
    total, count = flicker(true, true, covered, still)
    assert not total.any() and count.tolist() == [[0, 56, 0]]
    shaken = true.copy()
    shaken[0, 1] = np.where(true[0, 1] > 100, true[0, 1] - 2, true[0, 1] + 2)
    total, count = flicker(shaken, true, covered, still)
    np.testing.assert_allclose(total / np.maximum(count, 1), [[0, 4, 0]])
    moved = true.copy()
    moved[0, 1, 0] = 0  # under the object
    assert not flicker(moved, true, covered, still)[0].any()
