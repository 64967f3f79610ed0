"""High-frequency power of waves, noise and blur: closed forms by Parseval."""

import numpy as np

from wm_jax.evaluation.spectrum import _high, high_frequency_power


def wave(rows, columns, amplitude=100, size=16):
    y, x = np.mgrid[:size, :size] / size
    pattern = amplitude * np.cos(2 * np.pi * (rows * y + columns * x))
    return np.round(128 + pattern)[..., None].repeat(3, -1).astype(np.uint8)


def test_power_is_that_of_the_waves_above_half_the_nyquist_frequency():
    full = (100 / 255) ** 2 / 2
    high = [wave(5, 0), wave(0, 5), wave(3, 3)]  # 3√2 > 4 = half of Nyquist's 8
    low = [wave(4, 0), wave(2, 2), wave(0, 0, 0)]
    np.testing.assert_allclose(high_frequency_power(np.array(high)), full, rtol=0.01)
    np.testing.assert_allclose(high_frequency_power(np.array(low)), 0, atol=2e-6)


def test_noise_has_the_share_of_its_power_that_is_high_and_blur_has_less():
    noise = np.random.default_rng(0).integers(0, 256, (8, 64, 64, 3)).astype(np.uint8)
    power = high_frequency_power(noise).mean()
    np.testing.assert_allclose(power, _high(64, 64).mean() * np.var(noise / 255), rtol=0.02)
    blurred = (noise[:, 1:, 1:] / 2 + noise[:, :-1, :-1] / 2).astype(np.uint8)
    assert high_frequency_power(blurred).mean() < 0.6 * power
