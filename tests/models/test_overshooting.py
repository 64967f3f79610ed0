"""Overshooting: blind steps from a random state, compared with what was seen later."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.models.quick import quick_jit
from tests.models.test_dynamics_contract import NO_RESET, B, Case, T
from wm_jax.models import overshooting
from wm_jax.models.dynamics import DYNAMICS
from wm_jax.models.dynamics.contract import Output
from wm_jax.models.dynamics.stepwise import Stepwise
from wm_jax.models.overshooting import overshoot

FACTOR, STEPS, FRAMES, STREAMS = 0.5, 3, 8, 64


class Halving(Stepwise):
    """x ← x / 2, or the embedding where one is seen. ``surprise`` gives it a KL: |x / 2 − seen|."""

    surprise: bool = False

    def initial(self, batch_size):
        return jnp.zeros((batch_size, 1, 1))

    @nn.compact
    def step(self, carry, embedding, observed, told, key):
        factor = self.param("factor", nn.initializers.constant(FACTOR), ())
        prior = factor * carry
        terms = {}
        tokens = prior if embedding is None else embedding
        if self.surprise:
            off = jnp.abs(tokens - prior).sum((1, 2))
            terms = {"kl_dyn": off, "kl_rep": 100 * off}
        return tokens, Output(tokens, prior, terms)


RANDOM = np.random.default_rng(0)
EMBEDDINGS = jnp.asarray(RANDOM.normal(size=(STREAMS, FRAMES, 1, 1)), jnp.float32)
TOLD = jnp.zeros((STREAMS, FRAMES, 1))


@functools.partial(quick_jit, static_argnames=("surprise", "steps"))
def shoot(embeddings=EMBEDDINGS, is_first=None, surprise=False, steps=STEPS):
    is_first = jnp.zeros((STREAMS, FRAMES), bool) if is_first is None else is_first
    variables = {"params": {"factor": jnp.asarray(FACTOR)}}
    inputs = (embeddings, TOLD, is_first, jax.random.key(0), steps)
    return Halving((1, 1), surprise).apply(variables, *inputs, method=overshoot)


def test_the_error_is_that_of_blind_steps():
    shot = shoot()
    seen, at = np.asarray(EMBEDDINGS[..., 0, 0]), np.asarray(shot.at)
    stream = np.arange(STREAMS)[:, None]
    guess = seen[stream, at[:, :1] - 1] * FACTOR ** np.arange(1, STEPS + 1)
    np.testing.assert_allclose(shot.tokens[..., 0, 0], guess, rtol=1e-5)
    np.testing.assert_allclose(shot.error, (guess - seen[stream, at]) ** 2, rtol=1e-4, atol=1e-6)
    assert shot.real.all()


def test_starts_are_random_and_lie_in_the_window():
    at = np.asarray(shoot().at)
    assert (np.diff(at, axis=1) == 1).all()
    assert set(at[:, 0]) == set(range(1, FRAMES - STEPS + 1))
    assert shoot(steps=99).at.tolist() == [list(range(1, FRAMES))] * STREAMS


def test_a_kl_is_that_of_a_look_after_blind_steps():
    shot = shoot(surprise=True)
    seen, at = np.asarray(EMBEDDINGS[..., 0, 0]), np.asarray(shot.at)
    stream = np.arange(STREAMS)[:, None]
    guess = seen[stream, at[:, :1] - 1] * FACTOR ** np.arange(1, STEPS + 1)
    np.testing.assert_allclose(shot.error, np.abs(guess - seen[stream, at]), rtol=1e-4, atol=1e-5)


def test_nothing_is_compared_across_a_reset():
    cut = 5
    is_first = jnp.zeros((STREAMS, FRAMES), bool).at[:, cut].set(True)
    shot = shoot(is_first=is_first)
    crosses = (shot.at[:, :1] <= cut) & (shot.at >= cut)
    np.testing.assert_array_equal(shot.real, ~crosses)
    assert not np.any(np.asarray(shot.error)[crosses])
    # A start after the reset knows only frames after it, also where it is the frame before.
    plain = shoot()
    np.testing.assert_array_equal(shot.error[shot.real], plain.error[shot.real])


def test_no_gradient_reaches_what_was_seen_later():
    shot = shoot()
    gradient = jax.grad(lambda x: shoot.__wrapped__(x).error.sum())
    gradient = np.asarray(quick_jit(gradient)(EMBEDDINGS))
    gradient = gradient[..., 0, 0]
    start = np.asarray(shot.at[:, :1])
    frames = np.arange(FRAMES)
    assert not np.any(np.where(frames >= start, gradient, 0))
    assert np.all(np.take_along_axis(gradient, start - 1, 1))


@pytest.mark.parametrize("name", sorted(DYNAMICS))
def test_every_backbone_imagines_what_a_scan_imagines(name, monkeypatch):
    """Blind steps from a start are those of a scan in which no frame is seen from there on."""
    monkeypatch.setattr(overshooting, "step_keys", lambda *_: None)
    case = Case(name, None)
    steps = 2

    def both(variables):
        inputs = (case.embeddings, case.told, NO_RESET)
        arguments = (*inputs, jax.random.key(3), steps)
        shot = case.module.apply(variables, *arguments, method=overshoot)
        observed = jnp.arange(T) < shot.at[:, :1]
        start = (case.start, case.embeddings, observed, case.told, NO_RESET, None)
        _, out = case.module.apply(variables, *start, method="scan")
        return shot, out.tokens[jnp.arange(B)[:, None], shot.at]

    shot, tokens = quick_jit(both)(case.variables)
    np.testing.assert_allclose(shot.tokens, tokens, rtol=1e-4, atol=1e-4)
    assert np.isfinite(shot.error).all() and (np.asarray(shot.error) > 0).any()
