"""DreamerV3's reward and continue heads (Hafner et al. 2023, equation 3): scalars off a state."""

from __future__ import annotations

import flax.linen as nn
from jaxtyping import Array, Float

from wm_jax.losses import (
    binary_cross_entropy,
    symexp_bins,
    twohot_cross_entropy,
    twohot_mean,
)
from wm_jax.nn.block_dense import fan_in
from wm_jax.nn.dense import Dense


class HeadHidden(nn.Module):
    """All tokens of a state, flattened, through ``layers`` of dense, RMSNorm, SiLU."""

    units: int
    layers: int

    @nn.compact
    def __call__(self, tokens: Float[Array, "*lead n d"]) -> Float[Array, "*lead u"]:
        x = tokens.reshape(*tokens.shape[:-2], -1)
        for _ in range(self.layers):
            x = Dense(self.units, kernel_init=fan_in)(x)
            x = nn.silu(nn.RMSNorm(epsilon=1e-4)(x))
        return x


class RewardHead(nn.Module):
    """A distribution over ``bins`` values from −symexp(20) to symexp(20), mean 0 at the start."""

    units: int = 64
    layers: int = 1
    bins: int = 255

    @nn.compact
    def __call__(self, tokens: Float[Array, "*lead n d"]) -> Float[Array, "*lead k"]:
        """Logits."""
        x = HeadHidden(self.units, self.layers)(tokens)
        return Dense(self.bins, kernel_init=nn.initializers.zeros)(x)

    def mean(self, logits: Float[Array, "*lead k"]) -> Float[Array, "*lead"]:
        """The reward that is expected, in the environment's own unit."""
        return twohot_mean(logits, symexp_bins(self.bins))

    def loss(
        self, logits: Float[Array, "*lead k"], reward: Float[Array, "*lead"]
    ) -> Float[Array, "*lead"]:
        """Nats."""
        return twohot_cross_entropy(logits, reward, symexp_bins(self.bins))


class ContinueHead(nn.Module):
    """The probability that the episode goes on, as a logit."""

    units: int = 64
    layers: int = 1

    @nn.compact
    def __call__(self, tokens: Float[Array, "*lead n d"]) -> Float[Array, "*lead"]:
        x = HeadHidden(self.units, self.layers)(tokens)
        return Dense(1, kernel_init=fan_in)(x)[..., 0]

    def loss(
        self, logit: Float[Array, "*lead"], goes_on: Float[Array, "*lead"]
    ) -> Float[Array, "*lead"]:
        """Nats; ``goes_on`` is 1, and 0 where the episode terminates."""
        return binary_cross_entropy(logit, goes_on)
