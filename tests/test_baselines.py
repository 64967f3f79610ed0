"""Copy-last and the true simulator behind the one `step`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wm_jax import shapes
from wm_jax.models.baselines import CopyLast, TrueSimulator

SIZE = (8, 8)


class BouncingDot:
    """One white pixel on black between walls at 0 and 7; the scene is (x, velocity)."""

    def advance(self, scene, actions):
        x, velocity = scene[:, 0] + scene[:, 1] + actions[:, 0], scene[:, 1]
        bounced = (x < 0) | (x > 7)
        x = np.where(x < 0, -x, np.where(x > 7, 14 - x, x))
        return np.stack([x, np.where(bounced, -velocity, velocity)], 1)

    def render(self, scene):
        frames = np.zeros((len(scene), *SIZE, 3), np.uint8)
        frames[np.arange(len(scene)), 3, scene[:, 0].astype(int)] = 255
        return frames


def film(scene, steps):
    """Frames (b, steps, h, w, 3) of the dot, by the simulator alone."""
    dot, frames = BouncingDot(), []
    for _ in range(steps):
        frames.append(dot.render(scene))
        scene = dot.advance(scene, np.zeros((len(scene), 2)))
    return np.stack(frames, 1)


SCENE = np.array([[0.0, 1.0], [5.0, 1.0], [3.0, -2.0]], np.float32)


def predict(model, params, frames, context):
    state = shapes.encode(model, params, frames[:, :context])
    future = shapes.rollout(model, params, state, frames.shape[1] - context)
    return np.round(np.asarray(future.frames) * 255).astype(np.uint8), future.state


def test_copy_last_repeats_the_last_frame():
    frames = film(SCENE, 9)
    future, state = predict(CopyLast(SIZE), {}, frames, 4)
    np.testing.assert_array_equal(future, np.repeat(frames[:, 3:4], 5, axis=1))
    assert state.step.tolist() == [9, 9, 9]


def test_true_simulator_continues_the_film_exactly():
    frames = film(SCENE, 30)
    future, _ = predict(TrueSimulator(BouncingDot(), SIZE), {"scene": SCENE}, frames, 6)
    np.testing.assert_array_equal(future, frames[:, 6:])


def test_true_simulator_hears_actions_one_frame_later():
    model, still = TrueSimulator(BouncingDot(), SIZE), np.array([[2.0, 0.0]], np.float32)
    conditions = shapes.no_conditions(1, 4)
    pushed = conditions.actions.value.at[0, 1, 0].set(3.0)
    told = conditions._replace(actions=shapes.Signal(pushed, jnp.ones((1, 4), bool)))
    params = {"scene": still}
    state = model.initial(params, 1)
    positions = []
    for t in range(4):
        now = shapes.at_time(shapes.conditions_for_steps(told), t)
        state = model.step(params, state, now)
        positions.append(float(state.carry[0, 0]))
    assert positions == [2.0, 2.0, 5.0, 5.0]


def test_true_simulator_refuses_a_batch_it_was_not_told_about():
    with pytest.raises(ValueError, match="3 true scenes for a batch of 2"):
        TrueSimulator(BouncingDot(), SIZE).initial({"scene": SCENE}, 2)


@pytest.mark.parametrize(
    "model, params",
    [
        (CopyLast(SIZE), {}),
        (TrueSimulator(BouncingDot(), SIZE), {"scene": SCENE}),
    ],
    ids=["copy_last", "true_simulator"],
)
def test_scanned_rollout_equals_single_steps(model, params):
    frames = film(SCENE, 10)
    scanned, _ = predict(model, params, frames, 4)
    state, single = model.initial(params, 3), []
    told = shapes.at_time(shapes.no_conditions(3, 1), 0)
    step = jax.jit(model.step)
    for t in range(10):
        frame = jnp.asarray(frames[:, t], jnp.float32) / 255 if t < 4 else None
        state = step(params, state, told, frame)
        single.append(np.round(np.asarray(model.decode(params, state)) * 255))
    np.testing.assert_array_equal(scanned, np.stack(single, 1)[:, 4:])
