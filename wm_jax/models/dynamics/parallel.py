"""The base of backbones that are parallel over time: blocks of mixing in space and a time layer.

A frame is one token a cell, z (b, n, d). A step guesses the token, replaces the guess where a frame
is seen, and takes the result in:

  guess    g_t = norm(z_{t-1} + mix(y_{t-1}, c_t))          c what the step is told
  prior    ẑ_t ~ p(z | g_t)                                 deterministic: g_t itself
  token    z_t ~ q(z | norm(W x_t)) where a frame x_t is seen, else ẑ_t
  blocks   u ← u + mix(u);  u ← u + time(u)                 as often as ``layers`` says,
           starting from u = z_t + V c_t, ending in the summary y_t

A backbone supplies the time layer, one class (see `TimeLayer`); as long as that does not need its
own output at the step before, a window in which every frame is seen runs in parallel over time.
Where frames are missing a token depends on the one before, and the exact answer is sequential;
`self_fed_scan` is the parallel approximation for training.

That is the posterior from the frame alone, as in S4WM (Deng et al. 2023, arXiv 2307.02064) and R2I
(Samsami et al. 2024, arXiv 2403.04253). With ``posterior`` 'carry' it reads the recurrent state as
well, as DreamerV3's: q(z | norm(W x_t + V g_t)). What is hidden can then stay in a token, and every
window is sequential, and exact.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple, Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from wm_jax.errors import UserError
from wm_jax.models.bottleneck import Bottleneck
from wm_jax.models.dynamics.contract import Output, check_choice, check_latent, reset
from wm_jax.models.dynamics.space import SpaceMix, check_mixing
from wm_jax.models.latents import Deterministic, Latent, latent_of, window_noise
from wm_jax.nn.compute import in_turn, over_time, rematerialised
from wm_jax.nn.dense import Dense


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


LATENTS = ("deterministic", "categorical", "gaussian", "fsq")


class Parallel(nn.Module):
    """See the module's docstring. A backbone is a subclass with `time_layer` and fields of its own.

    width, hidden: d, and the width of spatial mixing
    layers: blocks of spatial mixing and a time layer
    mixing: within a frame, 'local' (3×3 neighbours) or 'attention' (over all cells, in
        ``mixing_heads`` heads)
    posterior: 'frame' or 'carry', see above
    latent: of each cell, a kind of `wm_jax.models.latents`. The others than 'deterministic' have
        ``stoch`` variables of ``classes`` classes (levels of 'fsq'; a Gaussian is one number),
        ``unimix`` as uniform share of every class's probability, ``free_nats`` (nats a step, all
        cells together) below which the KL is not trained, and priors sampled at ``temperature``
        (0: their modes). Their loss is the KL: Dreamer's weights are those of `rssm`
    noise: of the deterministic latent, standard deviation on tokens of seen frames if there is a
        key. Tokens have unit mean square: neighbours must decode alike, small errors are forgiven
    passes: of `self_fed_scan` where frames are missing from a window; 0: sequential and exact
    fed_gradient: whether gradients cross the tokens that `self_fed_scan` feeds back
    """

    cells: tuple[int, int]
    width: int = 64
    hidden: int = 64
    layers: int = 3
    mixing: str = "local"
    mixing_heads: int = 4
    posterior: str = "frame"
    latent: str = "deterministic"
    stoch: int = 8
    classes: int = 16
    unimix: float = 0.01
    free_nats: float = 1.0
    temperature: float = 1.0
    noise: float = 0.1
    passes: int = 0
    fed_gradient: bool = False

    @property
    def posterior_reads_carry(self) -> bool:
        return self.posterior == "carry"

    def check(self) -> None:
        check_mixing(self.mixing, self.width, self.mixing_heads)
        check_choice("posterior", self.posterior, ("frame", "carry"))
        check_latent(self.latent, self.classes, LATENTS)
        if self.posterior == "carry" and self.passes:
            raise UserError(
                f"model.dynamics.passes={self.passes} needs model.dynamics.posterior='frame': with "
                "'carry' no window is parallel over time; set passes=0."
            )

    def time_layer(self) -> Any:
        """A new `TimeLayer`. ``parent=None`` must be among its arguments, as it is made in `setup`
        and, for its initial state, outside of it."""
        raise NotImplementedError

    def setup(self) -> None:
        space = functools.partial(SpaceMix, self.cells, self.hidden, self.mixing, self.mixing_heads)
        self.read = Dense(self.width)
        if self.posterior == "carry":
            self.read_guess = Dense(self.width, use_bias=False)
        self.told_layers = Dense(self.width, use_bias=False)
        self.told_guess = Dense(self.hidden, use_bias=False)
        self.space = [space() for _ in range(self.layers)]
        self.time = [self.time_layer() for _ in range(self.layers)]
        self.guess = space()
        self.normalise = nn.RMSNorm(use_scale=False)
        self.bottleneck = Bottleneck(self._latent(), self.width)

    def _latent(self) -> Latent:
        if self.latent == "deterministic":
            return Deterministic(self.width, self.noise)
        return latent_of(self.latent, self.stoch, self.classes, self.unimix, self.free_nats)

    def initial(self, batch_size: int) -> ParallelState:
        size = (batch_size, self.cells[0] * self.cells[1], self.width)
        memory = tuple(self.time_layer().initial(*size) for _ in range(self.layers))
        return ParallelState(memory, jnp.zeros(size), jnp.zeros(size))

    def fresh(self, batch_size: int) -> ParallelState:
        """`initial`, for a `scan`: its shapes say of layers that have such that it is empty."""
        layer, start = self.time_layer(), self.initial(batch_size)
        begin = getattr(layer, "fresh", layer.initial)
        memory = tuple(begin(*start.token.shape) for _ in range(self.layers))
        return start._replace(memory=memory)

    def tokens(self, carry: ParallelState) -> Float[Array, "b n d"]:
        return carry.token

    def step(self, carry, embedding, observed, told, key):
        seen = None if embedding is None else self._seen(embedding)
        noise = self._latent().noise(key, carry.token.shape[:2])
        return self._step(carry, seen, observed, told, noise)

    def scan(
        self,
        carry: ParallelState,
        embeddings: Float[Array, "b t n e"],
        observed: Bool[Array, "b t"] | None,
        told: Float[Array, "b t k"],
        is_first: Bool[Array, "b t"],
        keys: jax.Array | None,
    ) -> tuple[ParallelState, Output]:
        """Parallel over time if all frames are seen (``observed`` None) and read alone, or by
        ``passes``; else sequential."""
        if observed is not None and self.passes and not self.is_initializing():
            return self.self_fed_scan(carry, embeddings, observed, told, is_first, keys)
        seen, noise = self._seen(embeddings), self._noise(carry, keys, told.shape[1])
        if observed is not None or self.posterior == "carry":
            return self._sequential(carry, seen, observed, told, is_first, noise)
        tokens = self.bottleneck.posterior_token(seen, noise)
        return self._parallel(carry, seen, tokens, told, is_first, noise)

    def self_fed_scan(
        self,
        carry: ParallelState,
        embeddings: Float[Array, "b t n e"],
        observed: Bool[Array, "b t"],
        told: Float[Array, "b t k"],
        is_first: Bool[Array, "b t"],
        keys: jax.Array | None,
    ) -> tuple[ParallelState, Output]:
        """The exact `scan`, approximated in ``passes + 1`` parallel passes (Jacobi's method); the
        posterior must be from the frame alone.

        The first sees every frame. Each later one takes the previous one's priors for the tokens
        of frames that are not observed. After p of them the first p + 1 frames of a gap are exact;
        tokens further on have been imagined for p + 1 steps from frames that were seen.
        """
        posterior, noise = self._seen(embeddings), self._noise(carry, keys, told.shape[1])
        seen = self.bottleneck.posterior_token(posterior, noise)
        where, fed = observed[..., None, None], seen
        for _ in range(self.passes):
            prior = self._parallel(carry, posterior, fed, told, is_first, noise)[1].prior
            prior = prior if self.fed_gradient else jax.lax.stop_gradient(prior)
            fed = jnp.where(where, seen, prior)
        carry, out = self._parallel(carry, posterior, fed, told, is_first, noise)
        tokens = jnp.where(where, seen, out.prior)
        out = out._replace(tokens=tokens, terms=_where_observed(observed, out.terms))
        return carry._replace(token=tokens[:, -1]), out

    def _seen(self, embedding):
        """What leaves a scan of the posterior: all of it where it is from the frame alone."""
        features = self.read(embedding)
        if self.posterior == "carry":
            return features
        return self.bottleneck.posterior(self.normalise(features))

    def _noise(self, carry, keys, time):
        return window_noise(self._latent(), keys, time, carry.token.shape[:2])

    def _posterior(self, seen, guess):
        if self.posterior == "frame":
            return seen
        return self.bottleneck.posterior(self.normalise(seen + self.read_guess(guess)))

    def _step(self, carry, seen, observed, told, noise):
        guess = self._guess(carry.summary, carry.token, told)
        prior = self.bottleneck.prior(guess)
        token = expected = self.bottleneck.prior_token(prior, self.temperature * noise)
        terms = {name: jnp.zeros(told.shape[:1]) for name in self._latent().names}
        if seen is not None:
            posterior = self._posterior(seen, guess)
            token = self.bottleneck.posterior_token(posterior, noise)
            terms = self.bottleneck.terms(posterior, prior)
            if observed is not None:
                token = jnp.where(observed[:, None, None], token, expected)
                terms = _where_observed(observed, terms)
        no_reset = jnp.zeros((told.shape[0], 1), bool)
        memory, summary = self._layers(carry.memory, token[:, None], told[:, None], no_reset)
        carry = ParallelState(memory, summary[:, 0], token)
        return carry, Output(tokens=token, prior=expected, terms=terms)

    def _sequential(self, carry, seen, observed, told, is_first, noise):
        fresh = self.initial(is_first.shape[0])
        carry = jax.tree.map(lambda x, of: x if x.shape == of.shape else of, carry, fresh)

        def body(module, carry, inputs):
            seen, observed, told, is_first, noise = inputs
            return module._step(reset(carry, fresh, is_first), seen, observed, told, noise)

        return over_time(body)(self, carry, (seen, observed, told, is_first, noise))

    def _parallel(self, carry, posterior, tokens, told, is_first, noise):
        """All steps of a window at once, given all of its tokens and what was seen."""
        memory, summary = self._layers(carry.memory, tokens, told, is_first)
        last_summary = _shift(summary, carry.summary, is_first)
        guess = self._guess(last_summary, _shift(tokens, carry.token, is_first), told)
        prior = self.bottleneck.prior(guess)
        expected = self.bottleneck.prior_token(prior, self.temperature * noise)
        carry = ParallelState(memory, summary[:, -1], tokens[:, -1])
        terms = self.bottleneck.terms(posterior, prior)
        return carry, Output(tokens=tokens, prior=expected, terms=terms)

    def _guess(self, summary, token, told):
        """Of the next token, from the last summary and token: features, (b, …) or (b, t, …)."""
        change = self.guess(summary, self.told_guess(told)[..., None, :])
        return self.normalise(token + change)

    def _layers(self, memory, tokens, told, is_first):
        """The time layers' states after the window, and its summaries, (b, t, n, d)."""
        x = tokens + self.told_layers(told)[..., None, :]
        memories = []
        for i, state in enumerate(memory):

            def layer(module, x, state, is_first, i=i):
                x = x + module.space[i](x)
                change, last = module.time[i](x, state, is_first)
                return x + change, last

            layer = rematerialised(layer)
            x, last = (layer if self.is_initializing() else in_turn(layer))(
                self, x, state, is_first
            )
            memories.append(last)
        return tuple(memories), x


def _shift(
    x: Float[Array, "b t n d"], start: Float[Array, "b n d"], is_first: Bool[Array, "b t"]
) -> Float[Array, "b t n d"]:
    """What x was one step before: ``start`` at first, zero after a reset."""
    before = jnp.concatenate([start[:, None], x[:, :-1]], 1)
    return jnp.where(is_first[..., None, None], 0.0, before)


def _where_observed(observed, terms):
    return {name: jnp.where(observed, term, 0.0) for name, term in terms.items()}
