"""The contracts of shapes.py: alignment of time, absence, and scan = step."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wm_jax import shapes


@dataclasses.dataclass(frozen=True)
class Recorder:
    """A model that writes down what every step was given: golden values for `encode`, `rollout`.

    The one token is (frames seen, sum of first pixels, last action, last camera, last noise).
    """

    def initial(self, params, batch_size):
        tokens = jnp.zeros((batch_size, 1, 5))
        return shapes.LatentState((), tokens, None, jnp.zeros(batch_size, jnp.int32))

    def step(self, params, state, conditions, frame=None, key=None):
        row = state.tokens[:, 0]
        seen, total = row[:, 0], row[:, 1]
        if frame is not None:
            seen, total = seen + 1, total + frame[:, 0, 0, 0]
        action = jnp.where(conditions.actions.mask, conditions.actions.value[:, 0], -1.0)
        camera = jnp.where(conditions.camera.mask, conditions.camera.value[:, 0], -1.0)
        noise = jnp.zeros_like(seen) if key is None else jax.random.normal(key, seen.shape)
        tokens = jnp.stack([seen, total, action, camera, noise], -1)[:, None]
        return shapes.LatentState((), tokens, None, state.step + 1)

    def decode(self, params, state):
        return jnp.broadcast_to(state.tokens[:, 0, None, None, 2:], (len(state.step), 2, 2, 3))


def told(batch, time):
    """Action ``t`` and camera ``10 + t`` at frame ``t``; nothing else."""
    clock = jnp.broadcast_to(jnp.arange(time, dtype=jnp.float32)[None, :, None], (batch, time, 1))
    conditions = shapes.no_conditions(batch, time)
    here = jnp.ones((batch, time), bool)
    return conditions._replace(
        actions=shapes.Signal(conditions.actions.value + clock, here),
        camera=shapes.Signal(conditions.camera.value + 10 + clock, here),
    )


def test_every_modality_is_absent_by_default_with_its_declared_width():
    conditions = shapes.no_conditions(2, 5)
    for name, size in shapes.CONDITION_SIZES.items():
        signal = getattr(conditions, name)
        assert signal.value.shape == (2, 5, size)
        assert signal.mask.shape == (2, 5)
        assert not signal.mask.any()


def test_actions_and_text_act_one_frame_later_the_rest_does_not():
    conditions = told(1, 4)
    shifted = shapes.conditions_for_steps(conditions)
    assert shifted.actions.value[0, :, 0].tolist() == [0, 0, 1, 2]
    assert shifted.actions.mask[0].tolist() == [False, True, True, True]
    assert shifted.camera.value[0, :, 0].tolist() == [10, 11, 12, 13]
    assert shifted.text.mask.shape == (1, 4)


def test_encode_shows_every_frame_once_in_unit_range():
    frames = jnp.full((2, 3, 2, 2, 3), 51, jnp.uint8)
    state = shapes.encode(Recorder(), {}, frames)
    np.testing.assert_allclose(state.tokens[:, 0, :2], [[3, 0.6]] * 2, rtol=1e-6)
    assert state.step.tolist() == [3, 3]


def test_the_last_step_of_a_context_was_told_the_action_before_its_frame():
    state = shapes.encode(Recorder(), {}, jnp.zeros((1, 4, 2, 2, 3), jnp.uint8), told(1, 4))
    assert state.tokens[0, 0, 2:4].tolist() == [2.0, 13.0]


def test_horizon_step_one_is_the_frame_after_the_context():
    """With C context frames, horizon step 1 is frame C: it takes action C-1 and camera C."""
    context, horizon = 4, 3
    conditions = told(1, context + horizon)
    head = jax.tree.map(lambda x: x[:, :context], conditions)
    state = shapes.encode(Recorder(), {}, jnp.zeros((1, context, 2, 2, 3), jnp.uint8), head)
    ahead = jax.tree.map(lambda x: x[:, context:], shapes.conditions_for_steps(conditions))
    future = shapes.rollout(Recorder(), {}, state, horizon, ahead)
    assert future.frames.shape == (1, 3, 2, 2, 3)
    assert future.frames[0, :, 0, 0, :2].tolist() == [[3, 14], [4, 15], [5, 16]]
    assert future.state.tokens[0, 0, 0] == context, "imagining sees no frame"


def test_a_scan_draws_the_noise_that_single_steps_would():
    key = jax.random.key(7)
    state = Recorder().initial({}, 2)
    future = shapes.rollout(Recorder(), {}, state, 5, key=key)
    expected = [jax.random.normal(jax.random.fold_in(key, t), (2,)) for t in range(5)]
    np.testing.assert_array_equal(future.frames[:, :, 0, 0, 2], jnp.stack(expected, 1))


@pytest.mark.parametrize("offset", [0, 3])
def test_step_keys_can_start_anywhere(offset):
    key = jax.random.key(1)
    keys = shapes.step_keys(key, 2, offset)
    assert keys[1] == jax.random.fold_in(key, offset + 1)
    assert shapes.step_keys(None, 2) is None


def test_a_state_is_forked_by_copying():
    state = Recorder().initial({}, 1)
    step = shapes.at_time(shapes.no_conditions(1, 1), 0)
    first = Recorder().step({}, state, step, jnp.ones((1, 2, 2, 3)))
    again = Recorder().step({}, state, step, jnp.ones((1, 2, 2, 3)))
    jax.tree.map(np.testing.assert_array_equal, first, again)
    assert state.step.tolist() == [0]


def test_time_major_is_its_own_inverse():
    tree = {"a": jnp.arange(24).reshape(2, 3, 4), "b": jnp.arange(6).reshape(2, 3)}
    assert shapes.time_major(tree)["a"].shape == (3, 2, 4)
    back = shapes.time_major(shapes.time_major(tree))
    jax.tree.map(np.testing.assert_array_equal, tree, back)


def test_what_was_said_before_a_stream_began_is_absent_from_its_steps():
    told = shapes.no_conditions(1, 4)
    told = told._replace(actions=told.actions._replace(mask=jnp.ones((1, 4), bool)))
    is_first = jnp.array([[True, False, True, False]])
    aligned = shapes.conditions_for_steps(told, is_first)
    assert aligned.actions.mask.tolist() == [[False, True, False, True]]
