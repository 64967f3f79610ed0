"""How layers compute: the type of their matrix products, and what is kept for the gradient.

`using` says so for all layers that are applied inside it. Weights are float32, and so is
everything between two products: sums, softmax, normalisation, recurrent states, losses, places.
Only what a layer with weights multiplies, and what attention does, is rounded to ``dtype``, and its
product is widened to float32 before anything is computed with it. In bfloat16 that is what the
matrix units of a GPU or TPU are fastest at; on a CPU it is slower. Float32 means float32 on every
chip: left to themselves GPUs and TPUs round operands to 10 or 7 bits, and a place is then up to
0.016 or 0.125 px of 64 off.

What is kept (``remat``) trades memory for time over a window: 'none' keeps all that the gradient
needs, 'dots' the products and computes anew what is cheap, 'full' nothing but what goes from one
step to the next (or into one layer) and computes that step again.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

DTYPES = ("float32", "bfloat16")
_PRODUCTS = ("dot_general", "conv_general_dilated")


def _products(primitive: Any, *_: Any, **__: Any) -> bool:
    return primitive.name in _PRODUCTS


REMAT: dict[str, Callable[..., bool] | None] = {
    "none": None,
    "dots": _products,
    "full": jax.checkpoint_policies.nothing_saveable,
}


#: What programs are made for that are traced now; None: JAX's own backend.
_CHIP: contextvars.ContextVar[str | None] = contextvars.ContextVar("chip", default=None)


@contextlib.contextmanager
def made_for(platform: str) -> Iterator[None]:
    """Layers traced inside take the form that is fast on ``platform``, which need not be here."""
    token = _CHIP.set(platform)
    try:
        yield
    finally:
        _CHIP.reset(token)


def platform() -> str:
    """'cpu', 'gpu' or 'tpu'."""
    return _CHIP.get() or jax.default_backend()


def convolves() -> bool:
    """Whether a convolution over neighbours is faster here than one product of all neighbourhoods,
    which has nine times the operands to move: on a TPU, and in bfloat16 on a GPU."""
    return platform() == "tpu" or (platform() == "gpu" and _USED.get().dtype == "bfloat16")


class Compute(NamedTuple):
    """``dtype`` is one of `DTYPES`, ``remat`` a key of `REMAT`."""

    dtype: str = "float32"
    remat: str = "none"


_DEFAULT = Compute()
_USED: contextvars.ContextVar[Compute] = contextvars.ContextVar("compute", default=_DEFAULT)


@contextlib.contextmanager
def using(compute: Compute) -> Iterator[None]:
    """Layers applied (traced) inside compute so."""
    token = _USED.set(compute)
    try:
        with jax.default_matmul_precision("highest"):
            yield
    finally:
        _USED.reset(token)


def rounded(
    product: Callable[..., jax.Array], left: jax.Array, right: jax.Array, narrow: bool = False
) -> jax.Array:
    """``product(left, right)`` of rounded operands, in the type that it has without rounding.

    ``narrow``: in that of the operands, for what is only moved (split, turned, multiplied again)
    before it is widened: the same numbers in half the bytes. The gradient that comes back to it is
    rounded there."""
    dtype = _USED.get().dtype
    if dtype == "float32":
        return product(left, right)
    wide = jnp.result_type(left, right)
    # Handed on narrow and widened, not accumulated wide, so that the gradient's products are narrow
    # too; matrix units accumulate in float32 either way.
    with jax.default_matmul_precision("default"):
        out = product(left.astype(dtype), right.astype(dtype))
    return out if narrow else out.astype(wide)


def matmul(left: jax.Array, right: jax.Array) -> jax.Array:
    """``left @ right`` of activations and weights, or of attention."""
    return rounded(jnp.matmul, left, right)


def einsum(
    subscripts: str, left: jax.Array, right: jax.Array, *, narrow: bool = False
) -> jax.Array:
    """`jnp.einsum` of two arrays, likewise."""
    return rounded(lambda a, b: jnp.einsum(subscripts, a, b), left, right, narrow)


def dot_general(
    left: jax.Array,
    right: jax.Array,
    dimension_numbers: Any,
    *,
    narrow: bool = False,
    **options: Any,
) -> jax.Array:
    """`jax.lax.dot_general`, as Flax's layers call it."""

    def product(a, b):
        return jax.lax.dot_general(a, b, dimension_numbers, **options)

    return rounded(product, left, right, narrow)


narrow_dot_general = functools.partial(dot_general, narrow=True)


def conv_general_dilated(
    images: jax.Array, kernel: jax.Array, strides: Any, padding: Any, **options: Any
) -> jax.Array:
    """`jax.lax.conv_general_dilated`, as Flax's layers call it."""

    def product(a, b):
        return jax.lax.conv_general_dilated(a, b, strides, padding, **options)

    return rounded(product, images, kernel)


def rematerialised(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function(module, …)`` that keeps for its gradient what ``remat`` says."""
    policy = REMAT[_USED.get().remat]
    return function if policy is None else nn.remat(function, policy=policy)


def in_turn(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function(module, x, …)`` whose weights are waited for no sooner than ``x`` is there.

    Where devices hold a share of the weights each, the compiler else gathers those of all layers
    before the first, and holds them. Only where memory is what counts (``remat`` 'full')."""
    if _USED.get().remat != "full":
        return function

    def tied(module, x, *rest):
        def after(variables):
            return jax.lax.optimization_barrier((variables, x))[0]

        return nn.map_variables(function, "params", trans_in_fn=after)(module, x, *rest)

    return tied


def over_time(body: Callable[..., Any], in_axes: Any = 1, out_axes: int = 1) -> Callable[..., Any]:
    """`flax.linen.scan` of ``body(module, carry, inputs, …) -> (carry, outputs)`` along the time
    axis of (b, t, …), weights shared by all steps."""
    policy = REMAT[_USED.get().remat]
    if policy is not None:
        body = nn.remat(body, policy=policy, prevent_cse=False)  # a loop body is apart as it is
    return nn.scan(
        body,
        variable_broadcast="params",
        split_rngs={"params": False},
        in_axes=in_axes,
        out_axes=out_axes,
    )
