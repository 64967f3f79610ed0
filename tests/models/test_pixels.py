"""What the background is, also under a light that falls unevenly and behind wide bars."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wm_jax.models.dynamics.pixels import background, background_plane, owners
from wm_jax.nn.grid import addresses

SIDE = 16
AT = addresses((SIDE, SIDE))


def frame(ground, slope, bar, bars, texture=0.0, light=0.9):
    """A shaded ground, upright bars in the same light, and two objects; (1, 256, 3)."""
    x, y = np.asarray(AT)[:, 0], np.asarray(AT)[:, 1]
    shade = light * (1 + slope[0] * (x - 0.5) + slope[1] * (y - 0.5))
    colour = np.full((SIDE**2, 3), ground) + texture * np.sin(40 * x + 25 * y)[:, None]
    for left, right in bars:
        colour[(x > left) & (x < right)] = bar
    for place, hue in (((0.12, 0.3), (0.8, 0.1, 0.1)), ((0.93, 0.7), (0.1, 0.2, 0.8))):
        colour[np.hypot(x - place[0], y - place[1]) < 0.08] = hue
    return jnp.asarray(colour * shade[:, None], jnp.float32)[None], ground * shade


@pytest.mark.parametrize("slope", [(0.0, 0.0), (0.28, 0.1), (-0.2, 0.2)])
@pytest.mark.parametrize("bar", [0.14, 0.66])
def test_a_shaded_ground_is_found_behind_bars_that_are_darker_or_lighter(slope, bar):
    colours, truth = frame(0.4, slope, bar, [(0.3, 0.46), (0.62, 0.84)], texture=0.02)
    found = background_plane(colours, AT, addresses((32, 32)))
    assert found.shape == (1, 1024, 3)
    at = background_plane(colours, AT, AT)[0, :, 0]
    np.testing.assert_allclose(at, truth, atol=0.03)


@pytest.mark.parametrize("bar", [0.15, 0.7])
def test_bars_that_fill_more_than_the_ground_are_not_the_background(bar):
    """Things with a hue lie on the ground."""
    colours, truth = frame(0.4, (0.1, 0.0), bar, [(0.24, 0.5), (0.54, 0.84)], texture=0.02)
    at = background_plane(colours, AT, AT)[0, :, 0]
    np.testing.assert_allclose(at, truth, atol=0.03)


def test_an_even_ground_is_as_background_says():
    colours, _ = frame(0.4, (0.0, 0.0), 0.15, [(0.4, 0.6)])
    plane = background_plane(colours, AT, AT)
    np.testing.assert_allclose(plane, jnp.broadcast_to(background(colours), plane.shape), atol=5e-3)


def test_a_shaded_ground_belongs_to_nobody_and_an_object_to_its_slot():
    colours, _ = frame(0.4, (0.28, 0.2), 0.14, [])
    ground = 10 * background_plane(colours, AT, AT)
    place = jnp.array([[[0.12, 0.3], [0.93, 0.7]]])
    paint = jnp.array([[[0.8, 0.1, 0.1], [0.1, 0.2, 0.8]]]) * 9
    whose = owners(place, paint, jnp.ones((1, 2, 1)), 10 * colours, ground, (SIDE, SIDE))
    red = np.asarray(colours[0, :, 0] > 2 * colours[0, :, 2])
    assert np.asarray(whose.share[0, 0])[red].min() > 0.9
    bare = np.asarray(whose.bare[0])
    grey = np.asarray(jnp.ptp(colours[0], -1)) < 0.01
    assert bare[grey].min() > 0.8
    flat = owners(
        place, paint, jnp.ones((1, 2, 1)), 10 * colours, 10 * background(colours), (SIDE, SIDE)
    )
    assert np.asarray(flat.bare[0])[grey].min() < 0.5  # what one colour makes of it


def test_gradients_and_values_are_finite_for_a_frame_of_one_colour():
    def total(x):
        return background_plane(x, AT, AT).sum()

    value, slope = jax.value_and_grad(total)(jnp.full((1, SIDE**2, 3), 0.5))
    assert np.isfinite(value) and np.isfinite(slope).all()
