"""Gated linear recurrences over time per cell, alternating with 3×3 mixing within the frame.

`wm_jax.models.dynamics.parallel` describes tokens, prior and blocks. The time layer, of u_t:

  a_t, v_t, g_t = σ(W_a u_t + b), W_v u_t, silu(W_g u_t)    u normalised
  h_t = a_t ⊙ h_{t-1} + (1 − a_t) ⊙ v_t                     added to the stream: W (h_t ⊙ g_t)

with a, v and g functions of u_t, never of h_{t-1} (minGRU, Feng et al. 2024, arXiv 2410.01201;
HGRN, Qin et al. 2023, arXiv 2311.04823): linear in h, so all steps of a window at once.
"""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from wm_jax.models.dynamics.parallel import Parallel
from wm_jax.nn.dense import Dense
from wm_jax.nn.linear_recurrence import linear_recurrence


class GatedLinear(nn.Module):
    """The time layer; its state is h. At first half-lives lie between 1 and ``longest`` frames."""

    longest: float = 64.0

    def initial(self, batch_size: int, cells: int, width: int) -> Float[Array, "b n d"]:
        return jnp.zeros((batch_size, cells, width))

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b t n d"],
        state: Float[Array, "b n d"],
        is_first: Bool[Array, "b t"],
    ) -> tuple[Float[Array, "b t n d"], Float[Array, "b n d"]]:
        width = x.shape[-1]
        decay, value, gate = jnp.split(Dense(3 * width)(nn.RMSNorm()(x)), 3, -1)
        a = nn.sigmoid(decay + self.param("bias", self._decays, (width,)))
        keep = jnp.where(is_first[..., None, None], 0.0, a)
        h = linear_recurrence(keep, (1 - a) * value, state)
        return Dense(width)(h * nn.silu(gate)), h[:, -1]

    def _decays(self, key, shape):
        """Half-lives spread evenly in logarithm."""
        decay = 0.5 ** (1 / jnp.geomspace(1.0, self.longest, shape[0]))
        return jnp.log(decay) - jnp.log1p(-decay)


class GridLinear(Parallel):
    """The fields are those of `Parallel`."""

    def time_layer(self) -> GatedLinear:
        return GatedLinear(parent=None)
