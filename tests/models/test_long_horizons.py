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
    return jnp.asarray(frames)


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


def windows(number, key, length, consecutive):
    """Batch ``number``: windows drawn at random, or those after batch ``number - 1``."""
    if consecutive:
        start = jnp.full(STREAMS, number * length % LENGTH)
        episode = (jnp.arange(STREAMS) + STREAMS * (number * length // LENGTH)) % EPISODES
    else:
        start = jax.random.randint(key, (STREAMS,), 0, LENGTH - length + 1)
        episode = jax.random.randint(jax.random.fold_in(key, 1), (STREAMS,), 0, EPISODES)
    at = start[:, None] + jnp.arange(length)
    is_first = (at == 0) if consecutive else jnp.arange(length)[None] == 0
    is_first = jnp.broadcast_to(is_first, at.shape)
    mask, told = jnp.ones(at.shape, bool), shapes.no_conditions(*at.shape)
    return shapes.Batch(episodes()[episode[:, None], at], is_first, mask, told)


def learn(length=8, consecutive=False, carry=False, **loss):
    """The model, its weights, and its loss terms (means) at each update."""
    model, optimizer = build(**loss), optax.chain(optax.clip_by_global_norm(1.0), optax.adam(3e-3))

    def update(state, number):
        params, moments, before = state
        key = jax.random.fold_in(jax.random.key(1), number)
        batch = windows(number, key, length, consecutive)
        compute = jax.value_and_grad(model.loss_from, has_aux=True)
        arguments = (batch, jax.random.fold_in(key, 2), None, before if carry else None)
        (_, (terms, after)), gradient = compute(params, *arguments)
        direction, moments = optimizer.update(gradient, moments)
        state = (optax.apply_updates(params, direction), moments, after)
        return state, {name: term.mean() for name, term in terms.items()}

    @jax.jit
    def run():
        params = model.init(jax.random.key(0), windows(0, jax.random.key(0), length, False))
        start = (params, optimizer.init(params), model.begin(STREAMS))
        (params, *_), terms = jax.lax.scan(update, start, jnp.arange(UPDATES))
        return params, terms

    return model, *run()


@functools.cache
def open_loop(**loss):
    """Squared error of a frame predicted 1, 2, … frames after the context, far past the window."""
    model, params, terms = learn(**loss)
    frames = episodes()
    state = shapes.encode(model, params, frames[:, :CONTEXT])
    future = shapes.rollout(model, params, state, LENGTH - CONTEXT).frames
    error = squared_error(future, frames[:, CONTEXT:].astype(jnp.float32) / 255)
    return np.asarray(error.mean(0)), jax.tree.map(np.asarray, terms)


def test_overshooting_holds_the_future():
    plain, _ = open_loop()
    ahead, terms = open_loop(overshoot_steps=6, overshoot_frames=0.5)
    print("overshoot", plain[[0, 3, 7, 15, 27]], ahead[[0, 3, 7, 15, 27]])
    assert ahead[3:].mean() < 0.8 * plain[3:].mean()
    assert terms["overshoot_frames"][-30:].mean() < 0.5 * terms["overshoot_frames"][:30].mean()


def test_a_closed_loop_holds_the_future():
    plain, _ = open_loop()
    closed, _ = open_loop(context="random")
    print("closed", plain[[0, 3, 7, 15, 27]], closed[[0, 3, 7, 15, 27]])
    assert closed[3:].mean() < 0.8 * plain[3:].mean()


def test_noise_on_the_context_does_no_harm():
    plain, _ = open_loop()
    noisy, _ = open_loop(context_noise=0.5)
    print("noise", plain[[0, 3, 7, 15, 27]], noisy[[0, 3, 7, 15, 27]])
    assert noisy.mean() < 1.1 * plain.mean()


def test_a_carried_state_remembers_what_no_window_shows():
    """One frame of each window is shown, so within one it cannot be seen which way a pixel goes."""
    shown = {"context": "random", "context_low": 1, "context_high": 1}
    end = {}
    for carry in (False, True):
        _, _, terms = learn(length=4, consecutive=True, carry=carry, **shown)
        end[carry] = float(terms["prior"][-64:].mean())
    print("carry", end)
    assert end[True] < 0.8 * end[False]
