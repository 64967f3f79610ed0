"""A dense layer whose gradient is as fast as its forward pass."""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterator
from typing import Any

import flax.linen as nn
from jaxtyping import Array, Float

from wm_jax.nn.compute import dot_general

_FOLDS: contextvars.ContextVar[bool] = contextvars.ContextVar("folds", default=True)


@contextlib.contextmanager
def unfolded() -> Iterator[None]:
    """Layers applied (traced) inside keep their leading axes: where devices have a share of the
    cells each, an axis of windows · frames · cells is one that nobody has a share of."""
    token = _FOLDS.set(False)
    try:
        yield
    finally:
        _FOLDS.reset(token)


class Dense(nn.Dense):
    """`flax.linen.Dense` over the last axis, its leading axes folded into one for the product.

    With two or more leading axes the weight's gradient contracts over all of them, which XLA:CPU
    (jax 0.10.2) runs six times slower than the plain matrix product that it is.
    How it multiplies is `wm_jax.nn.compute`'s.
    """

    dot_general: Any = dot_general

    @nn.compact
    def __call__(self, inputs: Float[Array, "*lead d"]) -> Float[Array, "*lead f"]:
        if not _FOLDS.get():
            return super().__call__(inputs)
        flat = super().__call__(inputs.reshape(-1, inputs.shape[-1]))
        return flat.reshape(*inputs.shape[:-1], self.features)
