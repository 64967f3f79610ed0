"""Optimisers against their formulas, schedules against their shapes."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from wm_jax.config import base_config, change
from wm_jax.optim import (
    clip_to_own_norm,
    held,
    learning_rate,
    make_optimizer,
    scale_by_laprop,
)


def section(**changes):
    return change(base_config(), {f"optim.{k}": v for k, v in changes.items()}).optim


def run(optimizer, gradients, params):
    """Params after the gradients, at a learning rate of 0.1."""
    state, update = optimizer.init(params), jax.jit(optimizer.update)
    for gradient in gradients:
        updates, state = update(gradient, state, params)
        params = optax.apply_updates(params, jax.tree.map(lambda u: 0.1 * u, updates))
    return params


def test_laprop_is_its_published_recursion():
    gradients = np.random.default_rng(0).normal(size=(6, 4))
    m = v = np.zeros(4)
    state = scale_by_laprop(0.9, 0.99, 1e-8).init(jnp.zeros(4))
    for t, g in enumerate(gradients, 1):
        v = 0.99 * v + 0.01 * g**2
        m = 0.9 * m + 0.1 * g / (np.sqrt(v / (1 - 0.99**t)) + 1e-8)
        want = m / (1 - 0.9**t)
        got, state = scale_by_laprop(0.9, 0.99, 1e-8).update(jnp.array(g), state)
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


def test_laprop_stays_bounded_where_adam_does_not():
    """The point of LaProp: when the second moment forgets faster than the first, a spike stays in
    Adam's numerator after it left the denominator."""
    gradients = [jnp.array([100.0])] + [jnp.array([1e-4])] * 25
    largest = {}
    for name in ("laprop", "adamw"):
        optimizer = make_optimizer(section(name=name, clip="none", beta1=0.9, beta2=0.5))
        state, moves = optimizer.init(jnp.zeros(1)), []
        for gradient in gradients:
            updates, state = optimizer.update(gradient, state, jnp.zeros(1))
            moves.append(float(jnp.abs(updates)[0]))
        largest[name] = max(moves)
    assert largest["laprop"] <= 1 / np.sqrt(1 - 0.5)
    assert largest["adamw"] > 5


def test_adamw_is_optax_adamw():
    params = {"w": jnp.ones((3, 2)), "b": jnp.ones(2)}
    keys = jax.random.split(jax.random.PRNGKey(0), 4)
    gradients = [jax.tree.map(lambda p, k=k: jax.random.normal(k, p.shape), params) for k in keys]
    ours = make_optimizer(section(clip="none", weight_decay=0.1))
    theirs = optax.adamw(
        0.1, b2=0.99, weight_decay=0.1, mask=lambda p: jax.tree.map(lambda x: x.ndim > 1, p)
    )
    state, want = theirs.init(params), params
    for gradient in gradients:
        updates, state = theirs.update(gradient, state, want)
        want = optax.apply_updates(want, updates)
    got = run(ours, gradients, params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), got, want)


def test_weight_decay_spares_vectors():
    params = {"w": jnp.ones((3, 2)), "b": jnp.ones(2)}
    zeros = jax.tree.map(jnp.zeros_like, params)
    got = run(make_optimizer(section(weight_decay=0.5)), [zeros], params)
    np.testing.assert_allclose(got["w"], 0.95)
    np.testing.assert_allclose(got["b"], 1.0)


def test_agc_holds_each_tensor_to_its_own_norm():
    params = {"w": jnp.full((2, 2), 2.0), "b": jnp.zeros(2)}
    gradient = {"w": jnp.full((2, 2), 50.0), "b": jnp.array([3.0, 4.0])}
    got, _ = clip_to_own_norm(0.3).update(gradient, optax.EmptyState(), params)
    np.testing.assert_allclose(jnp.linalg.norm(got["w"]), 0.3 * 4.0, rtol=1e-6)
    np.testing.assert_allclose(jnp.linalg.norm(got["b"]), 0.3 * 1e-3, rtol=1e-6)
    small = jax.tree.map(lambda g: 1e-6 * g, gradient)
    got, _ = clip_to_own_norm(0.3).update(small, optax.EmptyState(), params)
    np.testing.assert_array_equal(got["w"], small["w"])


