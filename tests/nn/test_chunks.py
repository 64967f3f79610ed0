"""Chunks of time: decays against a loop, segments, padding, and the pieces that share them."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wm_jax.nn.chunks import decays, scan_chunks, segments, since_start
from wm_jax.nn.head_decay import HeadDecay
from wm_jax.nn.short_convolution import TAPS, ShortConvolution
from wm_jax.nn.unit_triangular import inverse

RANDOM = np.random.default_rng(0)
IS_FIRST = jnp.asarray([[0, 0, 0, 0, 0, 0, 0], [0, 0, 1, 0, 1, 1, 0], [1, 0, 0, 0, 0, 0, 1]], bool)
B, T = IS_FIRST.shape


def test_segments_see_back_to_the_last_start():
    seen = segments(IS_FIRST)
    for b, t, s in itertools.product(range(B), range(T), range(T)):
        assert seen.pairs[b, t, s] == (s <= t and not np.any(IS_FIRST[b, s + 1 : t + 1]))
        assert seen.carry[b, t] == (not np.any(IS_FIRST[b, : t + 1]))


def test_since_start_counts_on_from_before():
    got = since_start(IS_FIRST, jnp.asarray([5, 9, 9]))
    expected = [[5, 6, 7, 8, 9, 10, 11], [9, 10, 0, 1, 0, 0, 1], [0, 1, 2, 3, 4, 5, 0]]
    np.testing.assert_array_equal(got, expected)


def test_decays_are_products_with_zeros_across_a_start():
    a = RANDOM.uniform(0.01, 1, (B, T, 2, 3))
    got = decays(jnp.log(jnp.float32(a)), segments(IS_FIRST))
    for b, t in itertools.product(range(B), range(T)):
        gone = np.any(IS_FIRST[b, : t + 1])
        expected = np.zeros((2, 3)) if gone else a[b, : t + 1].prod(0)
        np.testing.assert_allclose(got.carry[b, :, :, t], expected, rtol=1e-5)
        for s in range(T):
            sees = s <= t and not np.any(IS_FIRST[b, s + 1 : t + 1])
            expected = a[b, s + 1 : t + 1].prod(0) if sees else np.zeros((2, 3))
            np.testing.assert_allclose(got.pairs[b, :, :, t, s], expected, rtol=1e-5)


def test_decays_have_finite_gradients_where_nothing_is_left():
    log_a = jnp.full((B, T, 1, 1), -80.0)  # products underflow
    gradient = jax.grad(lambda x: sum(y.sum() for y in decays(x, segments(IS_FIRST))))(log_a)
    assert np.all(np.isfinite(gradient))


@pytest.mark.parametrize("longest", [1, 2, 3, 5, 7, 20])
def test_chunks_do_not_change_a_running_sum(longest):
    """Nor do the zeros that fill the last one up."""
    x = jnp.arange(14.0).reshape(2, 7)
    lengths = []

    def body(total, x):
        lengths.append(x.shape[1])
        sums = total[:, None] + jnp.cumsum(x, 1)
        return sums[:, -1], sums

    total, sums = scan_chunks(body, jnp.ones(2), x, longest)
    np.testing.assert_array_equal(sums, 1 + np.cumsum(x, 1))
    np.testing.assert_array_equal(total, sums[:, -1])
    assert set(lengths) == {{1: 1, 2: 2, 3: 3, 5: 4, 7: 7, 20: 7}[longest]}  # 5: 4 + 3, not 5 + 2


@pytest.mark.parametrize("size", [1, 2, 3, 8, 13, 16])
def test_inverse_of_a_unit_triangular_matrix(size):
    lower = np.tril(RANDOM.uniform(-1, 1, (3, size, size)), -1)
    got = inverse(jnp.float32(lower))
    np.testing.assert_allclose(got, np.linalg.inv(np.eye(size) + lower), rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(np.triu(got, 1), 0)


def test_inverse_is_stable_where_a_power_series_is_not():
    """All ones below the diagonal: powers reach binomials of 64, the inverse is two diagonals."""
    got = inverse(jnp.tril(jnp.ones((64, 64)), -1))
    np.testing.assert_allclose(got, np.eye(64) - np.eye(64, k=-1), atol=1e-6)


def test_inverse_has_the_gradient_of_a_solver():
    lower = jnp.tril(jnp.float32(RANDOM.normal(size=(2, 6, 6))), -1)
    weight = jnp.float32(RANDOM.normal(size=(2, 6, 6)))
    ours = jax.grad(lambda x: (weight * inverse(x)).sum())(lower)
    solver = lambda x: (weight * jnp.linalg.inv(jnp.eye(6) + x)).sum()  # noqa: E731
    np.testing.assert_allclose(ours, jnp.tril(jax.grad(solver)(lower), -1), rtol=1e-3, atol=1e-4)


def test_short_convolution_is_a_loop_over_what_a_stream_has_seen():
    x, past = RANDOM.normal(size=(B, T, 2, 3)), RANDOM.normal(size=(B, TAPS - 1, 2, 3))
    kernel = RANDOM.normal(size=(TAPS, 3))
    variables = {"params": {"kernel": jnp.float32(kernel)}}
    y, last = ShortConvolution().apply(variables, jnp.float32(x), jnp.float32(past), IS_FIRST)
    for b in range(B):
        seen = list(past[b])
        for t in range(T):
            seen = [np.zeros((2, 3))] * (TAPS - 1) if IS_FIRST[b, t] else seen
            seen = [*seen, x[b, t]]
            expected = sum(kernel[lag] * seen[-1 - lag] for lag in range(TAPS))
            np.testing.assert_allclose(y[b, t], expected, rtol=1e-5, atol=1e-5)
            seen = seen[1:]
        np.testing.assert_allclose(last[b], np.stack(seen), rtol=1e-6)


def test_heads_start_with_half_lives_from_one_frame_to_the_longest():
    layer, x = HeadDecay(longest=64.0), jnp.zeros((1, 7))
    step, log_a = layer.apply(layer.init(jax.random.key(0), x), x)
    np.testing.assert_allclose(
        np.exp(log_a) ** 2.0 ** np.arange(7), np.full((1, 7), 0.5), rtol=1e-5
    )
    np.testing.assert_allclose(step, -log_a)
