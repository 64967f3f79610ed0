"""Slots to frames: every slot paints a whole frame and a mask, and the masks share the pixels."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from wm_jax.nn.attention import sine_positions
from wm_jax.nn.dense import Dense
from wm_jax.nn.grid import addresses, from_patches


class MixtureDecoder(nn.Module):
    """(…, k, d) → (…, h, w, 3), unbounded around [0, 1]; the caller clips what it shows.

    A slot is broadcast to all cells (Watters et al. 2019), each with its place, and a perceptron
    shared by slots and cells paints a patch a cell: colours, and a logit of the mask. The frame is
    the mean of the slots' colours, weighted by the softmax of the logits over slots (Locatello et
    al. 2020, section 3.2). On the coarse grid it is matrix products, where theirs is convolutions.
    """

    cells: tuple[int, int]
    patch: int
    hidden: int

    def setup(self) -> None:
        self.slot_in, self.place_in = Dense(self.hidden), Dense(self.hidden, use_bias=False)
        self.middle, self.out = Dense(self.hidden), Dense(4 * self.patch**2)

    def __call__(
        self, tokens: Float[Array, "*lead n d"], predicted: bool = False
    ) -> Float[Array, "*lead h w c"]:
        colours, masks = self._paint(tokens)
        return (colours * masks[..., None]).sum(-4) + 0.5

    def masks(self, tokens: Float[Array, "*lead n d"]) -> Float[Array, "*lead n h w"]:
        """Each slot's share of each pixel; they sum to one."""
        return self._paint(tokens)[1]

    def _paint(self, tokens):
        """Colours around 0 (…, k, h, w, 3) and masks (…, k, h, w)."""
        places = self.place_in(sine_positions(addresses(self.cells), 32))
        x = nn.silu(self.slot_in(tokens)[..., None, :] + places)
        image = from_patches(self.out(nn.silu(self.middle(x))), self.cells, self.patch)
        return image[..., :3], jax.nn.softmax(image[..., 3].astype(jnp.float32), -3)
