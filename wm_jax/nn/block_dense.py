"""Dense layers that a recurrence wants: block-diagonal ones, and ones split where a scan begins."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from wm_jax.nn.compute import matmul

#: Truncated normal with variance 1 / fan-in.
fan_in = nn.initializers.variance_scaling(1.0, "fan_in", "truncated_normal")


def fan_in_of(size: int):
    """`fan_in` for a kernel that is only part of a layer with ``size`` inputs in all."""

    def init(key, shape, dtype=jnp.float32):
        return fan_in(key, shape, dtype) * (shape[-2] / size) ** 0.5

    return init


class BlockDense(nn.Module):
    """A block-diagonal dense layer: block i of the input makes block i of the output.

    (…, d) → (…, features), both cut into ``blocks`` equal parts. ``inputs`` is the fan-in that
    the initialiser assumes, where other layers add to the same sum; by default its own.
    """

    features: int
    blocks: int
    inputs: int | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "*lead d"]) -> Float[Array, "*lead f"]:
        *lead, size = x.shape
        shape = (self.blocks, size // self.blocks, self.features // self.blocks)
        init = fan_in_of(self.inputs or shape[1])
        kernel = self.param("kernel", per_block(init), shape)
        # Blocks lead, so that XLA sees one batched product (twice as fast on a CPU as `...ki,kio`).
        x = matmul(jnp.swapaxes(x.reshape(-1, self.blocks, shape[1]), 0, 1), kernel)
        x = jnp.swapaxes(x, 0, 1).reshape(*lead, self.features)
        return x + self.param("bias", nn.initializers.zeros, (self.features,))


def per_block(init):
    """Initialises (blocks, in, out) with the fan of one block."""

    def blocks(key, shape, dtype=jnp.float32):
        flat = init(key, (shape[1], shape[0] * shape[2]), dtype)
        return jnp.swapaxes(flat.reshape(shape[1], shape[0], shape[2]), 0, 1)

    return blocks


class SplitDense(nn.Module):
    """A dense layer over concat(carry, x), in two halves: `of_input` can leave a scan.

    ``of_carry(c) + of_input(x)`` is the whole layer; `of_input` must be called first.
    """

    features: int
    carry_size: int

    @nn.compact
    def of_input(self, x: Float[Array, "*lead d"]) -> Float[Array, "*lead f"]:
        shape = (self.carry_size + x.shape[-1], self.features)
        kernel = self.param("kernel", fan_in, shape)
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        return matmul(x, kernel[self.carry_size :]) + bias

    def of_carry(self, carry: Float[Array, "*lead d"]) -> Float[Array, "*lead f"]:
        return matmul(carry, self.get_variable("params", "kernel")[: self.carry_size])
