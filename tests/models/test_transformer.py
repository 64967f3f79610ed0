"""Windowed attention against dense masked attention in float64, and its ring of keys and values."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.models.quick import quick_jit, random_variables
from wm_jax.errors import UserError
from wm_jax.models.dynamics.transformer import Transformer, WindowAttention, cycle

B, T, N, D, H, W = 2, 11, 2, 8, 2, 4
LAYER = WindowAttention(heads=H, window=W)
APPLY = quick_jit(LAYER.apply)


@pytest.fixture(scope="module")
def setting():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(B, T, N, D)), jnp.float32)
    fresh = LAYER.initial(B, N, D)
    return random_variables(LAYER, x, fresh, jnp.zeros((B, T), bool)), x, fresh


def norm(x, scale):
    return scale * x / np.sqrt(np.square(x).mean(-1, keepdims=True) + 1e-6)


def dense(params, x, is_first):
    """All pairs of frames, masked; rotary positions as complex numbers, counted from the window's
    begin whatever the segment."""
    x = norm(np.asarray(x, np.float64), params["RMSNorm_0"]["scale"])
    parts = np.split(x @ params["Dense_0"]["kernel"], 3, -1)
    q, k, v = (y.reshape(B, T, N, H, D // H) for y in parts)
    q, k = (norm(y, params[name]["scale"]) for y, name in ((q, "q_norm"), (k, "k_norm")))
    theta = np.array([1.0, 1.0 / W])  # two planes a head, turning by whole parts of a cycle
    theta = np.rint(theta * cycle(W) / (2 * np.pi)) * 2 * np.pi / cycle(W)
    turn = np.exp(1j * np.arange(T)[:, None, None, None] * theta)
    q, k = ((y[..., :2] + 1j * y[..., 2:]) * turn for y in (q, k))
    scores = np.einsum("btnhp,bsnhp->bnhts", q, k.conj()).real / np.sqrt(D // H)
    segment, t = np.cumsum(is_first, 1), np.arange(T)
    lag = t[:, None] - t
    seen = (lag >= 0) & (lag < W) & (segment[:, :, None] == segment[:, None])
    weights = np.where(seen[:, None, None], np.exp(scores), 0)
    weights /= weights.sum(-1, keepdims=True)
    out = np.einsum("bnhts,bsnhp->btnhp", weights, v).reshape(B, T, N, D)
    return out @ params["Dense_1"]["kernel"]


@pytest.mark.parametrize("starts", [(), (3, 4, 9)])
def test_window_is_dense_masked_attention(setting, starts):
    variables, x, fresh = setting
    is_first = np.zeros((B, T), bool)
    is_first[1, list(starts)] = True
    out, _ = APPLY(variables, x, fresh, jnp.asarray(is_first))
    expected = dense(variables["params"], x, is_first)
    np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-4)


def test_a_step_writes_one_place_of_the_ring(setting):
    variables, x, fresh = setting
    step = jnp.zeros((B, 1), bool)
    _, cache = APPLY(variables, x, fresh, jnp.zeros((B, T), bool))
    _, later = APPLY(variables, x[:, :1], cache, step)
    for before, after in ((cache.keys, later.keys), (cache.values, later.values)):
        changed = np.any(before != after, (0, 2, 3, 4))
        np.testing.assert_array_equal(changed, np.arange(W) == T % W)
    np.testing.assert_array_equal(later.position, T + 1)


def test_nothing_changes_after_any_number_of_frames(setting):
    """Through the wrap of positions at 2M too, in windows and in steps."""
    variables, x, fresh = setting
    turn, flags = cycle(W), jnp.zeros((B, T), bool)
    assert turn >= 4096 and turn % W == 0
    young, _ = APPLY(variables, x, fresh._replace(position=fresh.position + 2 * W), flags)
    start = fresh._replace(position=fresh.position + 2 * turn - 5)
    old, last = APPLY(variables, x, start, flags)
    np.testing.assert_allclose(old[:, W:], young[:, W:], rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(last.position, turn + T - 5)
    cache = start
    for t in range(T):
        out, cache = APPLY(variables, x[:, t : t + 1], cache, flags[:, :1])
        np.testing.assert_allclose(out[:, 0], old[:, t], rtol=1e-4, atol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), cache, last)


def test_what_is_older_than_the_window_does_not_matter(setting):
    variables, x, fresh = setting
    flags = jnp.zeros((B, T), bool)
    out, _ = APPLY(variables, x, fresh, flags)
    other, _ = APPLY(variables, x.at[:, 2].multiply(-2), fresh, flags)
    differs = np.any(np.asarray(out != other), (0, 2, 3))
    np.testing.assert_array_equal(differs, (np.arange(T) >= 2) & (np.arange(T) < 2 + W))


def test_heads_without_whole_planes_are_refused():
    with pytest.raises(UserError, match="transformer: width 12 is not a multiple of twice its 4"):
        WindowAttention(heads=4).initial(1, 2, 12)


@pytest.mark.parametrize("time", [1, 3, 5, 8])
@pytest.mark.parametrize("seen", [True, False])
def test_a_fresh_carry_is_the_initial_one_without_its_empty_places(time, seen):
    """Of windows shorter than attention's own (5), as long, and longer; frames missing or not."""
    module = Transformer(cells=(1, 2), width=8, hidden=8, layers=1, heads=2, window=5)
    random = np.random.default_rng(0)
    embeddings = jnp.asarray(random.normal(size=(3, time, 2, 4)), jnp.float32)
    told, is_first = jnp.ones((3, time, 1)), np.zeros((3, time), bool)
    is_first[1, 0] = is_first[2, time // 2] = True
    observed = None if seen else jnp.asarray(np.broadcast_to(np.arange(time) < 2, (3, time)))
    rest = (embeddings, observed, told, jnp.asarray(is_first), None)
    start = module.initial(3)
    variables = random_variables(module, start, *rest, method="scan")

    @quick_jit
    def both():
        return [module.apply(variables, s, *rest, method="scan") for s in (start, module.fresh(3))]

    want, got = both()
    assert module.fresh(3).memory[0].keys.shape[1] == 0
    for a, b in zip(jax.tree.leaves(want), jax.tree.leaves(got), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
