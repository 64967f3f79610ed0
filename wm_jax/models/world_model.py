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

    def decode(self, tokens, key=None):
        return self.decoder(tokens) if key is None else self.decoder(tokens, key=key)

    def plain(self, tokens, predicted: bool = False):
        """Of a decoder with two kinds of frames, the plain ones; else its only ones."""
        decode = getattr(self.decoder, "plain_frames", self.decoder)
        return decode(tokens, predicted)

    def masks(self, tokens):
        plain = getattr(self.decoder, "plain", self.decoder)
        return plain.masks(tokens)

    def tokens(self, carry):
        return self.dynamics.tokens(carry)

    def window(self, frames, observed, conditions, is_first, keys, seen, foreseen, painted):
        """Decoded posteriors of the frames ``seen``, decoded priors of the frames ``foreseen``
        (None: of none), each a slice or indices, both of the streams ``painted`` (a slice), a sharp
        decoder's own error of the latter (of the former if there are none; None without one), and
        the backbone's own terms of all."""
        embeddings, told = self.encoder(frames), self.conditioning(conditions)
        start = self.dynamics.initial(frames.shape[0])
        inputs = (start, embeddings, observed, told, is_first, keys)
        if hasattr(self.dynamics, "teach"):
            out = self.dynamics.teach(*inputs, painted=painted)
        else:
            _, out = self.dynamics.scan(*inputs)
            out = out._replace(tokens=out.tokens[painted], prior=out.prior[painted])
        posterior = self.plain(out.tokens[:, seen])
        prior = None if foreseen is None else self.plain(out.prior[:, foreseen], predicted=True)
        sharp = None
        if hasattr(self.decoder, "sharp_error"):
            tokens, at = (out.tokens, seen) if foreseen is None else (out.prior, foreseen)
            key = jax.random.fold_in(keys[0], 1)
            sharp = self.decoder.sharp_error(tokens[:, at], frames[painted][:, at], key)
        return posterior, prior, sharp, dict(out.terms)


