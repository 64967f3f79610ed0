"""`steady` changes nothing but the length of gradients that are too long."""

import jax
import jax.numpy as jnp
import numpy as np

from wm_jax.nn.gradient import steady, within


def test_forward_is_the_identity_and_short_gradients_pass():
    x = jnp.array([[3.0, 4.0], [0.3, 0.4]])
    np.testing.assert_array_equal(steady(x, 1.0), x)
    np.testing.assert_array_equal(jax.grad(lambda x: steady(x, 10.0).sum())(x), jnp.ones((2, 2)))


def test_long_gradients_keep_their_direction():
    x = jnp.zeros((2, 2))
    grads = jax.grad(lambda x: (steady(x, 2.0) * jnp.array([[30.0, 40.0], [0.3, 0.4]])).sum())(x)
    np.testing.assert_allclose(grads, [[1.2, 1.6], [0.3, 0.4]], rtol=1e-6)


def test_a_recurrence_that_explodes_keeps_a_finite_gradient():
    def last(x, hold):
        step = lambda h, _: (50 * hold(h), None)  # noqa: E731
        return jax.lax.scan(step, x, None, length=40)[0].sum()

    assert jnp.isinf(jax.grad(last)(jnp.ones((1, 1)), lambda h: h)).all()
    held = jax.grad(last)(jnp.ones((1, 1)), lambda h: steady(h, 100.0))
    assert (jnp.abs(held) <= 100).all()


def test_what_is_cut_off_hears_that_it_should_come_back():
    """A descent moves against the gradient: from below, a negative one leads back."""
    x = jnp.array([-1.0, -1.0, 0.3, 0.3, 2.0, 2.0])
    np.testing.assert_array_equal(within(x, 0.0, 0.5), jnp.clip(x, 0.0, 0.5))
    slopes = jnp.array([1.0, -1.0, 1.0, -1.0, 1.0, -1.0])
    grads = jax.grad(lambda x: (within(x, 0.0, 0.5) * slopes).sum())(x)
    np.testing.assert_array_equal(grads, jnp.array([0.0, -1.0, 1.0, -1.0, 1.0, 0.0]))
