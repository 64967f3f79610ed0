"""The composition: encoder, conditioning, dynamics and decoder as one model.

`Net` is the Linen module that owns the parameters. `WorldModel` is what the rest of the code sees:
pure functions of ``params`` (see `wm_jax.shapes.WorldModel`), a step, a decode and a loss.
"""

from __future__ import annotations

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from wm_jax import shapes
from wm_jax.losses import squared_error
from wm_jax.models.conditioning import Conditioning
from wm_jax.nn.grid import addresses


class Net(nn.Module):
    """Parameters of a world model; every method works on leading axes (b,) or (b, t)."""

    encoder: nn.Module
    dynamics: nn.Module
    decoder: nn.Module
    modalities: tuple[str, ...] = ()
    told_width: int = 32

    def setup(self) -> None:
        self.conditioning = Conditioning(self.modalities, self.told_width)

    def step(self, carry, conditions, frame, key):
        embedding = None if frame is None else self.encoder(frame)
        return self.dynamics.step(carry, embedding, None, self.conditioning(conditions), key)[0]

    def decode(self, tokens):
        return self.decoder(tokens)

    def tokens(self, carry):
        return self.dynamics.tokens(carry)

    def scan(self, frames, observed, conditions, is_first, keys):
        carry = self.dynamics.initial(frames.shape[0])
        told = self.conditioning(conditions)
        return self.dynamics.scan(carry, self.encoder(frames), observed, told, is_first, keys)

    def window(self, frames, observed, conditions, is_first, keys, known: int, predict: bool):
        """Decoded posteriors of the first ``known`` frames, decoded priors of all (or None), and
        the backbone's own terms. After ``known`` frames the two are the same."""
        _, out = self.scan(frames, observed, conditions, is_first, keys)
        prior = self.decoder(out.prior) if predict else None
        return self.decoder(out.tokens[:, :known]), prior, out.terms


@dataclasses.dataclass(frozen=True)
class LossWeights:
    """How a window is cut and what its terms weigh.

    context:    'random' shows each stream only its first c frames, c uniform in [context_low,
                context_high] but at most half the window, and closes the loop on the state for
                the rest; 'all' shows every frame
    posterior:  of the squared error of frames decoded after they were seen
    prior:      of the squared error of frames decoded before, or without, being seen
    kl_dyn, kl_rep: of a stochastic backbone's KL terms
    """

    context: str = "random"
    context_low: int = 3
    context_high: int = 12
    posterior: float = 0.25
    prior: float = 1.0
    kl_dyn: float = 1.0
    kl_rep: float = 0.1


@dataclasses.dataclass(frozen=True)
class WorldModel:
    """Pure functions over a `Net`."""

    net: Net
    weights: LossWeights
    resolution: int

    def init(self, key: jax.Array, batch: shapes.Batch) -> PyTree:
        one = jax.tree.map(lambda x: x[:1, :2], batch)
        frames = one.frames.astype(jnp.float32) / 255
        told = shapes.conditions_for_steps(one.conditions)
        arguments = (frames, None, told, one.is_first, jax.random.split(key, 2), 2, True)
        return self.net.init(key, *arguments, method="window")["params"]

    def _apply(self, params, method, *arguments):
        return self.net.apply({"params": params}, *arguments, method=method)

    def initial(self, params: PyTree, batch_size: int) -> shapes.LatentState:
        carry = self.net.dynamics.initial(batch_size)
        return self._state(params, carry, jnp.zeros(batch_size, jnp.int32))

    def step(self, params, state, conditions, frame=None, key=None) -> shapes.LatentState:
        carry = self._apply(params, "step", state.carry, conditions, frame, key)
        return self._state(params, carry, state.step + 1)

    def decode(self, params: PyTree, state: shapes.LatentState) -> Float[Array, "b h w c"]:
        return jnp.clip(self._apply(params, "decode", state.tokens), 0.0, 1.0)

    def _state(self, params, carry, step) -> shapes.LatentState:
        tokens = self._apply(params, "tokens", carry)
        cells = self.net.dynamics.cells
        address = addresses(cells) if tokens.shape[1] == cells[0] * cells[1] else None
        return shapes.LatentState(carry, tokens, address, step)

    def loss(
        self, params: PyTree, batch: shapes.Batch, key: jax.Array, step: jax.Array | None = None
    ) -> tuple[Float[Array, ""], dict[str, Float[Array, "b t"]]]:
        """Mean over real frames of the weighted terms, and the terms, each exactly (b, t).

        Pixel terms are squared errors summed over a frame's pixels and channels.
        """
        frames = batch.frames.astype(jnp.float32) / 255
        cut_key, step_key = jax.random.split(key)
        observed, known = self._observed(cut_key, *frames.shape[:2])
        told = shapes.conditions_for_steps(batch.conditions, batch.is_first)
        keys = shapes.step_keys(step_key, frames.shape[1])
        arguments = (frames, observed, told, batch.is_first, keys, known, self.weights.prior > 0)
        posterior, prior, terms = self._apply(params, "window", *arguments)
        terms = dict(terms)
        error = squared_error(posterior, frames[:, :known])
        if observed is not None:
            error = error * observed[:, :known]
        terms["posterior"] = jnp.pad(error, ((0, 0), (0, frames.shape[1] - known)))
        if prior is not None:
            # Nothing can be predicted before a stream's first frame; its error is pure noise.
            predicted = ~batch.is_first.at[:, 0].set(True)
            terms["prior"] = squared_error(prior, frames) * predicted
        total = sum(getattr(self.weights, name) * term for name, term in terms.items())
        mask = batch.mask.astype(jnp.float32)
        return (total * mask).sum() / jnp.maximum(mask.sum(), 1), terms

    def _observed(self, key, batch: int, time: int) -> tuple[Bool[Array, "b t"] | None, int]:
        """Which frames are shown (None: all), and after how many none is."""
        if self.weights.context == "all":
            return None, time
        low = self.weights.context_low
        high = max(low, min(self.weights.context_high, time // 2))
        cut = jax.random.randint(key, (batch, 1), low, high + 1)
        return jnp.arange(time) < cut, min(high, time)
