"""Events are read off tracks: the right object, the right way, and nothing else."""

import numpy as np
import pytest

from wm_jax.evaluation.adherence import FELL, Asked, View, happened
from wm_jax.evaluation.tracker import Tracks

HUES = 5


def view(places, shapes=None, grey=100):
    """Objects by hue at fixed places, or moving: hue -> (x, y, dx, dy)."""
    present = np.zeros((1, FELL, HUES), bool)
    position = np.full((1, FELL, HUES, 2), np.nan, np.float32)
    shape = np.full((1, FELL, HUES), -1)
    for hue, (x, y, *speed) in places.items():
        way = np.arange(FELL)[:, None] * np.array(speed or (0, 0))
        present[0, :, hue], position[0, :, hue] = True, np.array([x, y]) + way
        shape[0, :, hue] = (shapes or {}).get(hue, 0)
    frames = np.full((1, FELL, 64, 64, 3), grey, np.uint8)
    zero = np.zeros((1, FELL, HUES))
    return View(frames, Tracks(present, position, zero, shape, zero.astype(int)))


REST = {0: (20.0, 30.0), 1: (40.0, 10.0)}


def said(kind, words, after, hue=0, new_hue=0, shift=(np.nan, np.nan), grey=100, shapes=None):
    asked = Asked(kind, words, hue, new_hue, np.array(shift))
    return happened(asked, 0, view(REST), view(after, shapes, grey), 1.0)


@pytest.mark.parametrize(
    ("words", "after", "so"),
    [
        ("the red circle is pushed left", {**REST, 0: (20.0, 30.0, -2.0, 0.5)}, True),
        ("the red circle is pushed up", {**REST, 0: (20.0, 30.0, -2.0, 0.5)}, False),
        ("the red circle is pushed left", {**REST, 0: (20.0, 30.0, -0.2, 0.0)}, False),
        ("the red circle is pushed left", {**REST, 1: (40.0, 10.0, -2.0, 0.0)}, False),
        ("the red circle is pushed left", {1: REST[1]}, False),
        (
            "the red circle is pushed left",
            {0: (20.0, 30.0, -1.0, 0.0), 1: (40.0, 10.0, 3.0, 0.0)},
            False,
        ),
    ],
)
def test_a_push(words, after, so):
    assert said("push", words, after) == so


def test_a_move_is_there_at_once():
    assert said("move", "the red circle is moved down", {**REST, 0: (22.0, 50.0)})
    assert not said("move", "the red circle is moved down", {**REST, 0: (22.0, 32.0)})


def test_a_new_colour_is_where_the_old_one_was_and_alone():
    words = "the red circle turns blue"
    there = {2: (20.0, 30.0), 1: REST[1]}
    assert said("recolour", words, there, new_hue=2)
    assert not said("recolour", words, {**there, 0: REST[0]}, new_hue=2)
    assert not said("recolour", words, {2: (30.0, 30.0), 1: REST[1]}, new_hue=2)
    assert not said("recolour", words, REST, new_hue=2)


def test_only_what_is_named_disappears():
    assert said("remove", "the red circle disappears", {1: REST[1]})
    assert not said("remove", "the red circle disappears", {0: REST[0]})
    assert not said("remove", "the red circle disappears", {})


def test_what_appears_has_its_shape_and_place():
    words, shapes = "a blue triangle appears at the top left", {3: 2}
    assert said("add", words, {**REST, 3: (10.0, 8.0)}, new_hue=3, shapes=shapes)
    assert not said("add", words, {**REST, 3: (10.0, 8.0)}, new_hue=3)
    assert not said("add", words, {**REST, 3: (32.0, 8.0)}, new_hue=3, shapes=shapes)
    middle = "a blue triangle appears in the middle"
    assert said("add", middle, {**REST, 3: (32.0, 32.0)}, new_hue=3, shapes=shapes)
    assert not said("add", middle, {**REST, 3: (10.0, 32.0)}, new_hue=3, shapes=shapes)


def test_light_camera_and_gravity_change_all():
    assert said("light", "the light gets dimmer", REST, grey=80)
    assert not said("light", "the light gets brighter", REST, grey=80)
    moved = {hue: (x - 5.0, y) for hue, (x, y) in REST.items()}
    assert said("camera", "the camera moves right", moved, shift=(-4.0, 0.5))
    assert not said("camera", "the camera moves right", moved, shift=(4.0, 0.5))
    falls = {hue: (x, y, 0.0, 0.1) for hue, (x, y) in REST.items()}
    assert said("gravity", "gravity now pulls down", falls)
    assert not said("gravity", "gravity now pulls up", falls)
