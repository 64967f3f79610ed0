"""Mixing of neighbours: as a product of neighbourhoods, and as the convolution that TPUs get."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wm_jax.nn.compute import Compute, made_for, platform, using
from wm_jax.nn.grid import GridMix


@pytest.mark.parametrize("use_bias", [True, False])
def test_a_tpu_gets_the_same_numbers_and_weights_by_a_convolution(use_bias):
    layer = GridMix((3, 5), 7, use_bias)
    x = jax.random.normal(jax.random.key(0), (2, 4, 15, 6))

    def loss(variables, x):
        return jnp.sum(jnp.cos(layer.apply(variables, x)))

    with using(Compute()):
        variables = layer.init(jax.random.key(1), x)
        want = layer.apply(variables, x), jax.grad(loss, (0, 1))(variables, x)
        with made_for("tpu"):
            assert "conv_general_dilated" in str(jax.make_jaxpr(layer.apply)(variables, x))
            jax.tree.map(np.testing.assert_array_equal, layer.init(jax.random.key(1), x), variables)
            got = layer.apply(variables, x), jax.grad(loss, (0, 1))(variables, x)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_what_programs_are_made_for_is_here_unless_said():
    assert platform() == jax.default_backend() == "cpu"
    with made_for("tpu"):
        assert platform() == "tpu"
    assert platform() == "cpu"
