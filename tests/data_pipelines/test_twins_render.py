"""The renderer against areas, centres and colours known in closed form."""

import colorsys

import numpy as np
import pytest

from data_pipelines.twins import make_group, project, render
from data_pipelines.twins.geometry import reach
from data_pipelines.twins.render import HAND_LABEL, OCCLUDER_LABEL, PALETTE
from data_pipelines.twins.world import HUES

GREY = 0.4


def draw(objects, resolution=64, occluders=(), camera=(0, 0, 0), light=(1, 0, 0), hand=(0, 0, 0)):
    """One frame. Each object is (x, y, angle, hue, shape, radius); the first is in front."""
    n = len(objects)
    x, y, angle, hue, shape, radius = np.array(objects, float).reshape(n, 6).T
    looks = np.zeros(15)
    looks[:3] = GREY, 0.7, 0.76
    states = {
        "position": np.stack([x, y], -1)[None],
        "angle": angle[None],
        "hue": hue.astype(int)[None],
        "shape": shape.astype(int)[None],
        "present": np.ones((1, n), bool),
        "hand": np.array([hand], float),
        "light": np.array([light], float),
        "camera": np.array([camera], float),
    }
    bars = np.array(occluders, float).reshape(-1, 4)
    out = render(
        states,
        radius=radius,
        depth=np.arange(n)[::-1],
        occluders=bars,
        looks=looks,
        resolution=resolution,
    )
    return {name: value[0] for name, value in out.items()}


@pytest.mark.parametrize("resolution", [32, 64, 128])
@pytest.mark.parametrize("shape", [0, 1, 2])
@pytest.mark.parametrize("angle", [0.0, 0.4])
def test_shapes_have_the_area_of_their_circle(shape, angle, resolution):
    out = draw([(30.3, 33.8, angle, 0, shape, 5.5)], resolution)
    ground = round(255 * GREY)
    share = (out["frames"][..., 0].astype(float) - ground) / (255 * PALETTE[0, 0] - ground)
    expected = np.pi * 5.5**2 * (resolution / 64) ** 2
    assert share.sum() == pytest.approx(expected, rel=0.02)
    assert (out["segmentation"] == 1).sum() == pytest.approx(expected, rel=0.06)
    assert out["visible_fraction"][0] == pytest.approx(1, abs=1e-3)
    error = np.abs(out["centroid"][0] - np.array([30.3, 33.8]) * resolution / 64)
    assert error.max() < 0.06


def test_a_triangle_points_up_and_turns_clockwise():
    tip = reach(2, 6.0) - 1.5
    up = draw([(32, 32, 0, 0, 2, 6)])["segmentation"]
    assert up[int(32 - tip), 32] == 1 and up[int(32 + tip), 32] == 0
    right = draw([(32, 32, np.pi / 2, 0, 2, 6)])["segmentation"]
    assert right[32, int(32 + tip)] == 1 and right[32, int(32 - tip)] == 0


def test_hues_are_forty_degrees_apart_saturated_and_never_clip():
    hsv = np.array([colorsys.rgb_to_hsv(*map(float, rgb)) for rgb in PALETTE])
    np.testing.assert_allclose(hsv[:, 0] * 360, 40 * np.arange(len(HUES)), atol=0.01)
    np.testing.assert_allclose(hsv[:, 1:], [[0.9, 0.77]] * 9, atol=1e-5)
    assert PALETTE.max() * (1 + np.sqrt(2) * 0.2) < 1


def test_half_behind_a_bar():
    out = draw([(20, 32, 0, 3, 1, 6)], occluders=[(20, 0, 34, 64)])
    assert out["visible_fraction"][0] == pytest.approx(0.5, abs=1e-3)
    half = 6 * np.sqrt(np.pi) / 2
    assert out["centroid"][0] == pytest.approx([20 - half / 2, 32], abs=0.03)
    assert out["segmentation"][32, 21] == OCCLUDER_LABEL and out["segmentation"][32, 18] == 1
    assert out["frames"][32, 27].tolist() == [179] * 3  # 255 x 0.7, rounded half up


def test_hidden_objects_have_no_centroid():
    out = draw([(27, 32, 0, 3, 0, 5)], occluders=[(20, 0, 34, 64)])
    assert out["visible_fraction"][0] == 0 and np.isnan(out["centroid"][0]).all()


def test_out_of_the_picture_counts_as_out_of_sight():
    out = draw([(0, 32, 0, 3, 0, 6), (-30, 32, 0, 4, 0, 6)])
    assert out["visible_fraction"] == pytest.approx([0.5, 0], abs=0.01)


def test_depth_decides_who_is_in_front():
    out = draw([(30, 32, 0, 0, 0, 6), (34, 32, 0, 6, 0, 6)], hand=(32, 40, 3.5))
    assert out["segmentation"][32, 32] == 1 and out["segmentation"][32, 38] == 2
    assert out["segmentation"][41, 32] == HAND_LABEL
    assert out["visible_fraction"][0] == pytest.approx(1, abs=1e-3)
    assert out["visible_fraction"][1] < 0.7


def test_camera_moves_and_magnifies():
    camera = np.array([4.0, -6.0, np.log(1.25)])
    out = draw([(30, 30, 0, 0, 0, 5)], camera=camera)
    place = project(np.array([30.0, 30.0]), camera, 64)
    np.testing.assert_allclose(place, [(30 - 36) * 1.25 + 32, (30 - 26) * 1.25 + 32])
    np.testing.assert_allclose(out["centroid"][0], place, atol=0.03)
    area = (out["segmentation"] == 1).sum()
    assert area == pytest.approx(np.pi * 6.25**2, rel=0.05)
    outside = draw([(30, 30, 0, 0, 0, 5)], camera=(0, -10, 0))["frames"]
    assert outside[2, 2, 0] == round(255 * GREY / 2) and outside[20, 2, 0] == round(255 * GREY)


def test_light_is_linear():
    full = draw([(30, 30, 0, 0, 0, 5)])["frames"].astype(float)
    dim = draw([(30, 30, 0, 0, 0, 5)], light=(0.5, 0, 0))["frames"]
    assert np.abs(dim - full / 2).max() <= 1
    slanted = draw([(30, 30, 0, 0, 0, 5)], light=(1, 0.2, 0))["frames"]
    cell = (np.arange(64) + 0.5) / 32 - 1
    assert np.abs(slanted[60, :, 1] - 255 * GREY * (1 + 0.2 * cell)).max() <= 0.51


def test_chunks_and_resolution_change_nothing_else():
    (long,) = make_group("full", 2, length=150, resolution=64)
    (short,) = make_group("full", 2, length=40, resolution=64)
    assert np.array_equal(long["frames"][:40], short["frames"])
    (small,) = make_group("full", 2, length=40, resolution=32)
    pooled = short["frames"].reshape(40, 32, 2, 32, 2, 3).mean((2, 4))
    assert np.abs(pooled - small["frames"]).mean() < 0.5


def test_an_empty_picture_is_uniform():
    frames = draw([(-40, -40, 0, 0, 0, 5)])["frames"]
    assert np.unique(frames).tolist() == [round(255 * GREY)]
