"""Gated DeltaNet's chunks against equation 10 of its paper, written as a loop in float64."""

import jax.numpy as jnp
import numpy as np
import pytest

from tests.models.quick import quick_jit
from wm_jax.errors import UserError
from wm_jax.models.dynamics.gated_delta import GatedDeltaLayer, gated_delta_rule

B, T, N, H, K, V = 2, 13, 2, 2, 4, 3
RULE = quick_jit(gated_delta_rule, static_argnums=7)


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def inputs(time=T):
    random = np.random.default_rng(0)
    q, k = (unit(random.normal(size=(B, time, N, H, K))) for _ in range(2))
    v = random.normal(size=(B, time, N, H, V))
    log_a = np.log(random.uniform(0.1, 1, (B, time, N, H)))
    rate = random.uniform(0, 1, (B, time, N, H))
    return q, k, v, log_a, rate, random.normal(size=(B, N, H, V, K))


def loop(q, k, v, log_a, rate, memory, is_first):
    out = []
    for t in range(q.shape[1]):
        memory = np.where(is_first[:, t, None, None, None, None], 0, memory)
        a, b = np.exp(log_a[:, t])[..., None, None], rate[:, t, ..., None, None]
        key, value = k[:, t, ..., None], v[:, t, ..., None]
        transposed = np.swapaxes(key, -1, -2)
        memory = memory @ (a * (np.eye(K) - b * key @ transposed)) + b * value @ transposed
        out.append((memory @ q[:, t, ..., None])[..., 0])
    return np.stack(out, 1), memory


def assert_rule_is_loop(floats, is_first, chunk):
    out, memory = RULE(*(jnp.asarray(x, jnp.float32) for x in floats), jnp.asarray(is_first), chunk)
    expected, last = loop(*floats, is_first)
    np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(memory, last, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("chunk", [1, 4, 5, 13, 100])
def test_chunks_are_the_recurrence(chunk):
    is_first = np.zeros((B, T), bool)
    is_first[1, [4, 5, 11]] = True
    assert_rule_is_loop(inputs(), is_first, chunk)


def test_a_scene_that_stands_still_is_no_harder():
    """Equal keys at every step, which make the triangular system as bad as it can be."""
    q, k, v, log_a, rate, memory = inputs(64)
    floats = (q, np.broadcast_to(k[:, :1], k.shape), v, 0 * log_a, 0.95 + 0 * rate, memory)
    assert_rule_is_loop(floats, np.zeros((B, 64), bool), 64)


def test_a_key_written_twice_answers_with_the_newer_value_and_others_are_kept():
    memory, is_first = np.zeros((B, N, H, V, K)), np.zeros((B, 4), bool)
    _, _, v, log_a, rate, _ = inputs(4)
    k = np.broadcast_to(np.eye(K)[[0, 1, 0, 2], None, None], (B, 4, N, H, K))
    arguments = (k, k, v, 0 * log_a, 1 + 0 * rate, memory)
    _, memory = RULE(*(jnp.asarray(x, jnp.float32) for x in arguments), jnp.asarray(is_first), 4)
    for key, written in ((0, 2), (1, 1), (2, 3)):
        np.testing.assert_allclose(memory[..., key], v[:, written], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(memory[..., 3], 0)


def test_heads_that_do_not_divide_the_width_are_refused():
    with pytest.raises(UserError, match="gated_delta: width 10 is not a multiple of 4 heads"):
        GatedDeltaLayer(heads=4).initial(1, 2, 10)
