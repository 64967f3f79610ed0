"""Layers compute as `wm_jax.nn.compute` says: narrow products, wide everything else; remat."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.models.quick import quick_jit, random_variables
from wm_jax.models.dynamics.grid_gru import GridGRU
from wm_jax.nn.block_dense import BlockDense, SplitDense
from wm_jax.nn.compute import (
    REMAT,
    Compute,
    conv_general_dilated,
    einsum,
    in_turn,
    narrow_dot_general,
    rematerialised,
    rounded,
    using,
)
from wm_jax.nn.dense import Dense

NARROW = Compute(dtype="bfloat16")


def products(function, *arguments):
    """Operand types of all matrix products and convolutions, and of the function's result."""
    traced = jax.make_jaxpr(lambda *a: function(*a))(*arguments)  # new, so not a cached trace
    names = ("dot_general", "conv_general_dilated")
    found = [e for e in traced.jaxpr.eqns if e.primitive.name in names]
    return {str(v.aval.dtype) for e in found for v in e.invars}, str(traced.out_avals[0].dtype)


@pytest.mark.parametrize("layer", [Dense(4), BlockDense(4, 2)], ids=["dense", "blocks"])
def test_products_are_narrow_forward_and_backward_and_weights_wide(layer):
    x = jax.random.normal(jax.random.key(0), (3, 5, 8))
    variables = layer.init(jax.random.key(1), x)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}

    def loss(variables):
        return layer.apply(variables, x).sum()

    assert products(loss, variables) == ({"float32"}, "float32")
    with using(NARROW):
        assert products(loss, variables) == ({"bfloat16"}, "float32")
        assert products(jax.grad(loss), variables)[0] == {"bfloat16"}
    assert products(loss, variables)[0] == {"float32"}  # nothing of it stays


def test_both_halves_of_a_split_layer_are_narrow():
    class Both(nn.Module):
        @nn.compact
        def __call__(self, x):
            split = SplitDense(4, 8)
            return split.of_input(x) + split.of_carry(x)

    x = jnp.ones((2, 8))
    variables = Both().init(jax.random.key(0), x)
    with using(NARROW):
        assert products(Both().apply, variables, x) == ({"bfloat16"}, "float32")


def test_a_product_is_that_of_rounded_operands():
    a, b = jax.random.normal(jax.random.key(0), (2, 16, 16))
    with using(NARROW):
        got = np.asarray(rounded(jnp.matmul, a, b), np.float64)
    near = (np.asarray(x.astype(jnp.bfloat16), np.float64) for x in (a, b))
    np.testing.assert_allclose(got, np.matmul(*near), rtol=2**-7, atol=2**-7)
    assert np.abs(got - np.float64(a) @ np.float64(b)).max() > 1e-4


@pytest.mark.parametrize("remat", sorted(set(REMAT) - {"none"}))
def test_remat_gives_the_same_gradient_of_a_long_window_in_less_memory(remat):
    module = GridGRU(cells=(2, 2), width=8, hidden=64)
    batch, time = 4, 64
    embeddings = jax.random.normal(jax.random.key(0), (batch, time, 4, 5))
    told, is_first = jnp.zeros((batch, time, 1)), jnp.zeros((batch, time), bool)
    inputs = (module.initial(batch), embeddings, None, told, is_first, None)
    variables = random_variables(module, *inputs, method="scan")

    def loss(variables):
        return jnp.square(module.apply(variables, *inputs, method="scan")[1].tokens).sum()

    def compiled(compute):
        with using(compute):
            program = quick_jit(jax.grad(lambda v: loss(v))).lower(variables).compile()
        return program(variables), program.memory_analysis().temp_size_in_bytes

    gradient, memory = compiled(Compute(remat=remat))
    expected, whole = compiled(Compute())
    for a, b in zip(jax.tree.leaves(gradient), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    assert memory < 0.8 * whole


def test_what_is_only_moved_is_handed_on_narrow_with_the_same_numbers():
    a, b = jax.random.normal(jax.random.key(0), (2, 16, 16))
    with using(NARROW):
        wide, narrow = einsum("ij,jk->ik", a, b), einsum("ij,jk->ik", a, b, narrow=True)
        layer = Dense(4, dot_general=narrow_dot_general, use_bias=False)
        moved = layer.apply(layer.init(jax.random.key(1), a), a)
    assert (wide.dtype, narrow.dtype, moved.dtype) == (jnp.float32, jnp.bfloat16, jnp.bfloat16)
    np.testing.assert_array_equal(wide, narrow.astype(jnp.float32))
    assert einsum("ij,jk->ik", a, b, narrow=True).dtype == jnp.float32


@pytest.mark.parametrize("kept", ["dots", "full"])
def test_convolutions_are_products_that_are_kept(kept):
    class Two(nn.Module):
        @nn.compact
        def __call__(self, x):
            def layer(module, x):
                return jnp.cos(nn.Conv(3, (3,), conv_general_dilated=conv_general_dilated)(x))

            return rematerialised(layer)(self, x)

    x = jnp.ones((1, 8, 3))
    variables = Two().init(jax.random.key(0), x)
    with using(Compute(remat=kept)):
        program = str(jax.make_jaxpr(jax.grad(lambda v: Two().apply(v, x).sum()))(variables))
    # Forward and the weights' gradient, and the forward once more where it is not kept.
    assert program.count("conv_general_dilated[") == {"dots": 2, "full": 3}[kept]


def test_weights_in_turn_wait_for_what_they_multiply_and_change_no_number():
    class Two(nn.Module):
        turns: bool

        def setup(self):
            self.layers = [nn.Dense(4), nn.Dense(4)]

        def __call__(self, x):
            for layer in self.layers:

                def apply(module, x, layer=layer):
                    return jnp.tanh(layer(x))

                x = in_turn(apply)(self, x) if self.turns else apply(self, x)
            return x

    x = jax.random.normal(jax.random.key(0), (3, 4))
    variables = Two(False).init(jax.random.key(1), x)

    def gradient(turns, remat="full"):
        with using(Compute(remat=remat)):
            function = jax.grad(lambda v: jnp.square(Two(turns).apply(v, x)).sum())
            return function(variables), str(jax.make_jaxpr(function)(variables))

    got, program = gradient(True)
    jax.tree.map(np.testing.assert_array_equal, got, gradient(False)[0])
    assert program.count("optimization_barrier") >= 2
    assert "optimization_barrier" not in gradient(True, "dots")[1]
