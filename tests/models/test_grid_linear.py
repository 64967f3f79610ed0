"""What `grid_linear` promises beyond the contract: self-fed passes close in on the exact scan."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wm_jax.models.dynamics.grid_linear import GridLinear

B, T, CONTEXT = 2, 7, 4
GAP = T - CONTEXT


@pytest.fixture(scope="module")
def window():
    module = GridLinear(cells=(2, 3), width=8, hidden=8, layers=2)
    key = jax.random.split(jax.random.key(0), 3)
    embeddings = jax.random.normal(key[0], (B, T, 6, 5))
    told = jax.random.normal(key[1], (B, T, 4))
    observed = jnp.broadcast_to(jnp.arange(T) < CONTEXT, (B, T))
    is_first = jnp.zeros((B, T), bool).at[1, 2].set(True)
    inputs = (module.initial(B), embeddings, observed, told, is_first, None)
    step = (module.initial(B), embeddings[:, 0], None, told[:, 0], None)
    return module, jax.jit(lambda k: module.init(k, *step, method="step"))(key[2]), inputs


def run(window, method, **options):
    module, variables, inputs = window
    apply = jax.jit(lambda v, *a: module.apply(v, *a, method=method, **options))
    return apply(variables, *inputs)


def test_enough_passes_are_exact(window):
    exact_carry, exact = run(window, "scan")
    carry, out = run(window, "self_fed_scan", passes=GAP)
    for a, b in zip(
        jax.tree.leaves((carry, out)), jax.tree.leaves((exact_carry, exact)), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_each_pass_makes_one_more_frame_exact(window):
    _, exact = run(window, "scan")
    for passes in range(GAP):
        _, out = run(window, "self_fed_scan", passes=passes)
        error = jnp.abs(out.tokens - exact.tokens).max((0, 2, 3))
        assert np.all(error[: CONTEXT + passes + 1] < 1e-4)
        assert np.all(error[CONTEXT + passes + 1 :] > 1e-2)


@pytest.mark.parametrize("fed_gradient", [False, True])
def test_fed_gradient(window, fed_gradient):
    """With it and enough passes the gradient is the exact scan's, without it a part is cut."""
    module, variables, inputs = window
    module = module.copy(fed_gradient=fed_gradient)

    def loss(method, **options):
        def late(embeddings):
            arguments = (inputs[0], embeddings, *inputs[2:])
            out = module.apply(variables, *arguments, method=method, **options)[1]
            return jnp.sin(out.tokens[:, -1]).sum()

        return jax.jit(jax.grad(late))(inputs[1])

    exact, fed = loss("scan"), loss("self_fed_scan", passes=GAP)
    assert not np.any(fed[:, CONTEXT:])  # frames that are not observed never matter
    assert np.allclose(fed, exact, rtol=1e-3, atol=1e-5) == fed_gradient


def test_noise_is_on_seen_tokens_only_and_needs_a_key(window):
    module, variables, (carry, embeddings, *_), told = *window, window[2][3]
    step = lambda e, key: module.apply(  # noqa: E731
        variables, carry, e, None, told[:, 0], key, method="step"
    )[1]
    clean = step(embeddings[:, 0], None).tokens
    np.testing.assert_allclose(jnp.square(clean).mean(-1), np.ones((B, 6)), rtol=1e-4)
    noise = step(embeddings[:, 0], jax.random.key(1)).tokens - clean
    assert 0.07 < noise.std() < 0.13
    np.testing.assert_array_equal(step(None, jax.random.key(1)).tokens, step(None, None).tokens)
