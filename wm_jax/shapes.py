"""The contracts: every array that crosses a module's border, with its axes.

Axis glossary (one letter each, used in signatures and as suffixes in dense math):

  b  batch                          t  time (frames)
  h, w  image height, width (px)    c  colour channels (RGB)
  n  tokens of a state: cells of a grid, slots, or 1 for a vector
  d  features                       a  action dimensions
  s  audio samples a frame          e  text embedding dimensions

Time. ``frames[t]`` is rendered; then interventions at ``t`` apply; then ``actions[t]`` act between
``t`` and ``t + 1``; ``audio[t]`` covers ``(t - 1, t]``. With C context frames, frame C is horizon
step 1. A *step* carries a state from ``t - 1`` to ``t``, so it consumes ``actions[t - 1]``,
``discrete_actions[t - 1]``, ``text[t - 1]`` and ``intervention[t - 1]``, and the ``camera[t]``,
``light[t]`` and ``audio[t]`` that hold at its end: `conditions_for_steps` does that shift, once,
for everybody.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Int32, PyTree, UInt8

from wm_jax.errors import UserError

PRNGKey = jax.Array

#: Width of each modality's vector. One table, so that every batch and export has the same tree.
#: ``discrete_actions`` is which of up to `CHOICES` things is done, from 0; ``text`` is the ids of
#: up to 32 words (`wm_jax.words`), or an embedding of 32 numbers from elsewhere; ``intervention``
#: is a change as `wm_jax.edit.as_vector` writes it.
CONDITION_SIZES = {
    "actions": 2,
    "discrete_actions": 1,
    "text": 32,
    "audio": 16,
    "camera": 3,
    "light": 3,
    "intervention": 24,
}
#: Most discrete actions that a model can be told apart.
CHOICES = 32
#: Said of a frame, they act on the step that leaves it; the others hold at the end of a step.
ACT_NEXT = ("actions", "discrete_actions", "text", "intervention")
#: Said once, at a moment, to change what happens: what guidance strengthens. No data set's episode
#: goes on saying it.
SAID = ("text", "intervention")


class Signal(NamedTuple):
    """One modality: a value and whether it is there. ``mask`` False means *absent*, not zero."""

    value: Float[Array, "*lead k"]
    mask: Bool[Array, "*lead"]


class Conditions(NamedTuple):
    """Everything the world is told besides frames. A fixed tree; absent modalities are masked."""

    actions: Signal
    discrete_actions: Signal
    text: Signal
    audio: Signal
    camera: Signal
    light: Signal
    intervention: Signal


class Paraphrases(NamedTuple):
    """Changes of no scene, one a frame, each said twice: ``text`` and ``intervention`` as in
    `Conditions`. See `data_pipelines.twins.paraphrases`."""

    text: Float[Array, "b t 32"]
    intervention: Float[Array, "b t 24"]


class Batch(NamedTuple):
    """Windows of episodes, as training sees them. ``mask`` is False on padding.

    Reward to readout are there where a head learns from them (`HEAD_FIELDS`), else None.
    ``readout`` holds whatever numbers an agent wants to read off a state. ``followed``: what the
    dynamics made of the frames before (`wm_jax.remembered`), by name, each (b, t, …).
    ``paraphrases``: see there.
    """

    frames: UInt8[Array, "b t h w c"]
    is_first: Bool[Array, "b t"]
    mask: Bool[Array, "b t"]
    conditions: Conditions
    reward: Float[Array, "b t"] | None = None
    is_terminal: Bool[Array, "b t"] | None = None
    readout: Float[Array, "b t r"] | None = None
    followed: dict[str, Array] | None = None
    paraphrases: Paraphrases | None = None


#: Head -> field of an episode that it learns to predict; see `wm_jax.models.heads`.
HEAD_FIELDS = {
    "reward": "reward",
    "continue": "is_terminal",
    "audio": "audio",
    "readout": "readout",
}


class LatentState(NamedTuple):
    """The scene at one moment. Forking is copying; the size never depends on time.

    carry:    any pytree, the recurrent state
    tokens:   (b, n, d) what a decoder or a read-out looks at
    address:  (n, 2), or (b, n, 2) where tokens move: place of each token in the frame, in [0, 1],
              x then y; None for a vector state
    step:     (b,) int32 frames since the start of the stream
    pending:  conditions that wait for the next step (an edit fills them), or None
    """

    carry: PyTree
    tokens: Float[Array, "b n d"]
    address: Float[Array, "*b n 2"] | None
    step: Int32[Array, " b"]
    pending: Conditions | None = None


class Rollout(NamedTuple):
    """A future: the state after its last step and the decoded frames in [0, 1]."""

    state: LatentState
    frames: Float32[Array, "b t h w c"]


@runtime_checkable
class WorldModel(Protocol):
    """What every model is to the rest of the code: pure functions of ``params``.

    A model from outside implements `encode`, `step` and `decode`; `rollout` follows.
    """

    def initial(self, params: PyTree, batch_size: int) -> LatentState: ...

    def step(
        self,
        params: PyTree,
        state: LatentState,
        conditions: Conditions,
        frame: Float[Array, "b h w c"] | None = None,
        key: PRNGKey | None = None,
    ) -> LatentState:
        """One frame on. With ``frame`` ([0, 1]) it observes, without one it imagines."""
        ...

    def decode(self, params: PyTree, state: LatentState) -> Float[Array, "b h w c"]:
        """The state as frames in [0, 1]."""
        ...


def no_conditions(*lead: int) -> Conditions:
    """All modalities absent, with leading axes ``lead`` (for example batch, time)."""

    def absent(size: int) -> Signal:
        return Signal(jnp.zeros((*lead, size)), jnp.zeros(lead, bool))

    return Conditions(**{name: absent(size) for name, size in CONDITION_SIZES.items()})


def check_choices(actions: Any, whose: str) -> None:
    """Raises `UserError` for discrete actions that no model can be told."""
    wrong = [x for x in np.unique(np.asarray(actions)) if x not in range(CHOICES)]
    if wrong:
        raise UserError(
            f"discrete_actions {whose} have {wrong[0]:g}; they are whole numbers from 0 to "
            f"{CHOICES - 1}."
        )


def conditions_for_steps(
    conditions: Conditions,
    is_first: Bool[Array, "b t"] | None = None,
    before: Conditions | None = None,
) -> Conditions:
    """Aligns (b, t, …) conditions of frames to the steps that produce those frames.

    Those of `ACT_NEXT` move one frame later; the others stay. See the module's paragraph on time.
    The first step's are those of the frame ``before`` (b, …); absent if None. What was said before
    a stream began (``is_first``) is absent from its steps.
    """

    def later(name: str) -> Signal:
        signal = getattr(conditions, name)
        if before is None:
            first = jax.tree.map(lambda x: jnp.zeros_like(x[:, :1]), signal)
        else:
            first = jax.tree.map(lambda x: x[:, None], getattr(before, name))
        value, mask = jax.tree.map(
            lambda a, b: jnp.concatenate([a, b[:, :-1]], 1), tuple(first), tuple(signal)
        )
        return Signal(value, mask if is_first is None else mask & ~is_first)

    return conditions._replace(**{name: later(name) for name in ACT_NEXT})


def with_pending(conditions: Conditions, pending: Conditions) -> Conditions:
    """What is told, and where that is nothing, what is pending."""

    def choose(new: Signal, old: Signal) -> Signal:
        return Signal(jnp.where(new.mask[..., None], new.value, old.value), new.mask | old.mask)

    return Conditions(*(choose(*both) for both in zip(conditions, pending, strict=True)))


def at_time(tree: PyTree, t: Any) -> PyTree:
    """Slice ``t`` of every (b, t, …) leaf."""
    return jax.tree.map(lambda x: x[:, t], tree)


def time_major(tree: PyTree) -> PyTree:
    """(b, t, …) ↔ (t, b, …) on every leaf, as `jax.lax.scan` wants it."""
    return jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), tree)


def step_keys(key: PRNGKey | None, steps: int, offset: int = 0) -> PRNGKey | None:
    """``fold_in(key, t)`` for each of ``steps`` times: a scan draws what single steps would."""
    if key is None:
        return None
    return jax.vmap(lambda t: jax.random.fold_in(key, t))(jnp.arange(offset, offset + steps))


def encode(
    model: WorldModel,
    params: PyTree,
    frames: UInt8[Array, "b t h w c"],
    conditions: Conditions | None = None,
    key: PRNGKey | None = None,
) -> LatentState:
    """Context frames to a state: a scan of observing steps from `initial`.

    ``conditions`` are those of the frames (b, t, …), unshifted.
    """
    batch, time = frames.shape[:2]
    told = conditions_for_steps(no_conditions(batch, time) if conditions is None else conditions)

    def observe(state, inputs):
        frame, told_t, key_t = inputs
        return model.step(params, state, told_t, frame.astype(jnp.float32) / 255, key_t), None

    inputs = (*time_major((frames, told)), step_keys(key, time))
    return jax.lax.scan(observe, model.initial(params, batch), inputs)[0]


def rollout(
    model: WorldModel,
    params: PyTree,
    state: LatentState,
    steps: int,
    conditions: Conditions | None = None,
    key: PRNGKey | None = None,
) -> Rollout:
    """A future of ``steps`` frames: a scan of imagining steps, each decoded.

    ``conditions`` (b, steps, …) are aligned to steps already (see `conditions_for_steps`).
    """
    batch = state.step.shape[0]
    told = no_conditions(batch, steps) if conditions is None else conditions

    def imagine(state, inputs):
        told_t, key_t = inputs
        state = model.step(params, state, told_t, None, key_t)
        return state, model.decode(params, state)

    state, frames = jax.lax.scan(imagine, state, (time_major(told), step_keys(key, steps)))
    return Rollout(state, jnp.swapaxes(frames, 0, 1).astype(jnp.float32))


StepFunction = Callable[..., LatentState]
