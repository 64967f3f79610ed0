"""States to be read: of models, and as the features that every read-out gets."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Hashable
from typing import Any, Protocol, cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, PyTree

from wm_jax import shapes
from wm_jax.evaluation.protocol import ProbeProtocol
from wm_jax.evaluation.readouts import Features
from wm_jax.evaluation.suite import batches, take
from wm_jax.evaluation.world import Clips


class Reader(Protocol):
    """Something whose states are read: n tokens at each moment of the protocol."""

    def __call__(self, clips: Clips) -> Float[np.ndarray, "r s n d"]: ...


class ModelReader:
    """The tokens of a world model's states, and the place of each where they have one.

    ``glimpse``: before every posterior it is shown the last frame alone. Looks lie in a long clip
    as well as in a short one: only the states at their common spacing are kept.
    """

    def __init__(self, model: Any, params: PyTree, protocol: ProbeProtocol, glimpse: bool = False):
        self.params, self.protocol, self.glimpse = params, protocol, glimpse
        self._see, self._imagine = _programs(cast(Hashable, model))

    def __call__(self, clips: Clips) -> Float[np.ndarray, "r s n d"]:
        rules = self.protocol
        key, later = jax.random.split(jax.random.key(rules.seed))
        told = shapes.conditions_for_steps(clips.conditions)
        if self.glimpse:
            cuts = [slice(look - 1, look) for look in rules.looks]
            each = [self._watch(clips, told, cut, key, 1) for cut in cuts]
            seen = jnp.stack([tokens[:, -1] for tokens, _ in each], 1)
            state = each[-1][1]
        else:
            every = math.gcd(*rules.looks, rules.context)
            tokens, state = self._watch(clips, told, slice(0, rules.context), key, every)
            seen = tokens[:, np.array(rules.looks) // every - 1]
        if not rules.ahead:
            return np.asarray(seen, np.float32)
        last = rules.context + rules.ahead[-1]
        ahead = jax.tree.map(lambda x: x[:, rules.context : last], told)
        future = self._imagine(self.params, state, ahead, later)[:, np.array(rules.ahead) - 1]
        return np.asarray(jnp.concatenate([seen, future], 1), np.float32)

    def _watch(self, clips: Clips, told: shapes.Conditions, cut: slice, key: jax.Array, every: int):
        frames, told = jax.tree.map(lambda x: x[:, cut], (clips.frames, told))
        return self._see(every, self.params, frames, told, key)


@functools.lru_cache(maxsize=4)
def _programs(model: Any) -> tuple[Any, Any]:
    """Compiled once for all parameters of a model: trained, random, and shown one frame."""
    see = jax.jit(functools.partial(_see, model), static_argnums=0)
    return see, jax.jit(functools.partial(_imagine, model))


def _placed(state: shapes.LatentState) -> jax.Array:
    tokens, address = state.tokens, state.address
    if address is None:
        return tokens
    address = jnp.broadcast_to(address, (*tokens.shape[:2], 2))
    return jnp.concatenate([tokens, address], -1)


def _see(model: Any, every: int, params: PyTree, frames, told, key):
    """Tokens after each ``every`` frames, and the last state."""

    def observe(state, inputs):
        frame, told_t, key_t = inputs
        return model.step(params, state, told_t, frame.astype(jnp.float32) / 255, key_t), None

    def look(state, inputs):
        state = jax.lax.scan(observe, state, inputs)[0]
        return state, _placed(state)

    inputs = (*shapes.time_major((frames, told)), shapes.step_keys(key, frames.shape[1]))
    parts = jax.tree.map(lambda x: x.reshape(-1, every, *x.shape[1:]), inputs)
    state, tokens = jax.lax.scan(look, model.initial(params, frames.shape[0]), parts)
    return jnp.swapaxes(tokens, 0, 1), state


def _imagine(model: Any, params: PyTree, state, told, key):
    def on(state, inputs):
        told_t, key_t = inputs
        state = model.step(params, state, told_t, None, key_t)
        return state, _placed(state)

    steps = told.actions.mask.shape[1]
    inputs = (shapes.time_major(told), shapes.step_keys(key, steps))
    return jnp.swapaxes(jax.lax.scan(on, state, inputs)[1], 0, 1)


def untrained(model: Any, protocol: ProbeProtocol) -> PyTree:
    """Parameters as they are before the first update."""
    size = protocol.resolution
    frames, flags = jnp.zeros((1, 2, size, size, 3), jnp.uint8), jnp.zeros((1, 2), bool)
    batch = shapes.Batch(frames, flags, ~flags, shapes.no_conditions(1, 2))
    return jax.jit(model.init)(jax.random.key(protocol.seed), batch)


class Projection:
    """What makes features of states: standardised as some first ones are, then projected by one
    random matrix to ``width`` numbers, as is every token that has more."""

    def __init__(self, tokens: Float[np.ndarray, "r s n d"], protocol: ProbeProtocol):
        flat = tokens.reshape(-1, *tokens.shape[2:])
        self.mean = flat.mean(0)
        spread = flat.std(0)
        self.scale = np.maximum(spread, 0.1 * spread.mean() + 1e-6)
        own = flat.std((0, 1))
        self.token_mean = flat.mean((0, 1))
        self.token_scale = np.maximum(own, 0.1 * own.mean() + 1e-6)
        first, second = jax.random.split(jax.random.key(protocol.seed))
        size, width = self.mean.size, protocol.width
        self.matrix = np.asarray(jax.random.normal(first, (size, width))) / np.sqrt(size)
        self.token_matrix = None
        if tokens.shape[-1] > width:
            shape = (tokens.shape[-1], width)
            self.token_matrix = np.asarray(jax.random.normal(second, shape)) / np.sqrt(shape[0])

    def __call__(self, tokens: Float[np.ndarray, "r s n d"]) -> Features:
        """With axes (r, s) in front."""
        whole = ((tokens - self.mean) / self.scale).reshape(*tokens.shape[:2], -1) @ self.matrix
        each = (tokens - self.token_mean) / self.token_scale
        each = each if self.token_matrix is None else each @ self.token_matrix
        return Features(whole.astype(np.float32), each.astype(np.float32))


def features(
    reader: Reader,
    train: Clips,
    test: Clips,
    protocol: ProbeProtocol,
    progress: Callable[[int], None] = lambda clips: None,
) -> tuple[Features, Features]:
    """Of both splits, axes (r, s) in front. ``progress`` is called with the clips that are done."""
    projection, out, done = None, [], 0
    for clips in (train, test):
        parts = []
        for index in batches(clips):
            tokens = reader(filled(take(clips, index)))[: len(index)]
            projection = projection or Projection(tokens, protocol)
            parts.append(projection(tokens))
            done += len(index)
            progress(done)
        out.append(jax.tree.map(lambda *x: np.concatenate(x), *parts))
    return out[0], out[1]


def filled(clips: Clips) -> Clips:
    """To a power of two of clips, so that one program or two serve every batch."""
    count = len(clips.frames)
    more = (1 << (count - 1).bit_length()) - count
    return clips if not more else take(clips, np.concatenate([np.arange(count), [0] * more]))
