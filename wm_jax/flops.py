"""How much arithmetic a function does, counted on its jaxpr (``jax.jit(f).trace(…).jaxpr.jaxpr``).

XLA's own `cost_analysis` counts the body of a scan once; here it counts as often as it runs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any


def matmul_cost(jaxpr: Any) -> tuple[float, float]:
    """(FLOPs, bytes) of all matrix products and convolutions in a jaxpr.

    A multiply-add is two FLOPs. Bytes are those of operands and results as if none stayed in a
    cache. A `while` of unknown length counts once, a `cond` by its dearest branch.
    """
    flops = moved = 0.0
    for equation in jaxpr.eqns:
        if equation.primitive.name in ("dot_general", "conv_general_dilated"):
            flops += _flops(equation)
            arrays = [v.aval for v in (*equation.invars, *equation.outvars)]
            moved += sum(a.size * a.dtype.itemsize for a in arrays)
            continue
        inner = [matmul_cost(sub) for sub in _sub_jaxprs(equation.params)]
        if inner and equation.primitive.name == "cond":
            inner = [max(inner)]
        times = equation.params["length"] if equation.primitive.name == "scan" else 1
        flops += times * sum(f for f, _ in inner)
        moved += times * sum(b for _, b in inner)
    return flops, moved


def _flops(equation: Any) -> float:
    left, right = (v.aval for v in equation.invars)
    out = equation.outvars[0].aval
    if equation.primitive.name == "dot_general":
        (contract, _), _ = equation.params["dimension_numbers"]
        return 2.0 * out.size * math.prod(left.shape[i] for i in contract)
    features_out = equation.params["dimension_numbers"].rhs_spec[0]
    taps = right.size / right.shape[features_out]
    # A transposed convolution (as in a gradient) inserts zeros into its input: they are no work.
    holes = math.prod(equation.params["lhs_dilation"])
    return 2.0 * out.size * taps / holes


def _sub_jaxprs(params: dict[str, Any]) -> Iterator[Any]:
    for value in params.values():
        for item in value if isinstance(value, tuple | list) else (value,):
            if hasattr(item, "eqns"):
                yield item
            elif hasattr(item, "jaxpr"):
                yield item.jaxpr