@dataclasses.dataclass(frozen=True)
class LossWeights:
    """How a window is cut and what its terms weigh.

    context:    'random' shows each stream only its first c frames, c uniform in [context_low,
                context_high] but at most half the window, and closes the loop on the state for
                the rest; 'all' shows every frame
    posterior:  of the squared error of frames decoded after they were seen
    prior:      of the squared error of frames decoded before, or without, being seen
    kl_dyn, kl_rep: of a stochastic backbone's KL terms
    place, whole: of `grid_slots`' terms of these names
    sharp:      of a flow decoder's own error; no gradient of it reaches the rest of the model
    decoded:    frames a window, drawn anew for every update, whose pixels are compared before and
                after they are seen (the terms are scaled to all frames); 0: all of them
    painted:    one stream in this many is decoded at all (its terms are scaled likewise): where
                pixels cost most of an update and teach little, the rest goes to the dynamics
    """

    context: str = "random"
    context_low: int = 3
    context_high: int = 12
    posterior: float = 0.25
    prior: float = 1.0
    kl_dyn: float = 1.0
    kl_rep: float = 0.1
    place: float = 40.0
    whole: float = 4.0
    sharp: float = 1.0
    decoded: int = 0
    painted: int = 1


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
        keys, every = jax.random.split(key, 2), (slice(None),) * 3
        arguments = (frames, None, told, one.is_first, keys, *every)
        return self.net.init(key, *arguments, method="window")["params"]

    def _apply(self, params, method, *arguments):
        return self.net.apply({"params": params}, *arguments, method=method)

    def initial(self, params: PyTree, batch_size: int) -> shapes.LatentState:
        carry = self.net.dynamics.initial(batch_size)
        return self._state(params, carry, jnp.zeros(batch_size, jnp.int32))

    def step(self, params, state, conditions, frame=None, key=None) -> shapes.LatentState:
        carry = self._apply(params, "step", state.carry, conditions, frame, key)
        return self._state(params, carry, state.step + 1)

    def decode(
        self, params: PyTree, state: shapes.LatentState, key: jax.Array | None = None
    ) -> Float[Array, "b h w c"]:
        """Frames in [0, 1]. A ``key`` is only for a decoder that draws (see `FlowDecoder`)."""
        return jnp.clip(self._apply(params, "decode", state.tokens, key), 0.0, 1.0)

    def plain(self, params: PyTree, state: shapes.LatentState) -> Float[Array, "b h w c"]:
        """What the plain decoder makes of the state, to report beside a sharp one's frames."""
        return jnp.clip(self._apply(params, "plain", state.tokens), 0.0, 1.0)

    def masks(self, params: PyTree, state: shapes.LatentState) -> Float[Array, "b m h w"]:
        """Each slot's share of each pixel, of a decoder that paints by slots; they sum to one."""
        return self._apply(params, "masks", state.tokens)

    def _state(self, params, carry, step) -> shapes.LatentState:
        tokens = self._apply(params, "tokens", carry)
        dynamics = self.net.dynamics
        if hasattr(dynamics, "address"):
            address = dynamics.address(carry)
        else:
            cells = dynamics.cells
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
        batch_size, time = frames.shape[:2]
        observed, known = self._observed(cut_key, batch_size, time)
        taught = hasattr(self.net.dynamics, "teach")  # its posteriors have seen every frame
        known = time if taught else known
        seen = self._compared(jax.random.fold_in(cut_key, 1), 0, known)
        # Nothing can be predicted before a stream's first frame; its error is pure noise.
        foreseen = self._compared(jax.random.fold_in(cut_key, 2), 1, time)
        told = shapes.conditions_for_steps(batch.conditions, batch.is_first)
        keys = shapes.step_keys(step_key, time)
        painted = slice(None, None, self.weights.painted)
        which = (seen, foreseen if self.weights.prior > 0 else None, painted)
        arguments = (frames, observed, told, batch.is_first, keys, *which)
        posterior, prior, sharp, terms = self._apply(params, "window", *arguments)

        def all_frames(error, at, count):
            """The error at some frames of the painted streams, scaled so that its sum stands for
            ``count`` of them of all streams."""
            whole = jnp.zeros((batch_size, time))
            share = error.size / (batch_size * count)
            return whole.at[painted, at].set(error / share)

        error = squared_error(posterior, frames[painted, seen])
        if observed is not None and not taught:
            error = error * observed[painted, seen]
        terms["posterior"] = all_frames(error, seen, known)
        if prior is not None:
            error = squared_error(prior, frames[painted, foreseen])
            error = error * ~batch.is_first[painted, foreseen]
            terms["prior"] = all_frames(error, foreseen, time - 1)
        if sharp is not None:
            at, count = (seen, known) if prior is None else (foreseen, time - 1)
            terms["sharp"] = all_frames(sharp, at, count)
        total = sum(getattr(self.weights, name) * term for name, term in terms.items())
        mask = batch.mask.astype(jnp.float32)
        return (total * mask).sum() / jnp.maximum(mask.sum(), 1), terms

    def _compared(self, key, begin: int, end: int) -> slice | Array:
        """The frames of [begin, end) whose pixels are compared."""
        count = self.weights.decoded
        if not count or count >= end - begin:
            return slice(begin, end)
        return begin + jax.random.choice(key, end - begin, (count,), replace=False)

    def _observed(self, key, batch: int, time: int) -> tuple[Bool[Array, "b t"] | None, int]:
        """Which frames are shown (None: all), and after how many none is."""
        if self.weights.context == "all":
            return None, time
        low = self.weights.context_low
        high = max(low, min(self.weights.context_high, time // 2))
        cut = jax.random.randint(key, (batch, 1), low, high + 1)
        return jnp.arange(time) < cut, min(high, time)
