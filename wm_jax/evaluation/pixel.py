"""Pixel metrics of single frames: PSNR and SSIM. Frames are uint8; every number is per frame."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, UInt8

#: PSNR of frames that agree in every byte; half a grey level of error everywhere is 54 dB.
PSNR_CEILING = 100.0

#: Wang et al. 2004: a Gaussian of 1.5 px cut at 3.5 sigma, K1 = 0.01, K2 = 0.03.
SSIM_SIGMA, SSIM_RADIUS = 1.5, 5
SSIM_C1, SSIM_C2 = 0.01**2, 0.03**2


@jax.jit
def psnr(
    truth: UInt8[Array, "*lead h w c"], frames: UInt8[Array, "*lead h w c"]
) -> Float32[Array, "*lead"]:
    """Peak signal-to-noise ratio of each frame in dB (peak 255), at most `PSNR_CEILING`."""
    difference = truth.astype(jnp.float32) - frames.astype(jnp.float32)
    mean_square = jnp.mean(jnp.square(difference / 255), axis=(-3, -2, -1))
    return -10 * jnp.log10(jnp.maximum(mean_square, 10 ** (-PSNR_CEILING / 10)))


@functools.cache
def _blur_matrix(size: int) -> np.ndarray:
    """(size - 10, size): a Gaussian filter without padding, as a matrix.

    At these sizes two small matrix products beat a convolution on every device.
    """
    taps = np.exp(-0.5 * (np.arange(-SSIM_RADIUS, SSIM_RADIUS + 1) / SSIM_SIGMA) ** 2)
    taps /= taps.sum()
    rows = size - 2 * SSIM_RADIUS
    matrix = np.zeros((rows, size), np.float32)
    for row in range(rows):
        matrix[row, row : row + len(taps)] = taps
    return matrix


@jax.jit
def ssim(
    truth: UInt8[Array, "*lead h w c"], frames: UInt8[Array, "*lead h w c"]
) -> Float32[Array, "*lead"]:
    """Structural similarity of each frame: the mean over pixels and channels, at most 1.

    Equals scikit-image's ``structural_similarity(gaussian_weights=True, sigma=1.5,
    use_sample_covariance=False)``; needs frames of at least 11x11 px.
    """
    return jnp.mean(ssim_map(truth, frames), axis=(-3, -2, -1))


def ssim_map(
    truth: UInt8[Array, "*lead h w c"], frames: UInt8[Array, "*lead h w c"]
) -> Float32[Array, "*lead c i j"]:
    """`ssim` before the mean: of each pixel but the outermost 5 on each side."""
    height, width = truth.shape[-3:-1]
    rows, columns = _blur_matrix(height), _blur_matrix(width)
    x = jnp.moveaxis(truth.astype(jnp.float32) / 255, -1, -3)
    y = jnp.moveaxis(frames.astype(jnp.float32) / 255, -1, -3)

    def blur(image: Float[Array, "*lead c h w"]) -> Float[Array, "*lead c i j"]:
        return jnp.einsum("ih,...hw,jw->...ij", rows, image, columns)

    mean_x, mean_y = blur(x), blur(y)
    variance_x = blur(x * x) - mean_x**2
    variance_y = blur(y * y) - mean_y**2
    covariance = blur(x * y) - mean_x * mean_y
    likeness = (2 * mean_x * mean_y + SSIM_C1) * (2 * covariance + SSIM_C2)
    scale = (mean_x**2 + mean_y**2 + SSIM_C1) * (variance_x + variance_y + SSIM_C2)
    return likeness / scale
