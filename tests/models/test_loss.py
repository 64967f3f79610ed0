"""The loss of a window: knobs for long horizons, and windows that go on from one another."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.models.quick import quick_jit
from wm_jax import models, shapes
from wm_jax.config import base_config, change
from wm_jax.errors import UserError

B, T, SIZE = 2, 6, 8
RANDOM = np.random.default_rng(0)
FRAMES = jnp.asarray(RANDOM.integers(0, 256, (B, 2 * T, SIZE, SIZE, 3), np.uint8))


def build(name="grid_gru", **changes):
    settings = {
        "model.resolution": SIZE,
        "model.patch": 4,
        "model.embed": 8,
        "model.decoder_hidden": 8,
        "model.loss.context": "all",
        "model.modalities": ("actions", "light"),
    }
    small = {"grid_gru": {"width": 8, "hidden": 8}, "rssm": {"deter": 16, "hidden": 8, "stoch": 3}}
    settings |= {f"model.dynamics.{k}": v for k, v in small[name].items()}
    settings |= {f"model.loss.{key}": value for key, value in changes.items()}
    return models.build(change(base_config(name), settings).model)


def windows(begin=0, end=T, resets=()):
    told = shapes.no_conditions(B, 2 * T)
    signal = lambda k: shapes.Signal(  # noqa: E731
        jnp.asarray(np.random.default_rng(k).normal(size=(B, 2 * T, k)), jnp.float32),
        jnp.ones((B, 2 * T), bool),
    )
    told = told._replace(actions=signal(2), light=signal(3))
    is_first = jnp.zeros((B, 2 * T), bool).at[:, 0].set(True)
    for stream, frame in resets:
        is_first = is_first.at[stream, frame].set(True)
    whole = shapes.Batch(FRAMES, is_first, jnp.ones((B, 2 * T), bool), told)
    return jax.tree.map(lambda x: x[:, begin:end], whole)


@pytest.fixture(scope="module")
def params():
    return quick_jit(build().init)(jax.random.key(0), windows())


@pytest.mark.parametrize("resets", [(), ((0, T), (1, T + 2))], ids=["one stream", "resets"])
def test_two_windows_one_after_the_other_are_one_long_window(params, resets):
    """What was seen, imagined and told before the border reaches the second window, or, where it
    starts anew, does not."""
    model, key = build(), jax.random.key(1)
    loss = quick_jit(model.loss_from)
    _, (want, last) = loss(params, windows(0, 2 * T, resets), key, None, model.begin(B))
    _, (one, between) = loss(params, windows(0, T, resets), key, None, model.begin(B))
    _, (two, end) = loss(params, windows(T, 2 * T, resets), key, None, between)
    for name in ("posterior", "prior"):
        got = np.concatenate([one[name], two[name]], 1)
        np.testing.assert_allclose(got, want[name], rtol=1e-4, atol=1e-4)
        assert np.all(got[:, 1:T] > 0)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), end, last)
    _, (fresh, _) = loss(params, windows(T, 2 * T, resets), key, None, model.begin(B))
    same = np.isclose(fresh["prior"], two["prior"], rtol=1e-6)
    assert same[0].all() == bool(resets)  # the first stream starts anew at the border
    assert not same[1, :2].any()


def test_without_a_window_before_nothing_is_predicted_at_first(params):
    model = build()
    _, terms = quick_jit(model.loss)(params, windows(T, 2 * T), jax.random.key(1))
    assert not np.any(terms["prior"][:, 0]) and np.all(terms["prior"][:, 1:] > 0)


def test_overshooting_adds_terms_at_the_frames_it_imagined(params):
    plain, model = build(), build(overshoot_steps=2, overshoot_frames=0.5)
    key = jax.random.key(1)
    before, without = quick_jit(plain.loss)(params, windows(), key)
    total, terms = quick_jit(model.loss)(params, windows(), key)
    assert terms.keys() - without.keys() == {"overshoot", "overshoot_frames"}
    for name, term in without.items():
        np.testing.assert_allclose(terms[name], term, rtol=1e-5)
    for name in ("overshoot", "overshoot_frames"):
        there = np.asarray(terms[name]) > 0
        assert terms[name].shape == (B, T) and there.sum(1).tolist() == [2, 2]
        assert not there[:, 0].any()
    added = terms["overshoot"].mean() + 0.5 * terms["overshoot_frames"].mean()
    np.testing.assert_allclose(total - before, added, rtol=1e-3)


def test_the_scale_of_overshooting_does_not_depend_on_the_steps(params):
    """A mean over steps: blind frames of a constant error weigh the same however many they are."""
    means = {}
    for steps in (1, 4):
        model = build(overshoot_steps=steps, overshoot_frames=1.0)
        _, terms = quick_jit(model.loss)(params, windows(), jax.random.key(1))
        at = np.asarray(terms["overshoot_frames"])
        means[steps] = at.mean(), at[at > 0].mean() * steps / T
    for mean, per_frame in means.values():
        np.testing.assert_allclose(mean, per_frame, rtol=1e-5)


def test_stochastic_latents_are_compared_by_their_kl():
    model = build("rssm", overshoot_steps=3)
    params = quick_jit(model.init)(jax.random.key(0), windows())
    _, terms = quick_jit(model.loss)(params, windows(), jax.random.key(1))
    shown = np.asarray(terms["overshoot"])
    # At first the KL lies below its free nat everywhere; the term is scaled from 3 frames to T.
    np.testing.assert_allclose(shown[shown > 0], T / 3, rtol=1e-5)


def test_noise_on_the_context_is_for_training_only(params):
    plain, model = build(), build(context_noise=0.9)
    key = jax.random.key(1)
    _, clean = quick_jit(plain.loss)(params, windows(), key)
    loss = quick_jit(model.loss)
    _, noisy = loss(params, windows(), key)
    _, other = loss(params, windows(), jax.random.key(2))
    assert not np.isclose(clean["posterior"], noisy["posterior"]).any()
    assert not np.isclose(other["posterior"], noisy["posterior"]).any()
    encode = quick_jit(lambda m: shapes.encode(m, params, FRAMES, None, key), static_argnums=0)
    np.testing.assert_array_equal(encode(plain).tokens, encode(model).tokens)


def test_a_backbone_without_a_carry_is_refused():
    config = change(base_config(), {"model.resolution": 16, "model.dynamics.width": 8})
    with pytest.raises(UserError, match="GridSlots learns from whole windows"):
        models.build(config.model).begin(2)
