"""Identity: looks are compared where places agree, and nowhere else."""

import numpy as np
import pytest

from wm_jax.evaluation import suite
from wm_jax.evaluation.identity import score_identity
from wm_jax.evaluation.informed import Prediction
from wm_jax.evaluation.protocol import Protocol
from wm_jax.evaluation.tracker import Tracks
from wm_jax.evaluation.world import Truth

HUES = 4
PROTOCOL = Protocol(resolution=64)


def tracks(places, shapes=None):
    """One frame: hue -> (x, y)."""
    present, position = np.zeros((1, 1, HUES), bool), np.full((1, 1, HUES, 2), np.nan, np.float32)
    shape = np.full((1, 1, HUES), -1)
    for hue, place in places.items():
        present[0, 0, hue], position[0, 0, hue] = True, place
        shape[0, 0, hue] = (shapes or {}).get(hue, 0)
    zero = np.zeros((1, 1, HUES), np.int64)
    return Tracks(present, position, zero.astype(np.float32), shape, zero)


def truth(objects, visible=1.0, shape=0):
    """One frame: (hue, (x, y)) of each object."""
    hue = np.array([[[h for h, _ in objects]]])
    place = np.array([[[p for _, p in objects]]], np.float32)
    whole = np.ones(hue.shape, bool)
    share = np.full(hue.shape, visible, np.float32)
    return Truth(hue, np.full(hue.shape, shape), whole, share, place, ~whole, ~whole)


TWO = truth([(0, (10, 10)), (1, (40, 40))])


@pytest.mark.parametrize(
    "shown, right, pairs",
    [
        ({0: (11, 10), 1: (40, 41)}, 2, 2),
        ({1: (10, 10), 0: (40, 40)}, 0, 2),  # colours swapped, places right
        ({0: (10, 10), 3: (40, 40)}, 1, 2),  # the second changed its colour
        ({0: (10, 10)}, 1, 1),  # the other one is missed: no pair
        ({0: (10, 10), 1: (40, 40), 2: (60, 5)}, 2, 2),  # an invention: no pair
        ({0: (10, 19)}, 0, 0),  # 9 px off: not the same place
        ({}, 0, 0),
    ],
)
def test_looks_count_where_places_agree(shown, right, pairs):
    scored = score_identity(tracks(shown), TWO, PROTOCOL)
    assert [int(x[0, 0]) for x in scored] == [right, pairs]


def test_pairs_are_the_nearest_in_all_not_the_first_come():
    # Hue 2 is near both; given to the first object, hue 0 would be left without a partner.
    close = truth([(0, (10, 10)), (2, (16, 10))])
    right, pairs = score_identity(tracks({0: (9, 10), 2: (12, 10)}), close, PROTOCOL)
    assert (int(right[0, 0]), int(pairs[0, 0])) == (2, 2)


def test_shape_is_asked_of_what_is_in_full_sight_and_large_enough():
    shown = tracks({0: (10, 10)}, shapes={0: 2})
    circle = [(0, (10, 10))]

    def right(truth, protocol=PROTOCOL):
        return int(score_identity(shown, truth, protocol)[0][0, 0])

    assert right(truth(circle, shape=2)) == 1
    assert right(truth(circle, shape=1)) == 0
    assert right(truth(circle, shape=1, visible=0.7)) == 1
    assert right(truth(circle, shape=1), Protocol(resolution=32)) == 1
    assert score_identity(shown, truth(circle, visible=0.4), PROTOCOL)[1][0, 0] == 0


def test_the_suite_reports_it(clips, protocol, instrument):
    few = suite.take(clips, np.arange(2))
    perfect = suite.Subject("perfect", lambda c, _: Prediction(c.frames[:, protocol.context :]))
    sums = suite.measure(perfect, few, protocol, instrument)[0]["identity"]
    assert sums.total.sum() == sums.weight.sum() > 100
    # Every red as blue and every blue as red: at the right places under the wrong names.
    turned = suite.Subject(
        "turned", lambda c, _: Prediction(np.roll(c.frames[:, protocol.context :], 1, axis=-1))
    )
    sums = suite.measure(turned, few, protocol, instrument)[0]["identity"]
    assert sums.total.sum() < 0.2 * sums.weight.sum()
