"""Pasting is exact on whole pixels, moves what it pastes, and is the transpose of reading."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wm_jax.nn.paste import read, read_turned, turned, write

SIZE, SIDE = 16, 5


def square(seed=0):
    return jnp.asarray(np.random.default_rng(seed).random((SIDE, SIDE)), jnp.float32)


def test_on_a_whole_pixel_it_is_a_copy():
    place = (jnp.array([6.5, 9.5])) / SIZE  # the centre of column 6, row 9
    image = write(square(), place, SIZE)
    np.testing.assert_allclose(image[7:12, 4:9], square(), atol=1e-6)
    np.testing.assert_allclose(image.sum(), square().sum(), rtol=1e-6)


@pytest.mark.parametrize("place", [(0.5, 0.5), (0.41, 0.63), (0.32, 0.55)])
def test_the_centre_of_mass_follows_the_place(place):
    image = write(jnp.ones((SIDE, SIDE)), jnp.array(place), SIZE)
    axis = (np.arange(SIZE) + 0.5) / SIZE
    x, y = (image.sum(0) * axis).sum() / image.sum(), (image.sum(1) * axis).sum() / image.sum()
    np.testing.assert_allclose((x, y), place, atol=1e-6)


def test_reading_is_the_transpose_of_writing():
    place = jnp.array([[0.3, 0.52], [0.77, 0.18]])
    image = jnp.asarray(np.random.default_rng(1).random((2, SIZE, SIZE)), jnp.float32)
    squares = jnp.stack([square(2), square(3)])
    forth = (write(squares, place, SIZE) * image).sum()
    back = (squares * read(image, place, SIDE, 1 / SIZE)).sum()
    np.testing.assert_allclose(forth, back, rtol=1e-5)


def test_the_place_has_a_gradient_toward_the_target():
    target = write(jnp.ones((SIDE, SIDE)), jnp.array([0.5, 0.5]), SIZE)

    def error(place):
        return jnp.square(write(jnp.ones((SIDE, SIDE)), place, SIZE) - target).sum()

    assert (jax.grad(error)(jnp.array([0.56, 0.46])) * jnp.array([1, -1]) > 0).all()


def test_what_leaves_the_frame_is_cut_off():
    assert write(jnp.ones((SIDE, SIDE)), jnp.array([1.5, 0.5]), SIZE).sum() == 0


def test_a_square_that_has_not_turned_is_read_as_before_and_a_quarter_turn_is_one():
    images = jax.random.uniform(jax.random.key(0), (2, 3, 16, 16))
    place = jnp.array([[0.4, 0.55], [0.13, 0.9]])
    plain = read(images, jnp.broadcast_to(place[:, None], (2, 3, 2)), 6, 1 / 16)
    found = read_turned(images, place, jnp.zeros((2, 1)), 6, 1 / 16)
    np.testing.assert_allclose(found, plain, atol=1e-5)
    quarter = read_turned(images, place, jnp.full((2, 1), np.pi / 2), 6, 1 / 16)
    # Its x runs down the frame: what it sees to its right lies below.
    np.testing.assert_allclose(quarter, jnp.rot90(plain, 1, (2, 3)), atol=1e-5)


def test_a_vector_turns_from_x_to_y():
    np.testing.assert_allclose(
        turned(jnp.array([[1.0, 0.0]]), jnp.array([[np.pi / 2]])), [[0.0, 1.0]], atol=1e-6
    )
