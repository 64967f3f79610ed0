"""h_t = a_t h_{t-1} + b_t, elementwise: the recurrence that can run in parallel over time."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Inexact


def linear_recurrence(
    a: Inexact[Array, "b t ..."],
    b: Inexact[Array, "b t ..."],
    start: Inexact[Array, "b ..."] | None = None,
) -> Inexact[Array, "b t ..."]:
    """All h_t, from h_{-1} = ``start`` (zero by default). a_t = 0 is a reset: exactly h_t = b_t.

    Real or complex; ``a`` may have axes of size 1 where ``b`` is larger. On a CPU it is a loop,
    which does half the arithmetic; elsewhere an associative scan over pairs (a, b), of depth
    log t. The gradient is the same recurrence run backwards, not a differentiated scan.
    """
    if start is not None:
        b = b.at[:, 0].add(a[:, 0] * start)
    return _recurrence(a, b)


@jax.custom_vjp
def _recurrence(a, b):
    return _by_platform(a, b, reverse=False)


def _forward(a, b):
    h = _recurrence(a, b)
    return h, (a, h)


def _backward(residuals, gradient):
    """∂b_t = ∂h_t + a_{t+1} ∂b_{t+1}, ∂a_t = ∂b_t h_{t-1}.

    Nothing is conjugated: a cotangent of jax is carried through a product by the other factor.
    """
    a, h = residuals
    next_a = jnp.concatenate([a[:, 1:], jnp.zeros_like(a[:, :1])], 1)
    gradient_b = _by_platform(next_a, gradient, reverse=True)
    last_h = jnp.concatenate([jnp.zeros_like(h[:, :1]), h[:, :-1]], 1)
    shared = tuple(i for i, size in enumerate(a.shape) if size == 1 and h.shape[i] != 1)
    return (gradient_b * last_h).sum(shared, keepdims=True), gradient_b


_recurrence.defvjp(_forward, _backward)


def _by_platform(a, b, reverse):
    """Chosen when the program is lowered, so that one export serves every platform."""
    loop = functools.partial(sequential, reverse=reverse)
    scan = functools.partial(parallel, reverse=reverse)
    return jax.lax.platform_dependent(a, b, cpu=loop, default=scan)


def sequential(
    a: Inexact[Array, "b t ..."], b: Inexact[Array, "b t ..."], reverse: bool = False
) -> Inexact[Array, "b t ..."]:
    """One step after the other, from h = 0; ``reverse`` from the last to the first."""

    def step(h, inputs):
        h = inputs[0] * h + inputs[1]
        return h, h

    a, b = jnp.swapaxes(a, 0, 1), jnp.swapaxes(b, 0, 1)
    _, h = jax.lax.scan(step, jnp.zeros_like(b[0]), (a, b), reverse=reverse)
    return jnp.swapaxes(h, 0, 1)


def parallel(
    a: Inexact[Array, "b t ..."], b: Inexact[Array, "b t ..."], reverse: bool = False
) -> Inexact[Array, "b t ..."]:
    """Composes neighbouring steps: (a₂, b₂) ∘ (a₁, b₁) = (a₂ a₁, a₂ b₁ + b₂)."""

    def compose(first, second):
        return second[0] * first[0], second[0] * first[1] + second[1]

    return jax.lax.associative_scan(compose, (a, b), reverse=reverse, axis=1)[1]
