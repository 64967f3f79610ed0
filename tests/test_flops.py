"""Arithmetic counted on jaxprs, against closed forms."""

import jax
import jax.numpy as jnp

from wm_jax.flops import matmul_cost


def cost(function, *args):
    return matmul_cost(jax.jit(function).trace(*args).jaxpr.jaxpr)


def test_a_matrix_product():
    a, b = jnp.zeros((3, 5)), jnp.zeros((5, 7))
    assert cost(jnp.matmul, a, b) == (2 * 3 * 5 * 7, 4 * (15 + 35 + 21))


def test_a_scan_counts_as_often_as_it_runs():
    w = jnp.zeros((4, 4))

    def many(x):
        return jax.lax.scan(lambda x, _: (jnp.tanh(x @ w), None), x, length=11)[0]

    assert cost(many, jnp.zeros((2, 4)))[0] == 11 * 2 * 2 * 4 * 4
    assert cost(jax.checkpoint(many), jnp.zeros((2, 4)))[0] == 11 * 2 * 2 * 4 * 4


def test_a_gradient_is_twice_its_forward_pass():
    def loss(w, x):
        return jnp.square(x @ w).sum()

    w, x = jnp.zeros((5, 7)), jnp.zeros((3, 5))
    assert cost(loss, w, x)[0] == 210
    assert cost(jax.grad(loss), w, x)[0] == 2 * 210
    assert cost(jax.grad(loss, (0, 1)), w, x)[0] == 3 * 210


def test_a_branch_counts_by_its_dearest_side():
    def choose(p, a):
        return jax.lax.cond(p, lambda: a @ a, lambda: a @ a @ a)

    assert cost(choose, jnp.array(True), jnp.zeros((4, 4)))[0] == 2 * 2 * 4**3


def test_a_convolution_and_its_gradients():
    x, kernel = jnp.zeros((2, 8, 8, 3)), jnp.zeros((3, 3, 3, 5))

    def convolve(kernel, x, stride):
        return jax.lax.conv_general_dilated(
            x, kernel, (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    forward = 2 * (2 * 8 * 8 * 5) * (3 * 3 * 3)
    assert cost(lambda: convolve(kernel, x, 1))[0] == forward
    assert cost(lambda: convolve(kernel, x, 2))[0] == forward / 4
    into_input = jax.grad(lambda x: convolve(kernel, x, 2).sum())
    assert cost(into_input, x)[0] == forward / 4 + forward / 4
