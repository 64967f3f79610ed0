"""What backbones on `Parallel` promise beyond the contract: self-fed passes, noise, options."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.models.quick import quick_jit, random_variables
from wm_jax.models.dynamics.grid_linear import GridLinear

B, T, CONTEXT = 2, 6, 4
GAP = T - CONTEXT


@pytest.fixture(scope="module")
def window():
    """A module, its parameters, and a window in which the last frames are not observed."""
    module = GridLinear(cells=(2, 3), width=8, hidden=8, layers=1)
    random = np.random.default_rng(0)
    embeddings = jnp.asarray(random.normal(size=(B, T, 6, 5)), jnp.float32)
    told = jnp.asarray(random.normal(size=(B, T, 4)), jnp.float32)
    observed = jnp.asarray(np.broadcast_to(np.arange(T) < CONTEXT, (B, T)))
    is_first = jnp.zeros((B, T), bool).at[1, 2].set(True)
    inputs = (module.initial(B), embeddings, observed, told, is_first, None)
    step = (inputs[0], embeddings[:, 0], None, told[:, 0], None)
    return module, random_variables(module, *step, method="step"), inputs


def test_each_pass_makes_one_more_frame_exact(window):
    module, variables, inputs = window

    @quick_jit
    def run(variables):
        def apply(passes, method):
            return module.copy(passes=passes).apply(variables, *inputs, method=method)

        fed = [apply(passes, "self_fed_scan") for passes in range(GAP + 1)]
        return apply(0, "scan"), fed

    (exact_carry, exact), fed = run(variables)
    for passes, (_, out) in enumerate(fed):
        error = np.abs(out.tokens - exact.tokens).max((0, 2, 3))
        assert np.all(error[: CONTEXT + passes + 1] < 1e-4)
        assert np.all(error[CONTEXT + passes + 1 :] > 1e-2)
    carry, out = fed[GAP]  # enough for everything, the state after the window too
    got, expected = jax.tree.leaves((carry, out)), jax.tree.leaves((exact_carry, exact))
    for x, y in zip(got, expected, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5)


def test_fed_gradient(window):
    """With it and enough passes the gradient is the exact scan's, without it a part is cut."""
    module, variables, (start, embeddings, *rest) = window

    def gradient(module, **options):
        def late(embeddings):
            out = module.apply(variables, start, embeddings, *rest, **options)[1]
            return jnp.sin(out.tokens[:, -1]).sum()

        return jax.grad(late)(embeddings)

    @quick_jit
    def run():
        exact, fed = gradient(module, method="scan"), module.copy(passes=GAP)
        cut = gradient(fed.copy(fed_gradient=False), method="scan")
        return exact, cut, gradient(fed.copy(fed_gradient=True), method="scan")

    exact, cut, whole = run()
    for got in (cut, whole):
        assert not np.any(got[:, CONTEXT:])  # frames that are not observed never matter
    np.testing.assert_allclose(whole, exact, rtol=1e-3, atol=1e-5)
    assert np.abs(cut - exact).max() > 1e-3


def test_noise_is_on_seen_tokens_only_and_needs_a_key(window):
    module, variables, (carry, embeddings, _, told, *_) = window

    @quick_jit
    def step(embedding, key):
        arguments = (carry, embedding, None, told[:, 0], key)
        return module.apply(variables, *arguments, method="step")[1].tokens

    clean = step(embeddings[:, 0], None)
    np.testing.assert_allclose(np.square(clean).mean(-1), np.ones((B, 6)), rtol=1e-4)
    noise = step(embeddings[:, 0], jax.random.key(1)) - clean
    assert 0.07 < noise.std() < 0.13
    np.testing.assert_array_equal(step(None, jax.random.key(1)), step(None, None))


def test_with_enough_passes_a_drawn_latent_is_the_exact_scans_and_so_are_its_terms(window):
    _, _, inputs = window
    options = {"latent": "categorical", "stoch": 2, "classes": 3, "temperature": 0.7}
    module = GridLinear(cells=(2, 3), width=8, hidden=8, layers=1, **options)
    carry, embeddings, observed, told, is_first, _ = inputs
    step = (carry, embeddings[:, 0], None, told[:, 0], None)
    variables = random_variables(module, *step, method="step")
    keys = jax.random.split(jax.random.key(0), T)

    @quick_jit
    def run(variables):
        window = (carry, embeddings, observed, told, is_first, keys)
        fed = module.copy(passes=GAP).apply(variables, *window, method="scan")
        return module.apply(variables, *window, method="scan"), fed

    exact, fed = run(variables)
    for x, y in zip(jax.tree.leaves(exact), jax.tree.leaves(fed), strict=True):
        np.testing.assert_allclose(y, x, rtol=1e-4, atol=1e-5)
    terms = exact[1].terms
    assert set(terms) == {"kl_dyn", "kl_rep"}
    for term in terms.values():
        assert np.all(term[:, :CONTEXT] > 0) and not np.any(term[:, CONTEXT:])


def test_temperature_is_the_priors(window):
    """At 0 nothing imagined is left to chance, while what is read of a frame is."""
    _, _, (_, embeddings, _, told, *_) = window
    options = {"latent": "gaussian", "stoch": 3, "temperature": 0.0}
    module = GridLinear(cells=(2, 3), width=8, hidden=8, layers=1, **options)
    carry = module.initial(B)
    step = (carry, embeddings[:, 0], None, told[:, 0], None)
    variables = random_variables(module, *step, method="step")

    @quick_jit
    def run(embedding, key):
        arguments = (carry, embedding, None, told[:, 0], key)
        return module.apply(variables, *arguments, method="step")[1].tokens

    @quick_jit
    def warm(key):
        hot = module.copy(temperature=1.0)
        return hot.apply(variables, carry, None, None, told[:, 0], key, method="step")[1].tokens

    one, other = jax.random.split(jax.random.key(0))
    np.testing.assert_array_equal(run(None, one), run(None, other))
    assert np.abs(run(embeddings[:, 0], one) - run(embeddings[:, 0], other)).max() > 1e-2
    assert np.abs(warm(one) - warm(other)).max() > 1e-2
