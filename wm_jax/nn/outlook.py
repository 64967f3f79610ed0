"""What a camera and a light make of a picture that was seen under others."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float

#: Least brightness, and least share of it that an uneven light leaves anywhere.
DARKEST = 0.05


def viewed(images: Float[Array, "b m h w"], view: Float[Array, "b 3"]) -> Float[Array, "b m h w"]:
    """The images after the camera moved what they show by x and y (shares of the frame) and, around
    the middle, by a log zoom; beyond an edge goes on what is at it."""
    shrink = jnp.exp(-view[:, 2:])

    def samples(size: int, by: Float[Array, "b 1"]) -> Float[Array, "b s s"]:
        pixels = jnp.arange(size)
        at = 0.5 + ((pixels + 0.5) / size - 0.5 - by) * shrink
        at = jnp.clip(at * size - 0.5, 0.0, size - 1.0)
        return jnp.maximum(0.0, 1 - jnp.abs(at[..., None] - pixels))

    down, across = samples(images.shape[2], view[:, 1:2]), samples(images.shape[3], view[:, :1])
    return jnp.einsum("bij,bmjk,blk->bmil", down, images, across)


def brightness(
    light: Float[Array, "*any 3"], place: Float[Array, "*other 2"]
) -> Float[Array, "*both 1"]:
    """What a ``light`` (gain, slopes to the right and down) makes of white at a place in [0, 1]."""
    slope = 1 + (light[..., 1:] * (2 * place - 1)).sum(-1, keepdims=True)
    return jnp.maximum(light[..., :1], DARKEST) * jnp.maximum(slope, DARKEST)
