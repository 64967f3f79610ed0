"""How fast each head of a recurrence forgets, as a function of its input."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


class HeadDecay(nn.Module):
    """Δ = softplus(x + bias) and log a = −exp(log_rate) Δ, one of each a head.

    As in Mamba-2 (Dao & Gu 2024, section 7) and after it Gated DeltaNet. At x = 0 the rate is one
    and half-lives start spread evenly in logarithm, from 1 to ``longest`` steps.
    """

    longest: float = 64.0

    @nn.compact
    def __call__(self, x: Float[Array, "*lead h"]) -> tuple[Float[Array, "*lead h"], ...]:
        """(Δ, log a), both like x; Δ > 0 and log a < 0."""
        heads = x.shape[-1]
        step = nn.softplus(x + self.param("bias", self._steps, (heads,)))
        log_rate = self.param("log_rate", nn.initializers.zeros, (heads,))
        return step, -jnp.exp(log_rate) * step

    def _steps(self, key, shape):
        """softplus⁻¹(ln 2 / half-life)."""
        return jnp.asarray(np.log(np.expm1(np.log(2) / np.geomspace(1, self.longest, shape[0]))))
