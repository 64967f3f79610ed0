"""A small perceptron."""

from __future__ import annotations

import flax.linen as nn
from jaxtyping import Array, Float

from wm_jax.nn.dense import Dense


class MLP(nn.Module):
    """SiLU layers of these ``sizes``, the last one linear and ``gain``² of the usual variance."""

    sizes: tuple[int, ...]
    gain: float = 1.0

    @nn.compact
    def __call__(self, x: Float[Array, "*lead d"]) -> Float[Array, "*lead f"]:
        *hidden, last = self.sizes
        for size in hidden:
            x = nn.silu(Dense(size)(x))
        scale = nn.initializers.variance_scaling(self.gain**2, "fan_in", "truncated_normal")
        return Dense(last, kernel_init=scale)(x)
