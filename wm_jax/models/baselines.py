"""Two models without learning, behind the same `step` as every other: a floor and the truth.

`CopyLast` knows nothing of motion; `TrueSimulator` is told the true state and knows everything.
"""

from __future__ import annotations

import dataclasses
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, PyTree, UInt8

from wm_jax.shapes import Conditions, LatentState, PRNGKey


@dataclasses.dataclass(frozen=True)
class CopyLast:
    """Predicts that nothing moves: the last frame seen, for ever. ``size`` is (height, width)."""

    size: tuple[int, int]

    def initial(self, params: PyTree, batch_size: int) -> LatentState:
        pixels = self.size[0] * self.size[1] * 3
        tokens = jnp.zeros((batch_size, 1, pixels))
        return LatentState((), tokens, None, jnp.zeros(batch_size, jnp.int32))

    def step(
        self,
        params: PyTree,
        state: LatentState,
        conditions: Conditions,
        frame: Float[Array, "b h w c"] | None = None,
        key: PRNGKey | None = None,
    ) -> LatentState:
        tokens = state.tokens if frame is None else frame.reshape(state.tokens.shape)
        return state._replace(tokens=tokens, step=state.step + 1)

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
