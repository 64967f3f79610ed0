"""From a cell's features to its token through a latent variable, in a posterior and in a prior."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
from jaxtyping import Array, Float

from wm_jax.models.latents import Deterministic, Latent, Terms
from wm_jax.nn.dense import Dense


class Bottleneck(nn.Module):
    """A dense layer from features to each distribution, and one from a value of either to the token
    of size ``width``. A deterministic latent has none of them: its features are the token."""

    latent: Latent
    width: int

    def setup(self) -> None:
        if not isinstance(self.latent, Deterministic):
            posterior, prior = self.latent.outputs
            self.to_posterior, self.to_prior = Dense(posterior), Dense(prior)
            self.to_token = Dense(self.width)

    def posterior(self, features: Float[Array, "*lead n d"]) -> Any:
        if isinstance(self.latent, Deterministic):
            return features
        return self.latent.posterior(self.to_posterior(features))

    def prior(self, features: Float[Array, "*lead n d"]) -> Any:
        if isinstance(self.latent, Deterministic):
            return features
        return self.latent.prior(self.to_prior(features))

    def posterior_token(self, posterior: Any, noise: Array) -> Float[Array, "*lead n d"]:
        return self._token(self.latent.posterior_sample(posterior, noise))

    def prior_token(self, prior: Any, noise: Array) -> Float[Array, "*lead n d"]:
        return self._token(self.latent.prior_sample(prior, noise))

    def terms(self, posterior: Any, prior: Any) -> Terms:
        """Summed over all variables of all cells, then held to the free nats: (…,)."""

        def merge(x):
            return x.reshape(*x.shape[:-3], -1, x.shape[-1])

        return self.latent.terms(*jax.tree.map(merge, (posterior, prior)))

    def _token(self, value: Float[Array, "*lead n s k"]) -> Float[Array, "*lead n d"]:
        flat = value.reshape(*value.shape[:-2], -1)
        return flat if isinstance(self.latent, Deterministic) else self.to_token(flat)
