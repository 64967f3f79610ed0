"""Attention against a loop in plain numpy, and what it must and must not see."""

import jax.numpy as jnp
import numpy as np

from tests.models.quick import quick_jit, random_variables
from wm_jax.nn.attention import (
    AttentionBlock,
    GridAttention,
    SelfAttention,
    attend,
    rotate,
    sine_positions,
)
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


def test_rotation_turns_one_half_by_the_row_and_one_by_the_column():
    """One head of 8 numbers: (a, b) pairs at 0 and 2, 1 and 3 by the row, the rest by the column;
    the second pair of each turns by 100^(-1/2) of the place."""
    x = RANDOM.normal(size=(6, 8))
    out = rotate(jnp.asarray(x, jnp.float32), (2, 3), heads=1)
    for cell, (row, column) in enumerate(np.ndindex(2, 3)):
        for start, place in ((0, row), (4, column)):
            for pair in (0, 1):
                a, b = x[cell, start + pair], x[cell, start + 2 + pair]
                turned = (a + 1j * b) * np.exp(1j * place * 0.1**pair)
                got = out[cell, start + pair], out[cell, start + 2 + pair]
                np.testing.assert_allclose(got, (turned.real, turned.imag), rtol=1e-4, atol=1e-5)


def test_scores_of_rotated_vectors_depend_on_the_way_between_the_cells():
    cells, heads = (4, 5), 2
    query, key = (np.broadcast_to(RANDOM.normal(size=16), (20, 16)) for _ in range(2))
    query, key = (rotate(jnp.asarray(x, jnp.float32), cells, heads) for x in (query, key))
    for head in (slice(0, 8), slice(8, 16)):
        scores = (query[:, head] @ key[:, head].T).reshape(4, 5, 4, 5)
        np.testing.assert_allclose(scores[1, 1, 2, 3], scores[2, 2, 3, 4], rtol=1e-4)
        np.testing.assert_allclose(scores[0, 4, 1, 0], scores[2, 4, 3, 0], rtol=1e-4)
        assert abs(scores[1, 1, 2, 3] - scores[1, 1, 3, 2]) > 1e-3


def test_grid_attention_reaches_all_cells_and_knows_where_they_are():
    layer = GridAttention((3, 4), features=5, heads=2)
    x = jnp.asarray(RANDOM.normal(size=(2, 12, 8)), jnp.float32)
    variables = random_variables(layer, x)
    run = quick_jit(lambda x: layer.apply(variables, x))
    assert run(x).shape == (2, 12, 5)
    far = np.abs(run(x.at[0, 11].add(1.0)) - run(x))
    assert far[0, 0].max() > 1e-4 and not far[1].any()
    alike = run(jnp.ones_like(x))[0]  # equal contents, other places
    assert np.abs(alike - alike[:1])[1:].max(-1).min() > 1e-3
