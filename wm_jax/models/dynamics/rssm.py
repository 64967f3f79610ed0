"""DreamerV3's recurrent state-space model (Hafner et al. 2023, arXiv 2301.04104, equation 3).

The carry is a vector h and s variables z, one-hot (or another of `wm_jax.models.latents`). A step:

  sequence   h_t = BlockGRU(h_{t-1}, [h_{t-1}, z_{t-1}, c_t])     c what the step is told
  prior      ẑ_t ~ p(z | h_t)                                     two hidden layers
  posterior  z_t ~ q(z | h_t, x_t)                                one hidden layer, x the embedding

With ``posterior`` 'frame' it is q(z | x_t), as in R2I (Samsami et al. 2024, arXiv 2403.04253): it
leaves the scan over time, in which only h remains.

The sequence model is a GRU with a hidden layer, block-diagonal in h: each block sees its own part
of h and a summary of all of h, z and c (RMSNorm and SiLU after every layer but the last):

  k       = φ(W_i h^i + W'_i [φ(h), φ(z), φ(c)])                 for block i
  r, n, u = V_i k^i ;  h ← σ(u−1) tanh(σ(r) n) + (1 − σ(u−1)) h

Layers over a concatenation are written as sums of layers over its parts (the same function): the
parts that don't depend on the carry leave the scan, and nothing is repeated for every block.
"""

from __future__ import annotations

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from wm_jax.models.dynamics.contract import Output, check_choice, check_latent, reset
from wm_jax.models.latents import Latent, latent_of, window_noise
from wm_jax.nn.block_dense import BlockDense, SplitDense, fan_in, fan_in_of
from wm_jax.nn.compute import over_time
from wm_jax.nn.dense import Dense


class RSSMState(NamedTuple):
    """h, and the variables of the last step; k = 1 where they are single numbers."""

    deter: Float[Array, "b d"]
    stoch: Float[Array, "b s k"]


class NormDense(nn.Module):
    """Dense, RMSNorm, SiLU: the layer that the paper uses everywhere."""

    features: int

    @nn.compact
    def __call__(self, x: Float[Array, "*lead d"]) -> Float[Array, "*lead f"]:
        x = Dense(self.features, kernel_init=fan_in)(x)
        return nn.silu(nn.RMSNorm(epsilon=1e-4)(x))


