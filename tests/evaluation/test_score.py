"""Object scores on hand-made tracks: every rule has a number."""

import numpy as np
import pytest

from wm_jax.evaluation.protocol import Protocol
from wm_jax.evaluation.score import score_objects
from wm_jax.evaluation.tracker import Tracks
from wm_jax.evaluation.world import Truth

HUES = 5
PROTOCOL = Protocol(resolution=64)


def truth(*objects, steps=1, slots=3):
    """Objects (hue, (x, y), visible share) of one clip that never move."""
    out = Truth(
        hue=np.full((1, steps, slots), -1, np.int32),
        shape=np.zeros((1, steps, slots), np.int32),
        present=np.zeros((1, steps, slots), bool),
        visible=np.zeros((1, steps, slots), np.float32),
        centroid=np.full((1, steps, slots, 2), np.nan, np.float32),
        touching=np.zeros((1, steps, slots), bool),
        meeting=np.zeros((1, steps, slots), bool),
    )
    for n, (hue, place, visible) in enumerate(objects):
        out.hue[:, :, n], out.present[:, :, n] = hue, True
        out.visible[:, :, n], out.centroid[:, :, n] = visible, place
    return out


def tracks(places, spares=None, steps=1):
    """Positions by hue."""
    out = Tracks(
        np.zeros((1, steps, HUES), bool),
        np.full((1, steps, HUES, 2), np.nan, np.float32),
        np.zeros((1, steps, HUES), np.float32),
        np.zeros((1, steps, HUES), np.int64),
        np.zeros((1, steps, HUES), np.int64),
    )
    for hue, place in places.items():
        out.present[:, :, hue], out.position[:, :, hue] = True, place
    for hue, count in (spares or {}).items():
        out.spares[:, :, hue] = count
    return out


def test_objects_are_paired_by_hue_not_by_place():
    scores = score_objects(
        tracks({1: (10, 10), 2: (13, 14)}), truth((1, (13, 14), 1), (2, (10, 10), 1)), PROTOCOL
    )
    np.testing.assert_allclose(scores.error[0, 0, :2], [5, 5])
    assert scores.invented[0, 0] == 0
    assert scores.matched[0, 0]


def test_errors_are_capped_and_a_miss_costs_the_cap():
    scores = score_objects(tracks({1: (60, 60)}), truth((1, (5, 5), 1), (2, (10, 10), 1)), PROTOCOL)
    np.testing.assert_allclose(scores.error[0, 0, :2], [16, 16])
    assert scores.found[0, 0].tolist() == [True, False, False]
    assert not scores.matched[0, 0]


@pytest.mark.parametrize("visible, asked", [(0.5, True), (0.49, False), (0.0, False)])
def test_only_visible_objects_are_asked_for(visible, asked):
    scores = score_objects(tracks({}), truth((1, (5, 5), visible)), PROTOCOL)
    assert scores.asked[0, 0, 0] == asked
    assert scores.matched[0, 0] == (not asked)


def test_a_hidden_object_that_is_shown_is_no_invention_but_a_foreign_hue_is():
    scores = score_objects(
        tracks({1: (5, 5), 3: (20, 20)}, spares={1: 1}), truth((1, (5, 5), 0.1)), PROTOCOL
    )
    assert scores.invented[0, 0] == 2, "hue 3, and the second blob of hue 1"


def test_touched_counts_from_the_first_touch_on():
    scene = truth((1, (5, 5), 1), (2, (9, 9), 1), steps=4)
    scene.touching[0, 1, 0] = True
    scores = score_objects(tracks({1: (5, 5), 2: (9, 9)}, steps=4), scene, PROTOCOL)
    assert scores.touched[0, :, 0].tolist() == [False, True, True, True]
    assert not scores.touched[0, :, 1:].any()


def test_prices_scale_with_resolution():
    half = Protocol(resolution=32)
    scores = score_objects(tracks({1: (5, 10)}), truth((1, (5, 5.5), 1), (2, (1, 1), 1)), half)
    np.testing.assert_allclose(scores.error[0, 0, :2], [4.5, 8])
    near = score_objects(tracks({1: (5, 9)}), truth((1, (5, 5), 1)), half)
    far = score_objects(tracks({1: (5, 9.6)}), truth((1, (5, 5), 1)), half)
    assert near.matched[0, 0]
    assert not far.matched[0, 0]
