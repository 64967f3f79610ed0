"""The recurrence against a loop in float64, in both of its forms, with gradients and resets."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wm_jax.nn.linear_recurrence import linear_recurrence, parallel, sequential

FORMS = {"sequential": sequential, "parallel": parallel, "public": linear_recurrence}


def inputs(time=13):
    random = np.random.default_rng(0)
    a = random.uniform(0, 1, (2, time, 3, 4))
    a[1, time // 2] = 0  # a reset of one stream
    return a, random.normal(size=(2, time, 3, 4)), random.normal(size=(2, 3, 4))


def loop(a, b, start):
    h, out = start, []
    for t in range(a.shape[1]):
        h = a[:, t] * h + b[:, t]
        out.append(h)
    return np.stack(out, 1)


@pytest.mark.parametrize("time", [1, 2, 13])
@pytest.mark.parametrize("form", sorted(FORMS))
def test_equals_a_loop(form, time):
    a, b, start = inputs(time)
    expected = loop(a, b, np.zeros_like(start))
    got = jax.jit(FORMS[form])(jnp.float32(a), jnp.float32(b))
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


def test_start_enters_through_the_first_step():
    a, b, start = inputs()
    got = linear_recurrence(jnp.float32(a), jnp.float32(b), jnp.float32(start))
    np.testing.assert_allclose(got, loop(a, b, start), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("form", ["sequential", "parallel"])
def test_reverse_runs_backwards(form):
    a, b, _ = (jnp.float32(x) for x in inputs())
    backwards = FORMS[form](a, b, reverse=True)
    forwards = FORMS[form](a[:, ::-1], b[:, ::-1])[:, ::-1]
    np.testing.assert_allclose(backwards, forwards, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("form", ["sequential", "parallel"])
def test_gradients_are_those_of_the_plain_form(form):
    """The hand-written backward pass against jax's own, of a form that has none."""
    a, b, start = (jnp.float32(x) for x in inputs())
    weight = jnp.cos(jnp.arange(b.size)).reshape(b.shape)

    def loss(function):
        return lambda a, b: (weight * jnp.sin(function(a, b))).sum()

    ours = jax.jit(jax.grad(loss(linear_recurrence), (0, 1)))(a, b)
    expected = jax.jit(jax.grad(loss(FORMS[form]), (0, 1)))(a, b)
    for x, y in zip(ours, expected, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5)


def test_a_reset_is_exact():
    """Nothing from before a_t = 0 is left, not even in the last bit, nor in the gradient."""
    a, b, _ = (jnp.float32(x) for x in inputs())
    other = b.at[1, :6].multiply(1e6)
    for form in FORMS.values():
        one, two = form(a, b), form(a, other)
        np.testing.assert_array_equal(one[1, 6:], two[1, 6:])
        np.testing.assert_array_equal(one[1, 6], b[1, 6])
    gradient = jax.grad(lambda b: linear_recurrence(a, b)[1, 6:].sum())(b)
    assert not np.any(gradient[1, :6]) and np.all(gradient[1, 6])


@pytest.mark.parametrize("form", sorted(FORMS))
def test_complex_and_shared_over_an_axis(form):
    """The factors of all cells at once, with gradients, against jax's own of a plain loop."""
    random = np.random.default_rng(1)
    draw = lambda *shape: random.normal(size=shape) + 1j * random.normal(size=shape)  # noqa: E731
    a, b = draw(2, 7, 1, 4), draw(2, 7, 3, 4)
    a /= 1.2 * np.abs(a)
    a[1, 3] = 0
    expected = loop(a, b, np.zeros((2, 3, 4)))
    a, b = jnp.complex64(a), jnp.complex64(b)
    np.testing.assert_allclose(FORMS[form](a, b), expected, rtol=1e-5, atol=1e-5)

    def loss(function):
        return lambda a, b: jnp.sin(function(a, b).real).sum() + function(a, b).imag.sum()

    def plain(a, b):
        h, out = jnp.zeros_like(b[:, 0]), []
        for t in range(b.shape[1]):
            h = a[:, t] * h + b[:, t]
            out.append(h)
        return jnp.stack(out, 1)

    ours, theirs = (jax.jit(jax.grad(loss(f), (0, 1)))(a, b) for f in (FORMS[form], plain))
    for x, y in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5)
