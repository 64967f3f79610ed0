"""Folding the leading axes changes the speed of a dense layer and nothing else."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wm_jax.nn.dense import Dense


@pytest.mark.parametrize("lead", [(), (3,), (2, 3), (2, 3, 4)])
def test_it_is_flax_dense(lead):
    x = jnp.asarray(np.random.default_rng(0).normal(size=(*lead, 5)), jnp.float32)
    variables = nn.Dense(7).init(jax.random.key(0), x)
    ours = Dense(7).init(jax.random.key(0), x)
    assert jax.tree.structure(variables) == jax.tree.structure(ours)

    def value_and_gradient(module):
        loss = lambda v, x: jnp.sin(module.apply(v, x)).sum()  # noqa: E731
        return jax.value_and_grad(loss, argnums=(0, 1))(variables, x)

    for a, b in zip(
        jax.tree.leaves(value_and_gradient(nn.Dense(7))),
        jax.tree.leaves(value_and_gradient(Dense(7))),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
