"""A causal convolution over a few steps of time, one filter a channel, that remembers them."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from wm_jax.nn.chunks import since_start

TAPS = 4


class ShortConvolution(nn.Module):
    """y_t = Σ_j w_j x_{t−j}, j < `TAPS`; what lies before a start counts as zero."""

    @staticmethod
    def initial(batch_size: int, cells: int, channels: int) -> Float[Array, "b s n c"]:
        return jnp.zeros((batch_size, TAPS - 1, cells, channels))

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b t n c"],
        past: Float[Array, "b s n c"],
        is_first: Bool[Array, "b t"],
    ) -> tuple[Float[Array, "b t n c"], Float[Array, "b s n c"]]:
        """``past`` are the s = TAPS − 1 steps before the window; returns those of the next too."""
        time = x.shape[1]
        init = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")  # ±1/√taps
        kernel = self.param("kernel", init, (TAPS, x.shape[-1]))
        before = jnp.full_like(is_first[:, 0], TAPS, jnp.int32)
        age = since_start(is_first, before)[..., None, None]
        steps = jnp.concatenate([past, x], 1)
        y = jnp.zeros_like(x)
        for lag in range(TAPS):
            begin = TAPS - 1 - lag
            delayed = steps[:, begin : begin + time]
            y += kernel[lag] * jnp.where(age >= lag, delayed, 0.0)
        lags = jnp.arange(TAPS - 2, -1, -1)[:, None, None]  # of the steps kept, oldest first
        return y, jnp.where(age[:, -1:] >= lags, steps[:, time:], 0.0)
