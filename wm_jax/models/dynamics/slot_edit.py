"""Edits of slots: everything about an object has an address in a `Scene`, so an edit writes there.

Nothing here is learned and no model ever saw an edit in training. An object that is added is drawn
into a template, which is then read as if it had been seen.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from wm_jax.edit import KINDS, Edits
from wm_jax.models.dynamics import templates
from wm_jax.models.dynamics.pixels import CONTRAST
from wm_jax.models.dynamics.tracking import CLEAR, Scene

#: What counts alike in choosing a slot: a distance from where it is said to be, shares of the
#: frame, and one from the colour it is called by. Beyond twice the latter a slot is not meant; how
#: far it is does not matter else, because a rollout may have carried it away from the truth.
FAR, UNLIKE = 0.1, 0.3
#: A slot that is present to less than this is empty.
EMPTY = 0.3
#: Frames that an added object counts as having been seen in.
SEEN = 10.0


def apply(
    scene: Scene,
    edits: Edits,
    cells: tuple[int, int],
    pull: float,
    look_at: Callable[[Float[Array, "*lead two_s"]], tuple[Array, Array]],
) -> Scene:
    """The scene after the edits. An edit of an object that is in no slot does nothing, nor does
    one that adds where all slots are full. ``pull`` and ``look_at`` are those of `GridSlots`."""

    def of(kind: str) -> Bool[Array, "b 1"]:
        return (edits.kind == KINDS.index(kind))[:, None]

    meant = _meant(scene, edits)
    scene = put(scene, meant & of("move"), place=edits.place)
    scene = put(scene, meant & of("push"), speed=scene.speed + edits.speed[:, None])
    # The light that falls on it stays what it was.
    light = scene.colour.sum(-1) / (CONTRAST * edits.named.sum(-1, keepdims=True) + 1e-6)
    paint = CONTRAST * light[..., None] * edits.paint[:, None]
    scene = put(scene, meant & of("recolour"), colour=paint)
    scene = put(scene, meant & of("remove"), present=0.0, visible=0.0)
    return _add(_pulled(scene, of("gravity"), edits), of("add"), edits, cells, pull, look_at)


def _meant(scene: Scene, edits: Edits) -> Bool[Array, "b k"]:
    """The slot that is meant; none where none has the colour."""
    far = jnp.square((scene.place - edits.at[:, None]) / FAR).sum(-1)
    colours = hues(scene.colour), hues(jnp.asarray(edits.named))[:, None]
    unlike = jnp.square((colours[0] - colours[1]) / UNLIKE).sum(-1)
    there = scene.present[..., 0] > 0.3
    cost = jnp.where(there & (unlike < 4.0), far + unlike, jnp.inf)
    best = jnp.arange(cost.shape[1]) == jnp.argmin(cost, -1)[:, None]
    return best & jnp.isfinite(cost)


def hues(colour: Float[Array, "*lead c"]) -> Float[Array, "*lead c"]:
    """Colours without their brightness."""
    return colour / (jnp.max(colour, -1, keepdims=True) + 1e-6)


def put(scene: Scene, choice: Bool[Array, "b k"], **values) -> Scene:
    """The scene with these values, (b, d) or (b, k, d) each, in the chosen slots."""

    def new(name: str, value):
        old = getattr(scene, name)
        value = jnp.asarray(value)
        value = value[:, None] if value.ndim == 2 else value
        return jnp.where(choice[..., None], value, old)

    return scene._replace(**{name: new(name, value) for name, value in values.items()})


def _pulled(scene: Scene, choice: Bool[Array, "b 1"], edits: Edits) -> Scene:
    """All slots fall as is said, and are sure of it."""
    sure = scene.spread.at[..., 6:].set(0.0)
    choice = jnp.broadcast_to(choice, scene.place.shape[:2])
    return put(scene, choice, pull=edits.pull, spread=sure)


def _add(scene: Scene, choice: Bool[Array, "b 1"], edits: Edits, cells, pull, look_at) -> Scene:
    side = round((scene.template.shape[-1] // 2) ** 0.5)
    spots = templates.spots(side**2, cells)
    shape = jax.nn.one_hot(jax.lax.clamp(0, jnp.asarray(edits.shape), 2), 3)
    coverage = drawn(shape, jnp.asarray(edits.radius), spots, cells[0])
    new = made(coverage, spots, pull, look_at)
    new |= {"place": edits.place, "speed": edits.speed, "colour": CONTRAST * edits.paint}
    return put(scene, choice & empty(scene), **new)


def empty(scene: Scene) -> Bool[Array, "b k"]:
    """The emptiest slot, if that is empty."""
    present = scene.present[..., 0]
    least = jnp.arange(present.shape[1]) == jnp.argmin(present, -1)[:, None]
    return least & (present < EMPTY)


def made(
    coverage: Float[Array, "b s"],
    spots: Float[Array, "s 2"],
    pull: float,
    look_at: Callable[[Float[Array, "*lead two_s"]], tuple[Array, Array]],
) -> dict[str, Any]:
    """Fields of a slot of something of that outline, as if it had been seen in some frames: all but
    its place, speed and colour."""
    template = jnp.concatenate([SEEN * coverage, jnp.full_like(coverage, SEEN)], -1)
    variances = jnp.array([CLEAR**2, 0.0, CLEAR**2, 0.0, 0.0, pull**2])
    return {
        "look": look_at(template)[0],
        "middle": templates.centre(coverage, spots),
        "template": template,
        "spread": jnp.repeat(variances, 2)[None, None],
        "age": SEEN,
        "present": 1.0,
        "visible": 1.0,
    } | dict.fromkeys(("pull", "turn", "rate", "sway"), 0.0)


def drawn(
    shape: Float[Array, "b 3"], radius: Float[Array, " b"], at: Float[Array, "s 2"], across: int
) -> Float[Array, "b s"]:
    """How much of each pixel (at places ``at`` from the middle, ``across`` of them in a frame) a
    circle, a square and a triangle of that area cover; the mean of them, by the odds ``shape``."""
    inner = radius[:, None] * (jnp.pi / jnp.sqrt(27.0)) ** 0.5
    half = radius[:, None] * jnp.sqrt(jnp.pi) / 2
    x, y = at[:, 0], at[:, 1]

    def inside(distance):
        """Of a pixel whose middle is so far outside an edge."""
        return jnp.clip(0.5 - distance * across, 0.0, 1.0)

    circle = inside(jnp.sqrt(x**2 + y**2) - radius[:, None])
    square = inside(jnp.abs(x) - half) * inside(jnp.abs(y) - half)
    slope = jnp.sqrt(3.0) / 2
    triangle = inside(y - inner)
    for sign in (-1, 1):
        triangle *= inside(sign * slope * x - y / 2 - inner)
    shapes = jnp.stack([circle, square, triangle], 1)
    return (shape[..., None] * shapes).sum(1)
