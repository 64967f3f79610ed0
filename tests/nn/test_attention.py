"""Attention against a loop in plain numpy, and what it must and must not see."""

import jax.numpy as jnp
import numpy as np

from tests.models.quick import quick_jit, random_variables
from wm_jax.nn.attention import AttentionBlock, SelfAttention, attend, sine_positions
from wm_jax.nn.grid import addresses

RANDOM = np.random.default_rng(0)


def test_attend_is_a_weighted_mean_in_every_head():
    heads, size = 2, 3
    query, key, value = (RANDOM.normal(size=(2, 3, n, heads * size)) for n in (4, 5, 5))
    out = attend(*(jnp.asarray(x, jnp.float32) for x in (query, key, value)), heads)
    for lead in np.ndindex(2, 3):
        for head in range(heads):
            part = slice(head * size, (head + 1) * size)
            weights = np.exp(query[lead][:, part] @ key[lead][:, part].T / np.sqrt(size))
            weights /= weights.sum(1, keepdims=True)
            expected = weights @ value[lead][:, part]
            np.testing.assert_allclose(out[lead][:, part], expected, rtol=1e-4, atol=1e-5)


def test_a_block_permutes_with_its_tokens_and_keeps_frames_apart():
    block = AttentionBlock(heads=2)
    x = jnp.asarray(RANDOM.normal(size=(2, 5, 8)), jnp.float32)
    variables = random_variables(block, x)
    run = quick_jit(lambda x: block.apply(variables, x))
    order = RANDOM.permutation(5)
    np.testing.assert_allclose(run(x[:, order]), run(x)[:, order], rtol=1e-4, atol=1e-5)
    other = run(x.at[1].set(0.0))
    np.testing.assert_array_equal(other[0], run(x)[0])
    assert np.abs(run(x.at[0, 4].add(1.0)) - run(x))[0, :4].max() > 1e-3  # all read all


def test_one_token_attends_to_itself_alone():
    layer = SelfAttention(heads=2)
    x = jnp.asarray(RANDOM.normal(size=(3, 1, 4)), jnp.float32)
    variables = random_variables(layer, x)
    into, out = (variables["params"][f"Dense_{i}"] for i in range(2))
    expected = x @ into["kernel"][:, 8:] @ out["kernel"] + out["bias"]
    np.testing.assert_allclose(layer.apply(variables, x), expected, rtol=1e-4, atol=1e-5)


def test_positions_are_sines_and_tell_cells_apart():
    place = jnp.array([0.25, 0.5])
    x, y = sine_positions(place, 8).reshape(2, 4)
    phase = 2 * np.pi * np.array([0.5, 32.0])
    np.testing.assert_allclose(x, [*np.sin(0.25 * phase), *np.cos(0.25 * phase)], atol=1e-4)
    np.testing.assert_allclose(y, [*np.sin(0.5 * phase), *np.cos(0.5 * phase)], atol=1e-4)
    grid = np.asarray(sine_positions(addresses((16, 16)), 32))
    distance = np.linalg.norm(grid[:, None] - grid, axis=-1)
    assert distance[~np.eye(256, dtype=bool)].min() > 0.5
    assert distance[0, 1] < distance[0, 8]
