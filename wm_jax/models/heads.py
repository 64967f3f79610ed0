"""Heads: what an agent reads off a state besides frames. `model.heads` names those that are there.

  reward     of the step that led to the frame, in the environment's own unit (DreamerV3, Hafner et
             al. 2023, arXiv 2301.04104, equation 3)
  continue   the probability that the episode goes on after the frame (the same)
  audio      the sound of audio[t] as log energies in octave-spaced bands, ln(1 + Σ |FFT|²) with the
             sum over a band, as the condition ``audio`` tells them
             (`data_pipelines.window.log_bands`): what is predicted here can be told there
  readout    numbers that the batch brings along (`Batch.readout`), by least squares. Its gradient
             stops before the state, so it reads what is there and changes nothing

Each is a small network over all tokens of the state, trained on the window's own states: posteriors
where frames are seen, imagined ones where the loop is closed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from wm_jax import shapes
from wm_jax.errors import UserError
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


class VectorHead(nn.Module):
    """``size`` numbers, by least squares."""

    size: int
    units: int = 64
    layers: int = 1

    @nn.compact
    def __call__(self, tokens: Float[Array, "*lead n d"]) -> Float[Array, "*lead k"]:
        return Dense(self.size, kernel_init=fan_in)(HeadHidden(self.units, self.layers)(tokens))

    def loss(
        self, predicted: Float[Array, "*lead k"], target: Float[Array, "*lead k"]
    ) -> Float[Array, "*lead"]:
        """Squared error summed over the numbers."""
        return jnp.square(predicted - target).sum(-1)


class Heads(nn.Module):
    """The heads ``names``, of `shapes.HEAD_FIELDS`; ``readout`` is the size of the last."""

    names: tuple[str, ...]
    readout: int = 0

    def setup(self) -> None:
        makers: dict[str, Callable[[], nn.Module]] = {
            "reward": RewardHead,
            "continue": ContinueHead,
            "audio": lambda: VectorHead(shapes.CONDITION_SIZES["audio"]),
            "readout": lambda: VectorHead(self.readout),
        }
        self.head = {name: makers[name]() for name in self.names}

    def targets(self, batch: shapes.Batch) -> dict[str, Any]:
        """What a batch says to each head. Raises `UserError` where it says nothing."""
        given = {
            "reward": batch.reward,
            "continue": batch.is_terminal,
            "audio": batch.conditions.audio,
            "readout": batch.readout,
        }
        for name in self.names:
            if given[name] is None:
                raise UserError(
                    f"model.heads has '{name}' and the batch has no {shapes.HEAD_FIELDS[name]}; "
                    "give episodes that have it, or leave the head out."
                )
        return {name: given[name] for name in self.names}

    def __call__(self, tokens: Float[Array, "*lead n d"]) -> dict[str, Float[Array, "*lead *k"]]:
        """Expected reward (…,), probability to go on (…,), log energies (…, k), numbers (…, k)."""
        shown = {"reward": lambda x: self.head["reward"].mean(x), "continue": jax.nn.sigmoid}
        return {name: shown.get(name, lambda x: x)(self.head[name](tokens)) for name in self.names}

    def losses(
        self, tokens: Float[Array, "b t n d"], targets: dict[str, Any]
    ) -> dict[str, Float[Array, "b t"]]:
        """``head_<name>``: nats for reward and continue, squared errors summed over numbers for the
        others; 0 where there is no sound to compare with."""
        terms = {}
        for name in self.names:
            head, target, weight = self.head[name], targets[name], 1.0
            if name == "audio":
                target, weight = target.value, target.mask.astype(jnp.float32)
            if name == "continue":
                target = 1 - target.astype(jnp.float32)
            seen = jax.lax.stop_gradient(tokens) if name == "readout" else tokens
            terms[f"head_{name}"] = weight * head.loss(head(seen), target)
        return terms