def test_muon_orthogonalises_hidden_matrices_and_leaves_the_rest_to_adam():
    kernel = jnp.zeros((3, 3, 4, 8))
    params = {
        "dynamics": {"conv": {"kernel": kernel, "bias": jnp.zeros(8)}},
        "encoder": {"kernel": jnp.zeros((4, 8))},
    }
    key = jax.random.PRNGKey(0)
    gradient = jax.tree.map(lambda p: jax.random.normal(key, p.shape), params)
    muon = make_optimizer(section(name="muon", clip="none"))
    adam = make_optimizer(section(name="adamw", clip="none"))
    got, plain = (run(o, [gradient], params) for o in (muon, adam))
    np.testing.assert_allclose(got["encoder"]["kernel"], plain["encoder"]["kernel"], rtol=1e-6)
    bias, want = (tree["dynamics"]["conv"]["bias"] for tree in (got, plain))
    np.testing.assert_allclose(bias, want, rtol=1e-6)
    matrix = np.asarray(got["dynamics"]["conv"]["kernel"]).reshape(36, 8)
    singular = np.linalg.svd(matrix, compute_uv=False)
    assert singular.max() / singular.min() < 2  # Newton–Schulz leaves them in about [0.7, 1.2]
    root_mean_square = np.sqrt(np.square(matrix).mean())
    assert 0.1 * 0.05 < root_mean_square < 0.1 * 0.4  # as large as Adam's updates, 0.2–0.4


@pytest.mark.parametrize("name", ["adamw", "laprop", "muon"])
@pytest.mark.parametrize("clip", ["norm", "agc", "none"])
def test_every_optimiser_goes_downhill(name, clip):
    params = {"dynamics": {"kernel": jnp.eye(3) + 1.0}}
    optimizer = make_optimizer(section(name=name, clip=clip))

    def loss(p):
        return jnp.square(p["dynamics"]["kernel"]).sum()

    @jax.jit
    def descend(state, params):
        updates, state = optimizer.update(jax.grad(loss)(params), state, params)
        return state, optax.apply_updates(params, jax.tree.map(lambda u: 0.05 * u, updates))

    state, start = optimizer.init(params), loss(params)
    for _ in range(30):
        state, params = descend(state, params)
    assert loss(params) < 0.9 * start


def test_schedules_have_their_shapes():
    def rates(schedule, **more):
        rate = learning_rate(section(schedule=schedule, learning_rate=2.0, **more), 100)
        return np.array([rate(step) for step in range(100)])

    flat = rates("constant", warmup=9)
    np.testing.assert_allclose(flat[:9], 2.0 * np.arange(1, 10) / 10)
    np.testing.assert_allclose(flat[9:], 2.0)
    np.testing.assert_allclose(rates("linear", warmup=0), 2.0 * (1 - np.arange(100) / 100))
    cosine = rates("cosine", warmup=0)
    np.testing.assert_allclose(cosine[[0, 50]], [2.0, 1.0])
    wsd = rates("wsd", warmup=0, decay_fraction=0.2)
    np.testing.assert_allclose(wsd[:81], 2.0)
    np.testing.assert_allclose(wsd[90], 1.0)
    floor = rates("cosine", warmup=0, final_fraction=0.1)
    assert 0.2 <= floor[-1] < 0.21


def test_only_the_parts_that_are_named_learn():
    params = {
        "dynamics": {"in": {"kernel": jnp.eye(3)}, "inner": jnp.eye(3)},
        "decoder": jnp.eye(3),
    }
    ones = jax.tree.map(jnp.ones_like, params)
    optimizer = make_optimizer(section(only=("dynamics/in", "decoder"), weight_decay=0.5))
    got = run(optimizer, [ones], params)
    moved = jax.tree.map(lambda a, b: (np.asarray(a) != b).all(), got, params)
    assert moved["dynamics"]["in"]["kernel"] and moved["decoder"]
    np.testing.assert_array_equal(got["dynamics"]["inner"], jnp.eye(3))  # no decay either

    def loss(p):
        return sum(jnp.square(x).sum() for x in jax.tree.leaves(held(p, ("dynamics/in",))))

    gradient = jax.grad(loss)(params)
    assert gradient["dynamics"]["in"]["kernel"].any()
    assert not gradient["dynamics"]["inner"].any() and not gradient["decoder"].any()
