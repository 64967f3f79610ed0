"""Colours and shapes have the names that the twins world gives them, and one object is meant."""

import jax.numpy as jnp
import numpy as np
import pytest

from data_pipelines.twins import HUES, SHAPES
from data_pipelines.twins.render import PALETTE
from wm_jax import naming
from wm_jax.edit import Objects
from wm_jax.errors import UserError
from wm_jax.models.dynamics.slot_edit import drawn
from wm_jax.naming import Thing, choose


def thing(slot, hue, shape, place=(10.0, 10.0)):
    return Thing(slot, hue, shape, place, (0.0, 0.0), tuple(naming.colour_of(hue).tolist()))


SCENE = [
    thing(0, "red", "circle", (10.0, 12.0)),
    thing(2, "blue", "square", (40.0, 40.0)),
    thing(3, "blue", "triangle", (50.0, 20.0)),
]


def test_the_nine_hues_are_those_of_the_data_set():
    assert tuple(naming.HUES) == HUES
    assert naming.SHAPE_NAMES == SHAPES
    for name, colour in zip(HUES, PALETTE, strict=True):
        np.testing.assert_allclose(naming.colour_of(name), colour, atol=1e-6)
        for light in (1.0, 0.5):
            assert naming.hue_of((light * colour).tolist()) == name
    assert naming.hue_of((0.4, 0.41, 0.4)) is None


def test_an_outline_names_its_shape_however_large_it_is():
    at = jnp.asarray(np.stack(np.meshgrid(*2 * [np.arange(-11.5, 12)]), -1).reshape(-1, 2) / 64)
    for radius in (4.0, 6.0):
        maps = drawn(jnp.eye(3), jnp.full(3, radius / 64), at, 64).reshape(3, 24, 24)
        assert [naming.shape_of(np.asarray(x)) for x in maps] == [0, 1, 2]


def test_things_are_what_is_present_and_only_what_was_seen_whole_has_a_shape():
    at = jnp.asarray(np.stack(np.meshgrid(*2 * [np.arange(-5.5, 6)]), -1).reshape(-1, 2) / 32)
    square = np.asarray(drawn(jnp.eye(3)[1:2], jnp.array([4 / 32]), at, 32)).reshape(12, 12)
    objects = Objects(
        place=np.array([[[0.5, 0.25], [0.1, 0.1], [0.2, 0.2]]]),
        speed=np.array([[[0.01, 0.0]] * 3]),
        present=np.array([[1.0, 0.2, 0.9]]),
        colour=np.array([[PALETTE[0], PALETTE[1], PALETTE[6]]]),
        coverage=np.stack([square] * 3)[None],
        known=np.array([[1.0, 1.0, 0.5]]),
    )
    first, second = naming.things(objects, 0, 32)
    assert (first.slot, first.name, first.place) == (0, "red square", (16.0, 8.0))
    assert first.velocity == pytest.approx((0.32, 0.0))
    assert (second.slot, second.name) == (2, "blue object")


@pytest.mark.parametrize(
    ("who", "slot"),
    [
        ("the red ball", 0),
        ("red", 0),
        ("circle", 0),
        ("a blue box", 2),
        (3, 3),
        ((42.0, 39.0), 2),
    ],
)
def test_one_is_meant(who, slot):
    assert choose(who, SCENE, 64).slot == slot


def test_a_shape_that_cannot_be_told_may_be_the_one_meant():
    hidden = Thing(5, "green", None, (1.0, 1.0), (0.0, 0.0), (0.08, 0.77, 0.08))
    assert choose("green square", [*SCENE, hidden], 64).slot == 5


@pytest.mark.parametrize(
    ("who", "said"),
    [
        ("blue", "'blue' could be the blue square at .* or the blue triangle at"),
        ("green ball", "there is no green ball; there is the red circle at"),
        ("red square", "there is no red square"),
        ("red dog", "'dog' in 'red dog' is neither a colour nor a shape"),
        (7, "slot 7 holds no object; these do: 0 "),
        ((70.0, 3.0), r"\(70, 3\) is outside the frame of 64 px"),
        ((25.0, 60.0), r"there is no object near \(25, 60\)"),
    ],
)
def test_who_is_not_there_or_not_the_only_one_is_said(who, said):
    with pytest.raises(UserError, match=said):
        choose(who, SCENE, 64)


def test_an_empty_scene_is_said():
    with pytest.raises(UserError, match="the scene has no object"):
        choose("red", [], 64)


def test_what_has_no_hue_is_called_grey_or_the_hand():
    grey = Thing(5, None, "circle", (30.0, 30.0), (0.0, 0.0), (0.7, 0.71, 0.7))
    assert grey.name == "grey circle"
    for who in ("the grey circle", "grey", "the gray ball", "the hand"):
        assert choose(who, [*SCENE, grey], 64).slot == 5
    with pytest.raises(UserError, match="there is no hand; there is the red circle"):
        choose("the hand", SCENE, 64)
    with pytest.raises(UserError, match="'grey' is no colour"):
        naming.colour_of("grey")
