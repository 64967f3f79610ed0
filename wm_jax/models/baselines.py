"""Models without learning, behind the same `step` as every other: the floor and the ceiling.

`CopyLast`, `MeanImage` and `ContextMedian` know nothing of motion; `TrueSimulator` is told the true
state and knows everything. None reads the conditions, but for the simulator, which takes actions.
"""

from __future__ import annotations

import dataclasses
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, PyTree, UInt8

from wm_jax.shapes import Conditions, LatentState, PRNGKey


def _as_state(carry: PyTree, picture: Float[Array, "b h w c"], step: Array) -> LatentState:
    """A state whose one token is the picture that `decode` shows."""
    return LatentState(carry, picture.reshape(picture.shape[0], 1, -1), None, step)


@dataclasses.dataclass(frozen=True)
class CopyLast:
    """Predicts that nothing moves: the last frame seen, for ever. ``size`` is (height, width)."""

    size: tuple[int, int]

    def initial(self, params: PyTree, batch_size: int) -> LatentState:
        picture = jnp.zeros((batch_size, *self.size, 3))
        return _as_state((), picture, jnp.zeros(batch_size, jnp.int32))

    def step(
        self,
        params: PyTree,
        state: LatentState,
        conditions: Conditions,
        frame: Float[Array, "b h w c"] | None = None,
        key: PRNGKey | None = None,
    ) -> LatentState:
        picture = self.decode(params, state) if frame is None else frame
        return _as_state((), picture, state.step + 1)

    def decode(self, params: PyTree, state: LatentState) -> Float[Array, "b h w c"]:
        return state.tokens.reshape(-1, *self.size, 3)


@dataclasses.dataclass(frozen=True)
class MeanImage:
    """Predicts the training set's mean image, ``params["image"]`` (h, w, 3) in [0, 1]."""

    size: tuple[int, int]

    def initial(self, params: PyTree, batch_size: int) -> LatentState:
        picture = jnp.broadcast_to(params["image"], (batch_size, *self.size, 3))
        return _as_state((), picture, jnp.zeros(batch_size, jnp.int32))

    def step(
        self,
        params: PyTree,
        state: LatentState,
        conditions: Conditions,
        frame: Float[Array, "b h w c"] | None = None,
        key: PRNGKey | None = None,
    ) -> LatentState:
        return state._replace(step=state.step + 1)

    def decode(self, params: PyTree, state: LatentState) -> Float[Array, "b h w c"]:
        return state.tokens.reshape(-1, *self.size, 3)


@dataclasses.dataclass(frozen=True)
class ContextMedian:
    """Predicts each pixel's median over the last ``window`` frames seen (fewer, if fewer were)."""

    size: tuple[int, int]
    window: int

    def initial(self, params: PyTree, batch_size: int) -> LatentState:
        seen = jnp.full((batch_size, self.window, *self.size, 3), jnp.nan)
        return _as_state(seen, jnp.zeros_like(seen[:, 0]), jnp.zeros(batch_size, jnp.int32))

    def step(
        self,
        params: PyTree,
        state: LatentState,
        conditions: Conditions,
        frame: Float[Array, "b h w c"] | None = None,
        key: PRNGKey | None = None,
    ) -> LatentState:
        if frame is None:
            return state._replace(step=state.step + 1)
        seen = jnp.concatenate([state.carry[:, 1:], frame[:, None]], axis=1)
        return _as_state(seen, jnp.nanmedian(seen, axis=1), state.step + 1)

    def decode(self, params: PyTree, state: LatentState) -> Float[Array, "b h w c"]:
        return state.tokens.reshape(-1, *self.size, 3)


@runtime_checkable
class Simulator(Protocol):
    """A world that can be stepped from a vector: the interface behind which a simulator hides.

    Both functions work on numpy arrays and are pure: the same vector gives the same answer.
    """

    def advance(
        self, scene: Float32[np.ndarray, "b k"], actions: Float32[np.ndarray, "b a"]
    ) -> Float32[np.ndarray, "b k"]:
        """The scenes one frame later, while ``actions`` act."""
        ...

    def render(self, scene: Float32[np.ndarray, "b k"]) -> UInt8[np.ndarray, "b h w 3"]:
        """The scenes as frames."""
        ...


@dataclasses.dataclass(frozen=True)
class TrueSimulator:
    """The world itself as a model: ``params["scene"]`` (b, k) is the true state at the first frame.

    Frames are not looked at; they only pass time. So an encoded context followed by a rollout must
    give the true future, which is what makes this model a test of everything around it.
    """

    simulator: Simulator
    size: tuple[int, int]

    def initial(self, params: PyTree, batch_size: int) -> LatentState:
        scene = jnp.asarray(params["scene"], jnp.float32)
        if scene.shape[0] != batch_size:
            raise ValueError(f"Told {scene.shape[0]} true scenes for a batch of {batch_size}.")
        return LatentState(scene, scene[:, None], None, jnp.zeros(batch_size, jnp.int32))

    def step(
        self,
        params: PyTree,
        state: LatentState,
        conditions: Conditions,
        frame: Float[Array, "b h w c"] | None = None,
        key: PRNGKey | None = None,
    ) -> LatentState:
        actions = jnp.where(conditions.actions.mask[:, None], conditions.actions.value, 0.0)
        like = jax.ShapeDtypeStruct(state.carry.shape, jnp.float32)
        later = jax.pure_callback(self._advance, like, state.carry, actions)
        # The first step arrives at the first frame, whose scene is the one that was told.
        arrived: Bool[Array, " b"] = state.step > 0
        scene = jnp.where(arrived[:, None], later, state.carry)
        return LatentState(scene, scene[:, None], None, state.step + 1)

    def decode(self, params: PyTree, state: LatentState) -> Float[Array, "b h w c"]:
        like = jax.ShapeDtypeStruct((state.carry.shape[0], *self.size, 3), jnp.uint8)
        frames = jax.pure_callback(self._render, like, state.carry)
        return frames.astype(jnp.float32) / 255

    def _advance(self, scene: Array, actions: Array) -> np.ndarray:
        later = self.simulator.advance(np.asarray(scene), np.asarray(actions))
        return np.asarray(later, np.float32)

    def _render(self, scene: Array) -> np.ndarray:
        return np.asarray(self.simulator.render(np.asarray(scene)), np.uint8)
