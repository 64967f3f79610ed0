"""How sharp frames are: what their spectrum holds at high frequencies, against the truth's."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float32, UInt8

#: Share of the Nyquist frequency (half a wave a pixel) above which a frequency is high.
HIGH = 0.5


@functools.cache
def _high(height: int, width: int) -> Bool[np.ndarray, "h w"]:
    """Which entries of a 2-D DFT are high: waves of fewer than 2 / `HIGH` px, in any direction."""
    rows, columns = np.fft.fftfreq(height), np.fft.fftfreq(width)
    return np.hypot(rows[:, None], columns) > HIGH / 2


@jax.jit
def high_frequency_power(frames: UInt8[Array, "*lead h w c"]) -> Float32[Array, "*lead"]:
    """Variance of each frame at high frequencies, mean over pixels and channels, frames in [0, 1].

    Blur lowers it and noise raises it, so it should match the truth's: report the ratio of sums,
    beside a score that noise cannot please, as SSIM or position error.
    """
    height, width = frames.shape[-3:-1]
    spectrum = jnp.fft.fft2(frames.astype(jnp.float32) / 255, axes=(-3, -2))
    power = jnp.square(jnp.abs(spectrum)) * _high(height, width)[..., None]
    return power.sum((-3, -2)).mean(-1) / (height * width) ** 2
