"""Latent variables between a frame and the state: what a posterior and a prior are made of.

Each kind turns a network's outputs into a distribution over ``stoch`` variables and draws from it;
a value is (…, stoch, size). Noise is drawn apart from the choice it makes, so that a scan can draw
the noise of all its steps at once and still sample exactly what single steps would; noise of zero
gives the mode, and noise times T a prior sampled at temperature T (p^(1/T), or T σ for a Gaussian).

  deterministic  a vector; the posterior's has noise, of a fixed standard deviation
  categorical    one-hot, ``classes`` each; DreamerV2 and V3 (Hafner et al. 2021, arXiv 2010.02193;
                 2023, arXiv 2301.04104): unimix, straight-through gradients, balanced KL
  gaussian       one number each; PlaNet and Dreamer (Hafner et al. 2019, arXiv 1811.04551 and
                 1912.01603): reparametrised samples, balanced KL
  fsq            one number each, rounded to ``classes`` levels (Mentzer et al. 2023, arXiv
                 2309.15505): a posterior without noise or a loss of its own. The prior is a
                 distribution over the levels, trained by cross-entropy: that is KL(δ ‖ prior) for a
                 certain posterior δ, hence called `kl_dyn`; no `kl_rep`, no free nats
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, Protocol

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from wm_jax.losses import Normal, balanced_kl, gaussian_kl

MIN_STD = 0.1

Terms = dict[str, Float[Array, "*lead"]]


class Latent(Protocol):
    """What the kinds have in common. Distributions are pytrees with leading axes (…)."""

    #: Of the terms.
    names: ClassVar[tuple[str, ...]]

    @property
    def size(self) -> tuple[int, int]:
        """A value is (…, *size)."""
        ...

    @property
    def outputs(self) -> tuple[int, int]:
        """How many numbers a network must give to describe a posterior, and a prior."""
        ...

    def noise(self, key: jax.Array | None, lead: tuple[int, ...]) -> Array:
        """Noise for a sample, (*lead, …); zeros without a key."""
        ...

    def posterior(self, outputs: Float[Array, "*lead f"]) -> Any: ...

    def prior(self, outputs: Float[Array, "*lead f"]) -> Any: ...

    def posterior_sample(self, posterior: Any, noise: Array) -> Float[Array, "*lead s k"]: ...

    def prior_sample(self, prior: Any, noise: Array) -> Float[Array, "*lead s k"]: ...

    def terms(self, posterior: Any, prior: Any) -> Terms:
        """Losses in nats, (…,), summed over the variables."""
        ...


@dataclasses.dataclass(frozen=True)
class Deterministic:
    """One variable of ``width`` numbers; a distribution is the vector (…, width) itself.

    ``deviation`` is that of the noise in the posterior's samples. Where vectors have unit mean
    square it makes neighbouring ones decode alike, and small errors are forgiven.
    """

    width: int
    deviation: float
    names: ClassVar[tuple[str, ...]] = ()

    @property
    def size(self) -> tuple[int, int]:
        return 1, self.width

    @property
    def outputs(self) -> tuple[int, int]:
        return self.width, self.width

    def noise(self, key: jax.Array | None, lead: tuple[int, ...]) -> Array:
        return normal_noise(key, (*lead, *self.size))

    def prior(self, outputs: Float[Array, "*lead d"]) -> Float[Array, "*lead d"]:
        return outputs

    posterior = prior

    def prior_sample(self, prior: Float[Array, "*lead d"], noise: Array) -> Array:
        return prior[..., None, :]

    def posterior_sample(self, posterior: Float[Array, "*lead d"], noise: Array) -> Array:
        return posterior[..., None, :] + self.deviation * noise

    def terms(self, posterior: Array, prior: Array) -> Terms:
        return {}


@dataclasses.dataclass(frozen=True)
class Categorical:
    stoch: int
    classes: int
    unimix: float = 0.01
    free_nats: float = 1.0
    names: ClassVar[tuple[str, ...]] = ("kl_dyn", "kl_rep")

    @property
    def size(self) -> tuple[int, int]:
        return self.stoch, self.classes

    @property
    def outputs(self) -> tuple[int, int]:
        return (self.stoch * self.classes,) * 2

    def noise(self, key: jax.Array | None, lead: tuple[int, ...]) -> Array:
        return gumbel_noise(key, (*lead, *self.size))

    def prior(self, outputs: Float[Array, "*lead f"]) -> Float[Array, "*lead s k"]:
        """Log-probabilities."""
        return unimix(outputs.reshape(*outputs.shape[:-1], *self.size), self.unimix)

    def prior_sample(self, prior: Float[Array, "*lead s k"], noise: Array) -> Array:
        return sample(prior, noise)

    posterior, posterior_sample = prior, prior_sample

    def terms(self, posterior: Array, prior: Array) -> Terms:
        return balanced_kl(posterior, prior, self.free_nats)


@dataclasses.dataclass(frozen=True)
class Gaussian:
    """Standard deviations are at least `MIN_STD` (PlaNet)."""

    stoch: int
    free_nats: float = 1.0
    names: ClassVar[tuple[str, ...]] = ("kl_dyn", "kl_rep")

    @property
    def size(self) -> tuple[int, int]:
        return self.stoch, 1

    @property
    def outputs(self) -> tuple[int, int]:
        return (2 * self.stoch,) * 2

    def noise(self, key: jax.Array | None, lead: tuple[int, ...]) -> Array:
        return normal_noise(key, (*lead, *self.size))

    def prior(self, outputs: Float[Array, "*lead f"]) -> Normal:
        """Means, then what a softplus makes standard deviations of."""
        mean, raw = jnp.split(outputs.astype(jnp.float32)[..., None], 2, -2)
        return Normal(mean, jax.nn.softplus(raw) + MIN_STD)

    def prior_sample(self, prior: Normal, noise: Array) -> Array:
        return prior.mean + prior.std * noise

    posterior, posterior_sample = prior, prior_sample

    def terms(self, posterior: Normal, prior: Normal) -> Terms:
        return balanced_kl(posterior, prior, self.free_nats, gaussian_kl)


@dataclasses.dataclass(frozen=True)
class FSQ:
    """Finite scalar quantisation; all variables have the same number of levels here,
    at least three; the paper advises five or more."""

    stoch: int
    classes: int
    unimix: float = 0.01
    names: ClassVar[tuple[str, ...]] = ("kl_dyn",)

    @property
    def size(self) -> tuple[int, int]:
        return self.stoch, 1

    @property
    def outputs(self) -> tuple[int, int]:
        return self.stoch, self.stoch * self.classes

    def noise(self, key: jax.Array | None, lead: tuple[int, ...]) -> Array:
        """Of the prior's samples; the posterior takes none."""
        return gumbel_noise(key, (*lead, self.stoch, self.classes))

    def posterior(self, outputs: Float[Array, "*lead s"]) -> Float[Array, "*lead s 1"]:
        """Bounded, not yet rounded: 0 for an output of 0, within half a level of those at the ends.

        Even numbers of levels have no middle, so the bound is shifted by half a level (the paper's
        appendix); the levels are −⌊k/2⌋ … ⌈k/2⌉ − 1.
        """
        half = (self.classes - 1) / 2 * (1 + 1e-3)
        offset = 0.0 if self.classes % 2 else 0.5
        shifted = outputs.astype(jnp.float32)[..., None] + jnp.arctanh(offset / half)
        return half * jnp.tanh(shifted) - offset

    def posterior_sample(self, posterior: Float[Array, "*lead s 1"], noise: Array) -> Array:
        """Rounded, straight-through, scaled to [−1, 1]."""
        rounded = posterior + jax.lax.stop_gradient(jnp.round(posterior) - posterior)
        return rounded / (self.classes // 2)

    def prior(self, outputs: Float[Array, "*lead f"]) -> Float[Array, "*lead s k"]:
        """Log-probabilities of the levels."""
        logits = outputs.reshape(*outputs.shape[:-1], self.stoch, self.classes)
        return unimix(logits, self.unimix)

    def prior_sample(self, prior: Float[Array, "*lead s k"], noise: Array) -> Array:
        values = (jnp.arange(self.classes) - self.classes // 2) / (self.classes // 2)
        return (sample(prior, noise) * values).sum(-1, keepdims=True)

    def terms(self, posterior: Array, prior: Float[Array, "*lead s k"]) -> Terms:
        level = jnp.round(posterior).astype(jnp.int32) + self.classes // 2
        return {"kl_dyn": -jnp.take_along_axis(prior, level, -1).sum((-2, -1))}


def latent_of(kind: str, stoch: int, classes: int, unimix: float, free_nats: float) -> Latent:
    """The latent called ``kind``: 'categorical', 'gaussian' or 'fsq'."""
    if kind == "categorical":
        return Categorical(stoch, classes, unimix, free_nats)
    return Gaussian(stoch, free_nats) if kind == "gaussian" else FSQ(stoch, classes, unimix)


def window_noise(latent: Latent, keys: jax.Array | None, time: int, lead: tuple[int, ...]) -> Array:
    """Noise of a window, (b, t, …), from a key a step: what steps draw with ``lead`` (b, …)."""
    if keys is None:
        return jnp.repeat(latent.noise(None, lead)[:, None], time, 1)
    return jax.vmap(lambda key: latent.noise(key, lead), out_axes=1)(keys)


def unimix(logits: Float[Array, "*lead k"], share: float = 0.01) -> Float[Array, "*lead k"]:
    """Log-probabilities of ``share`` uniform and the rest softmax(logits).

    No class falls below share / k, so KL terms stay finite and every class keeps a gradient.
    """
    p = jax.nn.softmax(logits.astype(jnp.float32), axis=-1)
    return jnp.log((1 - share) * p + share / logits.shape[-1])


def normal_noise(key: jax.Array | None, shape: tuple[int, ...]) -> jax.Array:
    """Standard normal, or zeros (the mean) without a key."""
    return jnp.zeros(shape) if key is None else jax.random.normal(key, shape)


def gumbel_noise(key: jax.Array | None, shape: tuple[int, ...]) -> jax.Array:
    """Noise for `sample`: standard Gumbel, or zeros (the mode) without a key."""
    return jnp.zeros(shape) if key is None else jax.random.gumbel(key, shape)


def sample(
    log_probs: Float[Array, "*lead s k"], noise: Float[Array, "*lead s k"]
) -> Float[Array, "*lead s k"]:
    """A one-hot sample; its gradient is that of the probabilities (straight-through)."""
    probs = jnp.exp(log_probs)
    hard = jax.nn.one_hot(jnp.argmax(log_probs + noise, -1), log_probs.shape[-1])
    return jax.lax.stop_gradient(hard - probs) + probs
