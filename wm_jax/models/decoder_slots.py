"""Cells and slots to frames: every slot is pasted at its place, behind what stands in front."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from wm_jax.nn.dense import Dense
from wm_jax.nn.grid import addresses
from wm_jax.nn.mlp import MLP
from wm_jax.nn.outlook import brightness, viewed
from wm_jax.nn.paste import read_turned, write


class SlotDecoder(nn.Module):
    """Tokens of `grid_slots` → (…, h, w, 3), unbounded around [0, 1]; the caller clips.

    A cell of the stage paints ``patch`` × ``patch`` pixels of backdrop b. How far a pixel of it, f,
    stands in front of all objects is read off its colour and how that differs from the backdrop's
    mean: the same for every pixel, because few are ever seen to hide something. A slot paints a
    stencil α of its own looks in one colour. A pixel is f b + (1 − f)(Σ α c + (1 − Σ α) b), with
    Σ α scaled down to 1 at most.

    hears: whether a camera or a light may have changed since the stage was seen: then the backdrop,
        and what is in front, are painted as they were seen, moved and lit anew
    turns: whether a slot may have turned from the template that its looks were read off, or come
        nearer with the camera
    reach: side of the square that a slot paints, as a share of the frame
    narrow: numbers through which a cell is painted; too few for an object, enough for a backdrop
    """

    cells: tuple[int, int]
    patch: int
    resolution: int
    width: int
    hidden: int
    reach: float = 0.32
    turns: bool = False
    hears: bool = False
    narrow: int = 4

    @nn.compact
    def __call__(
        self, tokens: Float[Array, "*lead n d"], predicted: bool = False, masks: bool = False
    ) -> Float[Array, "*lead h w c"] | Float[Array, "*lead m h w"]:
        """Frames; or ``masks`` (…, 1 + k, h, w), the share of each pixel that the backdrop paints,
        first, and that each slot paints."""
        lead, size = tokens.shape[:-2], self.resolution
        tokens = tokens.reshape(-1, *tokens.shape[-2:])
        backdrop, front, alpha, colour = self._layers(tokens, predicted)
        total = alpha.sum(1)
        scale = 1 / jnp.maximum(total, 1.0)
        if masks:
            slots = alpha * ((1 - front) * scale)[:, None]
            shares = jnp.concatenate([1 - slots.sum(1, keepdims=True), slots], 1)
            return shares.reshape(*lead, -1, size, size)
        planes = []
        for channel, behind in enumerate(backdrop):
            paint = sum(
                alpha[:, k] * colour[:, k, channel, None, None] for k in range(alpha.shape[1])
            )
            planes.append(behind + (1 - front) * scale * (paint - total * behind))
        return jnp.stack(planes, -1).reshape(*lead, size, size, 3)

    def masks(self, tokens: Float[Array, "*lead n d"]) -> Float[Array, "*lead m h w"]:
        """Which slot paints a pixel: see `__call__`."""
        return self(tokens, masks=True)

    def _layers(self, tokens: Float[Array, "b n d"], predicted: bool):
        """Backdrop and front (see `_stage`), stencils in place (b, k, h, w), colours (b, k, 3)."""
        cells = self.cells[0] * self.cells[1]
        backdrop, front = self._stage(tokens[:, :cells, : self.width])
        nearer = jnp.ones((1, 1, 1))
        if self.hears:
            outlook = tokens[:, 0, self.width : self.width + 9]
            backdrop, front = self._now(backdrop, front, outlook)
            nearer = jnp.exp(outlook[:, None, 2:3])
        slots, turn = tokens[:, cells:], None
        if self.turns:
            slots, turn = slots[..., :-3], jnp.arctan2(slots[..., -2:-1], slots[..., -3:-2])
        place, present, colour, _, look = jnp.split(slots, [2, 3, 6, 8], -1)
        stencil, shade = self._objects(look, colour)
        if predicted:
            # A wrong place must not teach an object to be faint or blurred.
            stencil, shade = jax.lax.stop_gradient((stencil, shade))
        # What is likely to be there is painted in full.
        if turn is not None:
            middle = jnp.full_like(place, 0.5)
            side = stencil.shape[-1]
            spacing = jnp.broadcast_to(1 / (side * nearer), turn.shape)
            stencil = read_turned(stencil[:, :, None], middle, -turn, side, spacing)[:, :, 0]
        there = jnp.clip(4 * present - 1, 0.0, 1.0)
        alpha = write(stencil * there[..., None], place, self.resolution)
        return backdrop, front, alpha, colour + shade

    def _stage(self, cells: Float[Array, "b n d"]):
        """Three planes of backdrop and one of what is in front, each (b, h, w)."""
        x = Dense(self.hidden)(Dense(self.narrow)(cells))
        x = Dense(3 * self.patch**2)(nn.silu(x))
        x = x.reshape(-1, *self.cells, 3, self.patch, self.patch)
        x = x.transpose(0, 3, 1, 4, 2, 5).reshape(-1, 3, self.resolution, self.resolution)
        # It must not paint a backdrop that is easy to tell.
        seen = jax.lax.stop_gradient(jnp.moveaxis(x, 1, -1))
        contrast = seen - seen.mean((1, 2), keepdims=True)
        front = MLP((16, 1))(jnp.concatenate([2 * seen, 4 * contrast, 8 * contrast**2], -1))
        return [x[:, i] + 0.5 for i in range(3)], nn.sigmoid(front[..., 0] - 2.0)

    def _now(self, backdrop, front, outlook: Float[Array, "b 9"]):
        """Backdrop and front as they were seen, as they look now (`motion.outlook`)."""
        planes = viewed(jnp.stack([*backdrop, front], 1), outlook[:, :3])
        at = addresses((self.resolution, self.resolution))
        then, now = (brightness(outlook[:, None, i : i + 3], at) for i in (3, 6))
        lit = (now / then).reshape(-1, self.resolution, self.resolution)
        return [planes[:, i] * lit for i in range(3)], planes[:, 3]

    def _objects(self, look: Float[Array, "b k l"], colour: Float[Array, "b k 3"]):
        """Stencils (b, k, s, s), empty at the rim and round at first, and changes of colour."""
        side = round(self.reach * self.resolution)
        stencil = MLP((64, side * side))(look).reshape(*look.shape[:-1], side, side)
        across = jnp.linspace(-1, 1, side)
        stencil = nn.sigmoid(2 * stencil + 2 - 6 * (across[:, None] ** 2 + across**2))
        inside = jnp.abs(across) < 0.99
        shade = 0.2 * MLP((32, 3))(jnp.concatenate([look, 2 * colour - 1], -1))
        return stencil * (inside[:, None] & inside), shade
