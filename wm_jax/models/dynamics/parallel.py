"""The base of backbones that are parallel over time: blocks of mixing in space and a time layer.

A frame is one token a cell, z (b, n, d), read off the frame alone (deterministic, normalised). A
step guesses the token, replaces the guess where a frame is seen, and takes the result in:

  prior    ẑ_t = norm(z_{t-1} + mix(y_{t-1}, c_t))          c what the step is told
  token    z_t = norm(W x_t) + noise where a frame x_t is seen, else ẑ_t
  blocks   u ← u + mix(u);  u ← u + time(u)                 as often as ``layers`` says,
           starting from u = z_t + V c_t, ending in the summary y_t

A backbone supplies the time layer, one class (see `TimeLayer`); as long as that does not need its
own output at the step before, a window in which every frame is seen runs in parallel over time. The
posterior does not read the carry. Where frames are missing a token depends on the one before, and
the exact answer is sequential; `self_fed_scan` is the parallel approximation for training.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from wm_jax.models.dynamics.contract import Output, reset
from wm_jax.nn.dense import Dense
from wm_jax.nn.grid import GridMix


class TimeLayer(Protocol):
    """A Linen module that carries information over time, in every cell alone: what a residual
    stream adds to itself. It brings its own norm in front and its own way back to width d."""

    def initial(self, batch_size: int, cells: int, width: int) -> PyTree:
        """The state before the first step: constants of a fixed size, every leaf (b, …)."""
        ...

    def __call__(
        self, x: Float[Array, "b t n d"], state: PyTree, is_first: Bool[Array, "b t"]
    ) -> tuple[Float[Array, "b t n d"], PyTree]:
        """The addition at every step, and the state after the last one.

        ``state`` is that before the first. Step t starts anew wherever ``is_first``, at t = 0 too:
        nothing from before reaches it, bit for bit. t = 1 is the single step, and a window must
        equal its steps one by one (1e-4 in float32): steps after t never matter at t.
        """
        ...


class ParallelState(NamedTuple):
    """The time layers' states, the last summary y and the last token z."""

    memory: tuple[PyTree, ...]
    summary: Float[Array, "b n d"]
    token: Float[Array, "b n d"]


class SpaceMix(nn.Module):
    """Norm, 3×3 mixing over the cells, SiLU, dense: what a residual stream adds to itself."""

    cells: tuple[int, int]
    hidden: int

    @nn.compact
    def __call__(self, x: Float[Array, "*lead n d"], told=0.0) -> Float[Array, "*lead n d"]:
        """``told`` (…, 1, hidden) is added before the activation."""
        hidden = GridMix(self.cells, self.hidden)(nn.RMSNorm()(x))
        return Dense(x.shape[-1])(nn.silu(hidden + told))


