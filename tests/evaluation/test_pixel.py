"""Pixel metrics against closed forms and against scikit-image."""

import numpy as np
import pytest

from wm_jax.evaluation import pixel


def test_psnr_of_a_constant_error_is_the_closed_form():
    truth = np.full((3, 16, 16, 3), 100, np.uint8)
    error = np.array([1, 10, 51])
    frames = (truth + error[:, None, None, None]).astype(np.uint8)
    np.testing.assert_allclose(pixel.psnr(truth, frames), 20 * np.log10(255 / error), rtol=1e-5)


def test_psnr_of_equal_frames_is_the_ceiling():
    frame = np.arange(12 * 12 * 3, dtype=np.uint8).reshape(12, 12, 3)
    assert float(pixel.psnr(frame, frame)) == pytest.approx(pixel.PSNR_CEILING)


@pytest.mark.parametrize("shape", [(32, 32), (64, 48)])
def test_ssim_equals_scikit_image(shape):
    metrics = pytest.importorskip("skimage.metrics")
    rng = np.random.default_rng(0)
    flat = np.full((*shape, 3), 128, np.uint8)
    noise = rng.integers(0, 256, (*shape, 3), dtype=np.uint8)
    ramp = np.broadcast_to(np.linspace(0, 255, shape[1])[None, :, None], (*shape, 3))
    ramp = ramp.astype(np.uint8)
    spotted = ramp.copy()
    spotted[5:12, 8:20] = (200, 30, 30)
    truth = np.stack([flat, ramp, ramp, noise, flat])
    frames = np.stack([noise, spotted, flat, ramp, flat])
    expected = [
        metrics.structural_similarity(
            a,
            b,
            channel_axis=-1,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            data_range=255,
        )
        for a, b in zip(truth, frames, strict=True)
    ]
    np.testing.assert_allclose(pixel.ssim(truth, frames), expected, atol=1e-4)
