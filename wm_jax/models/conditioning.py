"""Everything the world is told, as one vector a step."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from wm_jax.nn.dense import Dense
from wm_jax.shapes import CONDITION_SIZES, Conditions


def flatten(conditions: Conditions, modalities: tuple[str, ...]) -> Float[Array, "*lead k"]:
    """Values (zero where absent) and presence flags side by side, for the chosen modalities."""
    parts = []
    for name in modalities:
        value, mask = getattr(conditions, name)
        mask = mask[..., None].astype(jnp.float32)
        parts += [jnp.where(mask > 0, value, 0.0), mask]
    return jnp.concatenate(parts, -1)


def flat_size(modalities: tuple[str, ...]) -> int:
    """Width of `flatten`; 1 where nothing is told."""
    return sum(CONDITION_SIZES[name] + 1 for name in modalities) or 1


class Conditioning(nn.Module):
    """Conditions (…) → (…, width), or, of width 0, as they are (`flatten`). With no modalities
    chosen, a single zero: nothing is told."""

    modalities: tuple[str, ...]
    width: int

    @nn.compact
    def __call__(self, conditions: Conditions) -> Float[Array, "*lead k"]:
        lead = conditions.actions.mask.shape
        if not self.modalities:
            return jnp.zeros((*lead, 1))
        unknown = set(self.modalities) - set(CONDITION_SIZES)
        if unknown:
            raise ValueError(f"unknown modalities {sorted(unknown)}")
        if not self.width:
            return flatten(conditions, self.modalities)
        return nn.silu(Dense(self.width)(flatten(conditions, self.modalities)))
