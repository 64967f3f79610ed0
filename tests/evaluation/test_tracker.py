"""The instrument: closed forms on painted discs, and its calibration on the twins."""

import colorsys

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from wm_jax.evaluation.tracker import Instrument

GREY = 0.4
PALETTE = np.array([colorsys.hsv_to_rgb(k / 9, 0.9, 0.77) for k in range(9)], np.float32)


def paint(discs, size=64, grey=GREY, gain=1.0, bar=None):
    """A frame with anti-aliased discs (x, y, radius, hue) on grey, later ones in front; a grey
    ``bar`` (x0, x1) before them all; everything under a light of ``gain``."""
    y, x = np.mgrid[:size, :size] + 0.5
    image = np.full((size, size, 3), grey)
    for cx, cy, radius, hue in discs:
        cover = np.clip(0.5 + radius - np.hypot(x - cx, y - cy), 0, 1)[..., None]
        image = image * (1 - cover) + PALETTE[hue] * cover
    if bar is not None:
        image[:, bar[0] : bar[1]] = 0.15
    return np.round(255 * image * gain).astype(np.uint8)


@pytest.fixture(scope="module")
def eye():
    return Instrument(PALETTE, 64)


def test_it_names_and_places_every_hue_to_a_tenth_of_a_pixel(eye):
    rng = np.random.default_rng(0)
    for hue in range(9):
        x, y = rng.uniform(8, 56, 2)
        tracks = eye.track(paint([(x, y, 5.3, hue)]))
        assert np.flatnonzero(tracks.present).tolist() == [hue]
        np.testing.assert_allclose(tracks.position[hue], (x, y), atol=0.1)
        assert tracks.mass[hue] == pytest.approx(np.pi * 5.3**2, rel=0.03)
        assert tracks.spares.sum() == 0


def test_grey_light_moves_nothing_and_only_scales_the_mass(eye):
    disc = [(30.3, 22.8, 5.0, 4)]
    full, dim = eye.track(paint(disc)), eye.track(paint(disc, gain=0.6))
    assert np.flatnonzero(dim.present).tolist() == [4]
    np.testing.assert_allclose(dim.position[4], full.position[4], atol=0.05)
    assert dim.mass[4] / full.mass[4] == pytest.approx(0.6, rel=0.03)


def test_shifting_the_frame_shifts_the_reading(eye):
    frame = paint([(20.0, 30.0, 5.0, 2), (45.0, 30.0, 4.0, 7)])
    here, there = eye.track(frame), eye.track(np.roll(frame, (3, 5), axis=(0, 1)))
    both = [2, 7]
    moved = here.position[both] + (5, 3)
    np.testing.assert_allclose(there.position[both], moved, atol=1e-4)


def test_half_behind_a_bar_it_reads_the_centroid_of_what_is_seen(eye):
    x, radius = 32.0, 6.0
    tracks = eye.track(paint([(x, 32.0, radius, 3)], bar=(32, 48)))
    half_disc = x - 4 * radius / (3 * np.pi)
    np.testing.assert_allclose(tracks.position[3], (half_disc, 32.0), atol=0.15)


def test_behind_a_bar_there_is_nothing(eye):
    assert not eye.track(paint([(36.0, 32.0, 5.0, 3)], bar=(28, 46))).present.any()


@pytest.mark.parametrize("gap", [1, 2, 3, 4])
@pytest.mark.parametrize("blur", [0, 1, 2])
def test_touching_objects_make_no_third_hue(eye, gap, blur):
    """Where hues k and k + 2 mix, the colour is that of k + 1, which nobody is."""
    for first in range(9):
        second = (first + gap) % 9
        frame = paint([(27.0, 32.0, 5.0, first), (36.5, 33.0, 5.0, second)])
        soft = gaussian_filter(frame.astype(np.float32), (blur, blur, 0))
        tracks = eye.track(np.round(soft).astype(np.uint8))
        assert set(np.flatnonzero(tracks.present)) == {first, second}


def test_a_doubled_object_is_one_object_and_a_spare(eye):
    tracks = eye.track(paint([(14.0, 14.0, 5.0, 6), (46.0, 40.0, 4.0, 6), (14.0, 46.0, 4.0, 1)]))
    assert np.flatnonzero(tracks.present).tolist() == [1, 6]
    assert tracks.spares[6] == 1
    assert tracks.spares.sum() == 1
    np.testing.assert_allclose(tracks.position[6], (14.0, 14.0), atol=0.3)


def test_grey_frames_and_specks_are_empty(eye):
    noise = np.random.default_rng(0).integers(90, 110, (64, 64, 1), dtype=np.uint8)
    grey = np.repeat(noise, 3, axis=2)
    specked = grey.copy()
    specked[10, 10] = specked[40, 20] = (200, 20, 20)
    for frame in (grey, specked, np.zeros_like(grey), np.full_like(grey, 255)):
        assert not eye.track(frame).present.any()


def test_leading_axes_are_kept_and_frames_do_not_mix(eye):
    frames = np.stack([[paint([(10 + 8 * i, 20, 5, i)]), paint([])] for i in range(3)])
    tracks = eye.track(frames)
    assert tracks.position.shape == (3, 2, 9, 2)
    assert not tracks.present[:, 1].any()
    for i in range(3):
        alone = eye.track(frames[i, 0])
        np.testing.assert_array_equal(tracks.position[i, 0], alone.position)


def test_a_grey_palette_is_refused():
    with pytest.raises(ValueError, match="grey"):
        Instrument(np.array([[0.5, 0.5, 0.5]]), 64)
