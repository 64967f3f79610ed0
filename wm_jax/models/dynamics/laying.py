"""Where a slot is, exactly: its template laid over what a frame shows of it. No parameters.

images (b, k, 2, p) hold how much of each pixel the slot covers and how much of it is open; anchor
(b, k, 2) is where the template's own centre is believed to be, ``off`` how far off that is so far,
in shares of the frame; template is its coverage and how well it is known, (b, k, s) each; of what
is ``new`` (b, k, 1) the template is what is seen now, so nothing is measured.
"""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float

from wm_jax.models.dynamics import templates
from wm_jax.models.dynamics.kalman import UNIT
from wm_jax.nn.paste import turned

#: Of a pixel between two of which less than this is open, nothing is believed.
AJAR = 0.3


def view(
    images: Float[Array, "b k m p"],
    anchor: Float[Array, "b k 2"],
    side: int,
    cells: tuple[int, int],
    turn: Float[Array, "b k 1"] | None = None,
):
    """Around ``anchor``: how much the slot covers of what is open, what is open, and any further
    images as they are."""
    seen, clear, *more = templates.views(images, anchor, side, cells, turn)
    return seen / (clear + 1e-3), jnp.clip((clear - AJAR) / (1 - AJAR), 0.0, 1.0), *more


def lay(images, anchor, off, template, new, cells) -> tuple[Array, Array]:
    """How far ``off`` a template is, exactly: it is laid over what is seen, around a whole pixel,
    where nothing that is open is mixed with what is not. And the share of it that tells so."""
    (coverage, known), side = template, round(template[0].shape[-1] ** 0.5)
    odd = side % 2 / 2
    pixel = (jnp.round((anchor + off) * cells[0] - odd) + odd) / cells[0]
    seen, clear = view(images, pixel, side, cells)
    for _ in range(1 + templates.fine(side)):
        laid, sharp = templates.moved(coverage, known, anchor + off - pixel, cells)
        step = templates.align(laid, sharp * clear, seen, cells)
        off = off + jnp.where(new, 0.0, step)
    part = templates.told_by(laid, sharp * clear) * templates.whole(laid, sharp)
    return off, jnp.clip(part, 0.0, 1.0)


def lay_turning(
    images, anchor, turn, off, template, new, cells
) -> tuple[Array, Array, tuple[Array, Array]]:
    """`lay` of templates that turn; and by how much they have turned more than predicted, with
    its variance for a variance of a place of one (64ths²)."""
    (coverage, known), side = template, round(template[0].shape[-1] ** 0.5)
    by, start = jnp.zeros_like(turn), turn
    for _ in range(1 + templates.fine(side)):
        turn = start + by
        seen, clear = view(images, anchor + off, side, cells, turn)
        step, twist, doubt = templates.align_turning(coverage, known * clear, seen, cells)
        off = off + jnp.where(new, 0.0, turned(step, turn))
        by = by + jnp.where(new, 0.0, twist)
    part = templates.told_by(coverage, known * clear) * templates.whole(coverage, known)
    cos, sin = jnp.square(jnp.cos(turn)), jnp.square(jnp.sin(turn))
    part = cos * part + sin * part[..., ::-1]
    return off, jnp.clip(part, 0.0, 1.0), (by, doubt * (cells[0] / UNIT) ** 2)
