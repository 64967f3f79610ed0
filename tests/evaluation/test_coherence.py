"""Planted violations are found at their step, and nothing else is."""

from __future__ import annotations

import numpy as np
import pytest

from wm_jax.evaluation.coherence import KINDS, first_violations
from wm_jax.evaluation.protocol import TemporalProtocol
from wm_jax.evaluation.survival import estimates, half_life, survival
from wm_jax.evaluation.tracker import Tracks
from wm_jax.evaluation.world import Truth

STEPS, HUES = 80, 5
HUE = np.array([1, 3])


def rollout(clips=1):
    """Two objects that cross the frame, as tracks and as truth."""
    time = np.arange(STEPS)
    path = np.stack([np.stack([5 + 0.5 * time, 10 + 0 * time], -1),
                     np.stack([50 - 0.5 * time, 40 + 0 * time], -1)], 1)  # fmt: skip
    path = np.broadcast_to(path, (clips, STEPS, 2, 2)).astype(np.float32)
    lead = (clips, STEPS, 2)
    truth = Truth(
        np.broadcast_to(HUE, lead), np.broadcast_to([0, 1], lead), np.ones(lead, bool),
        np.ones(lead, np.float32), path, np.zeros(lead, bool), np.zeros(lead, bool),
    )  # fmt: skip
    present = np.zeros((clips, STEPS, HUES), bool)
    present[..., HUE] = True
    position = np.full((clips, STEPS, HUES, 2), np.nan, np.float32)
    position[:, :, HUE] = path
    shape = np.full(present.shape, -1)
    shape[..., HUE] = [0, 1]
    tracks = Tracks(
        present, position, np.where(present, 50.0, 0).astype(np.float32), shape,
        np.zeros(present.shape, np.int64),
    )  # fmt: skip
    return tracks, truth


def violation(tracks, truth, longest=10):
    found = first_violations(tracks, truth, TemporalProtocol(longest_hidden=longest))
    kind = int(found.kind[0])
    return (int(found.step[0]), KINDS[kind] if kind >= 0 else None)


def test_the_truth_violates_nothing():
    assert violation(*rollout()) == (STEPS, None)


@pytest.mark.parametrize("frames, expected", [(10, (STEPS, None)), (11, (21, "lost"))])
def test_an_object_is_lost_once_it_is_unseen_for_longer_than_anything_is_hidden(frames, expected):
    tracks, truth = rollout()
    tracks.present[0, 20 : 20 + frames, 3] = False
    assert violation(tracks, truth) == expected


@pytest.mark.parametrize("frames, expected", [(2, (STEPS, None)), (3, (31, "doubled"))])
@pytest.mark.parametrize("how", ["foreign", "spare"])
def test_more_than_there_are_for_three_frames_is_doubled(frames, expected, how):
    tracks, truth = rollout()
    if how == "foreign":
        tracks.present[0, 30 : 30 + frames, 0] = True
        tracks.position[0, 30 : 30 + frames, 0] = 30
    else:
        tracks.spares[0, 30 : 30 + frames, 1] = 1
    assert violation(tracks, truth) == expected


def test_hues_that_trade_places_are_swapped():
    tracks, truth = rollout()
    tracks.position[0, 40:, HUE] = tracks.position[0, 40:, HUE[::-1]]
    assert violation(tracks, truth) == (41, "swapped")


def test_a_teleport_is_no_swap():
    tracks, truth = rollout()
    tracks.position[0, 40:, 1] += [10, 30]
    assert violation(tracks, truth)[1] is None


def test_another_shape_for_three_frames_in_full_sight_is_swapped():
    tracks, truth = rollout()
    tracks.shape[0, 50:52, 1] = 2
    tracks.mass[0, 52, 1] = 10  # half hidden: not asked, and does not break the run
    tracks.shape[0, 53, 1] = 2
    assert violation(tracks, truth) == (54, "swapped")
    assert (
        first_violations(tracks, truth, TemporalProtocol(resolution=32, longest_hidden=10)).kind[0]
        == -1
    )


def test_a_picture_that_freezes_is_astray_when_it_freezes_and_a_frozen_one_at_once():
    tracks, truth = rollout()
    tracks.position[0, 40:] = tracks.position[0, 40]
    step, kind = violation(tracks, truth)
    assert kind == "astray" and abs(step - 41) <= 2
    tracks.position[0] = tracks.position[0, :1]
    assert violation(tracks, truth) == (1, "astray")


def test_survival_is_a_product_over_those_still_watched():
    # Of four: one ends at 2, one is watched up to 3, one ends at 4, one lasts.
    last, ended = np.array([2, 3, 4, 5]), np.array([True, False, True, False])
    curve = survival(last, ended, np.ones(4), 5)
    np.testing.assert_allclose(curve, [1, 3 / 4, 3 / 4, 3 / 8, 3 / 8])
    assert half_life(curve) == 4
    assert half_life(np.ones(5)) == 6, "beyond the last"


def test_intervals_hold_the_estimate_and_weigh_units():
    rng = np.random.default_rng(0)
    last, ended = rng.integers(1, 20, 60), rng.random(60) < 0.7
    curve, half = estimates(last, ended, np.repeat(np.arange(30), 2), 20)
    assert np.all((curve.low <= curve.value) & (curve.value <= curve.high))
    assert half.low[0] <= half.value[0] <= half.high[0] and half.n[0] == 30
    alone = survival(last, ended, np.repeat([1.0] + [0.0] * 29, 2), 20)
    np.testing.assert_allclose(alone, survival(last[:2], ended[:2], np.ones(2), 20))