class Parallel(nn.Module):
    """See the module's docstring. A backbone is a subclass with `time_layer` and fields of its own.

    width, hidden: d, and the width of spatial mixing
    layers: blocks of spatial mixing and a time layer
    noise: standard deviation added to the tokens of seen frames when there is a key. Tokens have
        unit mean square, so neighbouring tokens must decode alike, and small errors are forgiven
    passes: of `self_fed_scan` where frames are missing from a window; 0: sequential and exact
    fed_gradient: whether gradients cross the tokens that `self_fed_scan` feeds back
    """

    cells: tuple[int, int]
    width: int = 64
    hidden: int = 64
    layers: int = 3
    noise: float = 0.1
    passes: int = 0
    fed_gradient: bool = False
    posterior_reads_carry = False

    def time_layer(self) -> Any:
        """A new `TimeLayer`. ``parent=None`` must be among its arguments, as it is made in `setup`
        and, for its initial state, outside of it."""
        raise NotImplementedError

    def setup(self) -> None:
        self.read = Dense(self.width)
        self.told_layers = Dense(self.width, use_bias=False)
        self.told_guess = Dense(self.hidden, use_bias=False)
        self.space = [SpaceMix(self.cells, self.hidden) for _ in range(self.layers)]
        self.time = [self.time_layer() for _ in range(self.layers)]
        self.guess = SpaceMix(self.cells, self.hidden)
        self.normalise = nn.RMSNorm(use_scale=False)

    def initial(self, batch_size: int) -> ParallelState:
        size = (batch_size, self.cells[0] * self.cells[1], self.width)
        memory = tuple(self.time_layer().initial(*size) for _ in range(self.layers))
        return ParallelState(memory, jnp.zeros(size), jnp.zeros(size))

    def tokens(self, carry: ParallelState) -> Float[Array, "b n d"]:
        return carry.token

    def step(self, carry, embedding, observed, told, key):
        seen = None if embedding is None else self._seen(embedding, key)
        return self._step(carry, seen, observed, told)

    def scan(
        self,
        carry: ParallelState,
        embeddings: Float[Array, "b t n e"],
        observed: Bool[Array, "b t"] | None,
        told: Float[Array, "b t k"],
        is_first: Bool[Array, "b t"],
        keys: jax.Array | None,
    ) -> tuple[ParallelState, Output]:
        """Parallel over time if all frames are seen (``observed`` None), else by ``passes``."""
        if observed is not None and self.passes and not self.is_initializing():
            return self.self_fed_scan(carry, embeddings, observed, told, is_first, keys)
        seen = self._seen_window(embeddings, keys)
        if observed is None:
            return self._parallel(carry, seen, told, is_first)
        return self._sequential(carry, seen, observed, told, is_first)

    def self_fed_scan(
        self,
        carry: ParallelState,
        embeddings: Float[Array, "b t n e"],
        observed: Bool[Array, "b t"],
        told: Float[Array, "b t k"],
        is_first: Bool[Array, "b t"],
        keys: jax.Array | None,
    ) -> tuple[ParallelState, Output]:
        """The exact `scan`, approximated in ``passes + 1`` parallel passes (Jacobi's method).

        The first sees every frame. Each later one takes the previous one's priors for the tokens
        of frames that are not observed. After p of them the first p + 1 frames of a gap are exact;
        tokens further on have been imagined for p + 1 steps from frames that were seen.
        """
        seen = self._seen_window(embeddings, keys)
        where = observed[..., None, None]
        fed = seen
        for _ in range(self.passes):
            prior = self._parallel(carry, fed, told, is_first)[1].prior
            prior = prior if self.fed_gradient else jax.lax.stop_gradient(prior)
            fed = jnp.where(where, seen, prior)
        carry, out = self._parallel(carry, fed, told, is_first)
        tokens = jnp.where(where, seen, out.prior)
        return carry._replace(token=tokens[:, -1]), out._replace(tokens=tokens)

    def _seen(self, embedding, key):
        token = self.normalise(self.read(embedding))
        return token if key is None else token + self.noise * jax.random.normal(key, token.shape)

    def _seen_window(self, embeddings, keys):
        if keys is None:
            return self._seen(embeddings, None)
        tokens = self.normalise(self.read(embeddings))
        shape = tokens[:, 0].shape
        noise = jax.vmap(lambda key: jax.random.normal(key, shape), out_axes=1)(keys)
        return tokens + self.noise * noise

    def _step(self, carry, seen, observed, told):
        prior = self._prior(carry.summary, carry.token, told)
        token = prior if seen is None else seen
        if seen is not None and observed is not None:
            token = jnp.where(observed[:, None, None], seen, prior)
        no_reset = jnp.zeros((told.shape[0], 1), bool)
        memory, summary = self._layers(carry.memory, token[:, None], told[:, None], no_reset)
        carry = ParallelState(memory, summary[:, 0], token)
        return carry, Output(tokens=token, prior=prior, terms={})

    def _sequential(self, carry, seen, observed, told, is_first):
        fresh = self.initial(is_first.shape[0])

        def body(module, carry, inputs):
            seen, observed, told, is_first = inputs
            return module._step(reset(carry, fresh, is_first), seen, observed, told)

        scan = nn.scan(
            body, variable_broadcast="params", split_rngs={"params": False}, in_axes=1, out_axes=1
        )
        return scan(self, carry, (seen, observed, told, is_first))

    def _parallel(self, carry, tokens, told, is_first):
        """All steps of a window at once, given all of its tokens."""
        memory, summary = self._layers(carry.memory, tokens, told, is_first)
        last_summary = _shift(summary, carry.summary, is_first)
        prior = self._prior(last_summary, _shift(tokens, carry.token, is_first), told)
        carry = ParallelState(memory, summary[:, -1], tokens[:, -1])
        return carry, Output(tokens=tokens, prior=prior, terms={})

    def _prior(self, summary, token, told):
        """The next token, guessed from the last summary and token; (b, …) or (b, t, …)."""
        change = self.guess(summary, self.told_guess(told)[..., None, :])
        return self.normalise(token + change)

    def _layers(self, memory, tokens, told, is_first):
        """The time layers' states after the window, and its summaries, (b, t, n, d)."""
        x = tokens + self.told_layers(told)[..., None, :]
        memories = []
        for space, time, state in zip(self.space, self.time, memory, strict=True):
            x = x + space(x)
            change, last = time(x, state, is_first)
            x = x + change
            memories.append(last)
        return tuple(memories), x


def _shift(
    x: Float[Array, "b t n d"], start: Float[Array, "b n d"], is_first: Bool[Array, "b t"]
) -> Float[Array, "b t n d"]:
    """What x was one step before: ``start`` at first, zero after a reset."""
    before = jnp.concatenate([start[:, None], x[:, :-1]], 1)
    return jnp.where(is_first[..., None, None], 0.0, before)
