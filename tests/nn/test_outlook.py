"""What a camera and a light make of a picture, against the renderer's own rules."""

import jax.numpy as jnp
import numpy as np
import pytest

from data_pipelines.twins.geometry import project
from wm_jax.nn.outlook import brightness, viewed


@pytest.mark.parametrize("camera", [(0.0, 0.0, 0.0), (3.0, -2.0, 0.0), (1.0, 2.0, 0.15)])
def test_a_view_moves_a_point_to_where_the_camera_shows_it(camera):
    """Pan x and y in units of a 64th of the frame, and log zoom; a smooth bump's middle moves."""
    size, at = 64, np.array([24.0, 40.0])
    pixels = np.arange(size) + 0.5
    bump = np.exp(-((pixels[:, None] - at[1]) ** 2 + (pixels - at[0]) ** 2) / 18)
    zoom = np.exp(camera[2])
    view = jnp.array([[-camera[0] * zoom / size, -camera[1] * zoom / size, camera[2]]])
    shown = np.asarray(viewed(jnp.asarray(bump, jnp.float32)[None, None], view))[0, 0]
    middle = [(shown.sum(axis) * pixels).sum() / shown.sum() for axis in (0, 1)]
    np.testing.assert_allclose(middle, project(at, np.array(camera), size), atol=0.02)


def test_beyond_the_edge_goes_on_what_is_at_it():
    image = jnp.arange(8.0) * jnp.ones((8, 1))
    shown = viewed(image[None, None], jnp.array([[0.25, 0.0, 0.0]]))[0, 0]
    np.testing.assert_allclose(shown[3], [0, 0, 0, 1, 2, 3, 4, 5], atol=1e-5)


def test_a_light_that_slopes_to_the_right_is_brighter_there():
    light, place = jnp.array([0.8, 0.1, 0.0]), jnp.array([[0.0, 0.5], [0.5, 0.5], [1.0, 0.5]])
    np.testing.assert_allclose(brightness(light, place)[:, 0], [0.72, 0.8, 0.88], atol=1e-6)
    dark = brightness(jnp.array([-3.0, -9.0, 0.0]), place)
    assert float(dark.min()) > 0  # something is always divided by it