class RSSM(nn.Module):
    """See the module's docstring. Defaults are DreamerV3's 1M size.

    deter:  size of h, in ``blocks`` blocks      stoch, classes: s and k
    hidden: width of every hidden layer          unimix: uniform share of every distribution
    posterior: 'carry' or 'frame', see above     latent: 'categorical', 'gaussian' (reads neither
        classes nor unimix) or 'fsq'
    free_nats: KL below this (nats a step, all variables together) is not trained
    temperature: of the prior's samples; 0: modes

    One token: concat(h, z). ``terms``: the latent's, 0 where no frame was seen. Without a key,
    modes take the place of samples. One draw of noise a step serves prior and posterior: each is
    exact, and where they agree so do the samples.
    """

    cells: tuple[int, int]
    deter: int = 512
    hidden: int = 64
    stoch: int = 32
    classes: int = 4
    blocks: int = 8
    prior_layers: int = 2
    unimix: float = 0.01
    free_nats: float = 1.0
    posterior: str = "carry"
    latent: str = "categorical"
    temperature: float = 1.0

    @property
    def posterior_reads_carry(self) -> bool:
        return self.posterior == "carry"

    def check(self) -> None:
        check_choice("posterior", self.posterior, ("frame", "carry"))
        check_latent(self.latent, self.classes, ("categorical", "gaussian", "fsq"))

    def setup(self) -> None:
        posterior, prior = self._latent().outputs
        inputs = self.deter // self.blocks + 3 * self.hidden
        self.deter_in = NormDense(self.hidden)
        self.stoch_in = NormDense(self.hidden)
        self.told_in = NormDense(self.hidden)
        self.hidden_block = BlockDense(self.deter, self.blocks, inputs=inputs)
        shared = {"use_bias": False, "kernel_init": fan_in_of(inputs)}
        self.hidden_shared = Dense(self.deter, **shared)
        self.hidden_told = Dense(self.deter, **shared)
        self.hidden_norm = nn.RMSNorm(epsilon=1e-4)
        self.gates = BlockDense(3 * self.deter, self.blocks)
        self.prior_hidden = [NormDense(self.hidden) for _ in range(self.prior_layers)]
        self.prior_logits = Dense(prior, kernel_init=fan_in)
        self.posterior_hidden = SplitDense(self.hidden, self.deter * self.posterior_reads_carry)
        self.posterior_norm = nn.RMSNorm(epsilon=1e-4)
        self.posterior_logits = Dense(posterior, kernel_init=fan_in)

    def initial(self, batch_size: int) -> RSSMState:
        stoch = jnp.zeros((batch_size, *self._latent().size))
        return RSSMState(jnp.zeros((batch_size, self.deter)), stoch)

    def _latent(self) -> Latent:
        return latent_of(self.latent, self.stoch, self.classes, self.unimix, self.free_nats)

    def tokens(self, carry: RSSMState) -> Float[Array, "b 1 d"]:
        return self._token(carry.deter, carry.stoch)

    def step(self, carry, embedding, observed, told, key):
        noise = self._latent().noise(key, carry.deter.shape[:1])
        seen = None if embedding is None else self._seen(embedding)
        deter = self._sequence(carry, self._told(told))
        prior = self._prior(deter)
        if seen is None:
            return self._imagined(deter, prior, noise)
        posterior = self._posterior(deter, seen)
        stoch = self._latent().posterior_sample(posterior, noise)
        if observed is not None:
            stoch = jnp.where(observed[:, None, None], stoch, self._prior_sample(prior, noise))
        out = self._output(deter, stoch, prior, posterior, noise, observed)
        return RSSMState(deter, stoch), out

    def scan(
        self,
        carry: RSSMState,
        embeddings: Float[Array, "b t n e"],
        observed: Bool[Array, "b t"] | None,
        told: Float[Array, "b t k"],
        is_first: Bool[Array, "b t"],
        keys: jax.Array | None,
    ) -> tuple[RSSMState, Output]:
        """Sequential in h. ``observed`` None (all frames seen) takes the prior out of the scan."""
        batch, time = is_first.shape
        fresh = self.initial(batch)
        noise = window_noise(self._latent(), keys, time, (batch,))
        inputs = (self._seen(embeddings), observed, self._told(told), is_first, noise)

        def body(module, carry, inputs):
            seen, observed, told, is_first, noise = inputs
            deter = module._sequence(reset(carry, fresh, is_first), told)
            posterior = module._posterior(deter, seen)
            stoch = module._latent().posterior_sample(posterior, noise)
            if observed is None:
                return RSSMState(deter, stoch), (deter, stoch, posterior, None)
            prior = module._prior(deter)
            stoch = jnp.where(observed[:, None, None], stoch, module._prior_sample(prior, noise))
            return RSSMState(deter, stoch), (deter, stoch, posterior, prior)

        carry, (deter, stoch, posterior, prior) = over_time(body)(self, carry, inputs)
        prior = self._prior(deter) if observed is None else prior
        return carry, self._output(deter, stoch, prior, posterior, noise, observed)

    def _told(self, told):
        """What the step is told, as its share of the hidden layer's input."""
        told = told / jax.lax.stop_gradient(jnp.maximum(1.0, jnp.abs(told)))
        return self.hidden_told(self.told_in(told))

    def _seen(self, embedding):
        """What leaves a scan of the posterior: the frame's share of its hidden layer, or, where it
        is from the frame alone, all of it."""
        x = self.posterior_hidden.of_input(embedding.reshape(*embedding.shape[:-2], -1))
        return x if self.posterior_reads_carry else self._posterior_of(x)

    def _sequence(self, carry, told):
        deter, stoch = carry.deter, carry.stoch.reshape(*carry.stoch.shape[:-2], -1)
        shared = jnp.concatenate([self.deter_in(deter), self.stoch_in(stoch)], -1)
        x = self.hidden_block(deter) + self.hidden_shared(shared) + told
        x = self.gates(nn.silu(self.hidden_norm(x)))
        gates = x.reshape(*x.shape[:-1], self.blocks, 3, -1)
        keep, candidate, update = (gates[..., i, :].reshape(deter.shape) for i in range(3))
        candidate = jnp.tanh(nn.sigmoid(keep) * candidate)
        update = nn.sigmoid(update - 1.0)  # starts by mostly keeping
        return update * candidate + (1 - update) * deter

    def _prior(self, deter):
        x = deter
        for layer in self.prior_hidden:
            x = layer(x)
        return self._latent().prior(self.prior_logits(x))

    def _posterior(self, deter, seen):
        if not self.posterior_reads_carry:
            return seen
        return self._posterior_of(self.posterior_hidden.of_carry(deter) + seen)

    def _posterior_of(self, x):
        return self._latent().posterior(self.posterior_logits(nn.silu(self.posterior_norm(x))))

    def _prior_sample(self, prior, noise):
        return self._latent().prior_sample(prior, self.temperature * noise)

    def _token(self, deter, stoch):
        flat = stoch.reshape(*stoch.shape[:-2], -1)
        return jnp.concatenate([deter, flat], -1)[..., None, :]

    def _imagined(self, deter, prior, noise):
        stoch = self._prior_sample(prior, noise)
        token = self._token(deter, stoch)
        terms = {name: jnp.zeros(deter.shape[:1]) for name in self._latent().names}
        return RSSMState(deter, stoch), Output(tokens=token, prior=token, terms=terms)

    def _output(self, deter, stoch, prior, posterior, noise, observed):
        """Works on (b, …) and (b, t, …) alike."""
        terms = self._latent().terms(posterior, prior)
        if observed is not None:
            terms = {name: jnp.where(observed, term, 0.0) for name, term in terms.items()}
        guess = self._token(deter, self._prior_sample(prior, noise))
        return Output(tokens=self._token(deter, stoch), prior=guess, terms=terms)
