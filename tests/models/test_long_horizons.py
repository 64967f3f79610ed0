"""A toy world learned with each knob for long horizons: what it is for gets better, or no worse.

A pixel walks to the left or to the right along its row, and comes back in at the other end.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from wm_jax import models, shapes
from wm_jax.config import base_config, change
from wm_jax.losses import squared_error

SIZE, EPISODES, LENGTH, STREAMS, UPDATES, CONTEXT = 8, 16, 32, 8, 300, 4

pytestmark = pytest.mark.slow


@functools.cache
def episodes():
    frames = np.zeros((EPISODES, LENGTH, SIZE, SIZE, 3), np.uint8)
    for i in range(EPISODES):
        at = (3 * i + np.arange(LENGTH) * (1 if i % 2 else -1)) % SIZE
        frames[i, np.arange(LENGTH), i // 2, at] = 255
    return frames


def build(**loss):
    settings = {
        "model.resolution": SIZE,
        "model.patch": 4,
        "model.embed": 32,
        "model.decoder_hidden": 32,
        "model.dynamics.width": 32,
        "model.dynamics.hidden": 32,
        "model.loss.context": "all",
    }
    settings |= {f"model.loss.{key}": value for key, value in loss.items()}
    return models.build(change(base_config("grid_gru"), settings).model)


def windows(key, length=8):
    """Windows drawn at random."""
    start = jax.random.randint(key, (STREAMS,), 0, LENGTH - length + 1)
    episode = jax.random.randint(jax.random.fold_in(key, 1), (STREAMS,), 0, EPISODES)
    at = start[:, None] + jnp.arange(length)
    is_first = jnp.broadcast_to(jnp.arange(length) == 0, at.shape)
    mask, told = jnp.ones(at.shape, bool), shapes.no_conditions(*at.shape)
    return shapes.Batch(jnp.asarray(episodes())[episode[:, None], at], is_first, mask, told)


def learn(**loss):
    """The model, its weights, and its loss terms at each update (means)."""
    model, optimizer = build(**loss), optax.chain(optax.clip_by_global_norm(1.0), optax.adam(3e-3))

    def update(state, number):
        params, moments = state
        key = jax.random.fold_in(jax.random.key(1), number)
        compute = jax.value_and_grad(model.loss, has_aux=True)
        (_, terms), gradient = compute(params, windows(key), jax.random.fold_in(key, 2))
        direction, moments = optimizer.update(gradient, moments)
        state = (optax.apply_updates(params, direction), moments)
        return state, {name: term.mean() for name, term in terms.items()}

    @jax.jit
    def run():
        params = model.init(jax.random.key(0), windows(jax.random.key(0)))
        state, terms = jax.lax.scan(update, (params, optimizer.init(params)), jnp.arange(UPDATES))
        return state[0], terms

    return model, *run()


@functools.cache
def open_loop(**loss):
    """Squared error of a frame predicted 1, 2, … frames after the context, far past the window."""
    model, params, terms = learn(**loss)

    @jax.jit
    def judge(params, frames):
        state = shapes.encode(model, params, frames[:, :CONTEXT])
        future = shapes.rollout(model, params, state, LENGTH - CONTEXT).frames
        return squared_error(future, frames[:, CONTEXT:].astype(jnp.float32) / 255).mean(0)

    return np.asarray(judge(params, episodes())), jax.tree.map(np.asarray, terms)


def test_overshooting_holds_the_future():
    plain, _ = open_loop()
    ahead, terms = open_loop(overshoot_steps=6, overshoot_frames=0.5)
    assert ahead[3:].mean() < 0.8 * plain[3:].mean()
    error = terms["overshoot_frames"]
    assert error[-30:].mean() < 0.5 * error[:30].mean()


def test_a_closed_loop_holds_the_future():
    plain, _ = open_loop()
    closed, _ = open_loop(context="random")
    assert closed[3:].mean() < 0.8 * plain[3:].mean()


def test_noise_on_the_context_helps_as_far_as_windows_reach():
    """From the fourth step, where the model reads what it made, to the window's eighth; past that
    it guards against nothing in this world, and drifts sooner."""
    plain, _ = open_loop()
    noisy, _ = open_loop(context_noise=0.5)
    assert noisy[3:8].mean() < 0.95 * plain[3:8].mean()
