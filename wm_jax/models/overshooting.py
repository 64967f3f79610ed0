"""Latent overshooting (PlaNet, Hafner et al. 2018, arXiv 1811.04551, equation 7), for any backbone.

One-step priors are trained where a frame was seen a step before, and in a rollout they are used
where none was. So from a state inside a window the prior is rolled ``steps`` steps ahead, blind,
and each of its guesses is compared with what the frame of that time says, which is held fixed:

  stochastic latents     KL(q_{s+d} ‖ p_{s+d | s}), the backbone's own ``kl_dyn`` (with its free
                         nats) of a look at frame s + d after d − 1 blind steps from s
  deterministic latents  ‖z_{s+d} − ẑ_{s+d | s}‖² with the tokens z of the posteriors, summed over
                         tokens, a mean over their features

Averages over d = 1 … ``steps``, as in equation 7 with all β_d = 1. A posterior from the frame alone
makes the KL that of the paper; one that reads the carry looks from the imagined state, which is
where a rollout that sees a frame again would look from. All steps share the gradient; the paper
stops that of the posterior, and so does ``kl_dyn``.

The cost is bounded: one start a stream and update, at random, so a second pass over the window and
``steps`` steps. Nothing but `scan` and `step` of the contract is used.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from wm_jax.nn.compute import over_time
from wm_jax.shapes import step_keys


class Overshot(NamedTuple):
    """The steps after a start; k of them.

    at:       (b, k) which frames of the window they are
    tokens:   (b, k, n, d) imagined
    error:    (b, k) KL in nats, or distance of tokens; see the module's docstring
    real:     (b, k) whether no reset lies between the start and the step
    """

    at: Int[Array, "b k"]
    tokens: Float[Array, "b k n d"]
    error: Float[Array, "b k"]
    real: Bool[Array, "b k"]


def overshoot(
    dynamics: Any,
    embeddings: Float[Array, "b t n e"],
    told: Float[Array, "b t f"],
    is_first: Bool[Array, "b t"],
    key: jax.Array,
    steps: int,
) -> Overshot:
    """Rolls the prior of a bound ``dynamics`` from one random state a stream.

    A window of t frames leaves room for t − 1 steps; more are not made.
    """
    batch, time = is_first.shape
    steps = min(steps, time - 1)
    start_key, noise_key = jax.random.split(key)
    start = jax.random.randint(start_key, (batch, 1), 1, time - steps + 1)
    # Every stream shifted so that its start lies at one index: before frame 0 come copies of it,
    # and a reset at frame 0 sees to it that they don't matter.
    known = time - steps
    at = jnp.arange(time) + start - known
    begins = (at == 0) | _pick(is_first, jnp.maximum(at, 0))
    embeddings, told = (_pick(x, jnp.maximum(at, 0)) for x in (embeddings, told))
    keys = step_keys(noise_key, time)
    early = jax.tree.map(lambda x: x[:known], keys)
    late = jax.tree.map(lambda x: x[known:], keys)
    seen = embeddings[:, :known], None, told[:, :known], begins[:, :known], early
    carry: PyTree = dynamics.scan(dynamics.initial(batch), *seen)[0]
    ahead = embeddings[:, known:], told[:, known:]
    tokens, surprise = _roll(dynamics, carry, *ahead, late)
    if surprise is None:
        _, later = dynamics.scan(carry, ahead[0], None, ahead[1], begins[:, known:], None)
        off = jnp.square(tokens - jax.lax.stop_gradient(later.tokens))
        surprise = off.mean(-1).sum(-1)
    real = jnp.cumsum(begins[:, known:], 1) == 0
    return Overshot(at[:, known:], tokens, jnp.where(real, surprise, 0.0), real)


def _roll(dynamics, carry, embeddings, told, keys):
    """Tokens (b, k, n, d) of blind steps, and the KL (b, k) of a look instead of each, if any."""

    def body(module, carry, inputs, key):
        embedding, told = inputs
        # Where the compiler sees the same prior twice it computes it once.
        look = module.step(carry, embedding, None, told, key)[1].terms
        carry, out = module.step(carry, None, None, told, key)
        return carry, (out.tokens, look.get("kl_dyn"))

    scan = over_time(body, (1, 0))
    return scan(dynamics, carry, (embeddings, told), keys)[1]


def _pick(x: Array, at: Int[Array, "b k"]) -> Array:
    """x[b, at[b]] for every stream b."""
    return jnp.take_along_axis(x, at.reshape(*at.shape, *(1,) * (x.ndim - 2)), 1)
