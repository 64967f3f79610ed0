"""Mamba-2's chunks against the recurrence written as a loop in float64."""

import jax.numpy as jnp
import numpy as np
import pytest

from tests.models.quick import quick_jit
from wm_jax.errors import UserError
from wm_jax.models.dynamics.mamba2 import Mamba2Layer, ssd

B, T, N, H, P, S = 2, 13, 2, 3, 4, 5


def inputs():
    random = np.random.default_rng(0)
    log_a = np.log(random.uniform(0.05, 1, (B, T, N, H)))
    x, b, c = (random.normal(size=(B, T, N, *rest)) for rest in ((H, P), (S,), (S,)))
    memory = random.normal(size=(B, N, H, P, S))
    is_first = np.zeros((B, T), bool)
    is_first[1, [4, 5, 11]] = True
    return x, b, c, log_a, memory, is_first


def loop(x, b, c, log_a, memory, is_first):
    out = []
    for t in range(T):
        memory = np.where(is_first[:, t, None, None, None, None], 0, memory)
        added = x[:, t, ..., None] * b[:, t, :, None, None]
        memory = np.exp(log_a[:, t])[..., None, None] * memory + added
        out.append(np.einsum("bnhps,bns->bnhp", memory, c[:, t]))
    return np.stack(out, 1), memory


@pytest.mark.parametrize("chunk", [1, 4, 5, 13, 100])
def test_chunks_are_the_recurrence(chunk):
    *floats, is_first = inputs()
    arguments = [jnp.asarray(x, jnp.float32) for x in floats]
    y, memory = quick_jit(ssd, static_argnums=6)(*arguments, jnp.asarray(is_first), chunk)
    expected, last = loop(*floats, is_first)
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(memory, last, rtol=1e-4, atol=1e-4)


def test_without_decay_it_is_causal_linear_attention():
    x, b, c, log_a, memory, _ = (jnp.asarray(x, jnp.float32) for x in inputs())
    y, _ = ssd(x, b, c, 0 * log_a, 0 * memory, jnp.zeros((B, T), bool), 4)
    scores = np.tril(np.einsum("btns,brns->bntr", c, b))
    expected = np.einsum("bntr,brnhp->btnhp", scores, x)
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-4)


def test_heads_that_do_not_divide_the_width_are_refused():
    with pytest.raises(UserError, match="mamba2: width 10 is not a multiple of 4 heads"):
        Mamba2Layer(heads=4).initial(1, 2, 10)
