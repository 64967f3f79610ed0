"""What is said is learned from what frames show some steps later.

From the slots before it, some steps are imagined in which it is heard. What is there then is
matched with what the frames show, each thing with one (as DETR does, Carion et al. 2020, arXiv
2005.12872, section 3.1), and compared: places on the way, colour, presence, and the outline of what
came.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax.assignment
from jaxtyping import Array, Bool, Float, Int

from wm_jax.models.dynamics import motion, slot_edit, slot_hearing, templates
from wm_jax.models.dynamics.pixels import CONTRAST
from wm_jax.models.dynamics.tracking import Scene
from wm_jax.nn.compute import over_time
from wm_jax.nn.gradient import steady

#: Price of a slot that is there where none is, or the other way round, in matching what is told
#: with what is seen; most that a difference of hue, and one of place, costs. Something that
#: changed in one of the two is the same, something that changed in both is something else.
PRICE, MOST = 0.7, 0.6
#: Price of taking for new what could be something that was there: else what is painted is learned
#: as one thing that goes and another that comes.
OLD = 1.0
#: Price of taking something for what became of an empty slot that nothing would have filled.
NEVER = 9.0
#: Frames into a stream from which slots are known well enough to learn from.
SETTLED = 4
#: A presence from which the tracker is believed that something is there.
THERE = 0.6
#: What a wrong colour (RGB in [0, 1]), a wrong presence (nats) and a wrong outline of what came
#: (pixels, over its own) weigh against a place that is an eighth of the frame off.
COLOUR, PRESENCE, OUTLINE = 8.0, 0.5, 2.0


class Future(NamedTuple):
    """What was imagined and what was seen, in each of k steps (``places``, ``shown``), and at the
    last that there is; ``real``: which there are."""

    heard: Scene
    places: Float[Array, "k b n 2"]
    place: Float[Array, "b n 2"]
    colour: Float[Array, "b n c"]
    shown: Scene
    end: Scene
    real: Bool[Array, "k b"]


def said_error(
    dynamics: Any, slots: Scene, told: Float[Array, "b t k"], is_first: Bool[Array, "b t"]
) -> Float[Array, "b t"]:
    """At the step that hears the last thing that is said in a window: the error of places over up
    to ``dynamics.foresight`` steps, in eighths of the frame, and of the rest at the last of them,
    summed over things. Zero where nothing is said."""
    flag = told[..., dynamics.told_size] > 0
    flag &= (_since(is_first) >= SETTLED) & ~is_first
    at = flag.shape[1] - 1 - jnp.argmax(flag[:, ::-1], 1)
    said, stream = flag.any(1), jnp.arange(len(at))
    begin = jax.tree.map(lambda x: x[stream, at - 1], slots)
    future = _imagine(dynamics, slots, begin, told, at)
    error = _error(future, begin, *_matched(future, begin))
    return jnp.zeros(is_first.shape).at[stream, at].set(error * said)


def _imagine(
    dynamics: Any, slots: Scene, begin: Scene, told: Float[Array, "b t k"], at: Int[Array, " b"]
) -> Future:
    time, stream = told.shape[1], jnp.arange(len(at))
    holding, said = jnp.split(told, [dynamics.told_size], -1)
    heard = dynamics.hearing(begin, said[stream, at])
    scene = slot_hearing.apply(dynamics, begin, heard)
    bodies = motion.bodies_of(dynamics, scene)

    def ahead(module, moving, step):
        now = jnp.minimum(at + step, time - 1)
        before = scene._replace(**{k: steady(x, motion.LONGEST) for k, x in moving.items()})
        alone = {"stage": False, "past": False, "imagined": True}
        after = motion.predict(module, before, holding[stream, now], bodies=bodies, **alone)
        moving = {name: getattr(after, name) for name in moving}
        return moving, (after.place, after.colour)

    turning = ("turn", "rate") if dynamics.spin else ()
    changing = ("place", "speed", "visible", "told", "colour", *turning)
    moving = {name: getattr(scene, name) for name in changing}
    steps = jnp.arange(dynamics.foresight)
    _, (places, colours) = over_time(ahead, 0, 0)(dynamics, moving, steps)
    when = at + steps[:, None]
    shown = jax.tree.map(lambda x: x[stream, jnp.minimum(when, time - 1)], slots)
    last = jnp.minimum(dynamics.foresight, time - at) - 1
    end = jax.tree.map(lambda x: x[last, stream], shown)
    place, colour = places[last, stream], colours[last, stream]
    return Future(scene, places, place, colour, shown, end, when < time)


def _matched(future: Future, begin: Scene) -> tuple[Int[Array, "b n"], Int[Array, "b n"]]:
    """Slots that were imagined and slots that were seen, in pairs: the cheapest assignment."""
    end, present = future.end, future.heard.present
    there = (end.present > THERE).swapaxes(1, 2) * 1.0
    unlike = _apart(slot_edit.hues(future.colour), slot_edit.hues(end.colour)) / 0.5
    far = 0.2 * _apart(8 * future.place, 8 * end.place)
    cost = jnp.minimum(unlike, MOST) + jnp.minimum(far, MOST) + PRICE * (1 - present)
    free, filled = begin.present < slot_edit.EMPTY, slot_edit.empty(begin)[..., None]
    cost = there * (cost + OLD * free + NEVER * (free & ~filled)) + (1 - there) * PRICE * present
    return jax.vmap(optax.assignment.hungarian_algorithm)(jax.lax.stop_gradient(cost))


def _error(future: Future, begin: Scene, mine: Array, theirs: Array) -> Float[Array, " b"]:
    """Of the pairs."""

    def of(x: Array, index: Array) -> Array:
        """(…, b, n, d) in the order of the pairs."""
        index = index.reshape((1,) * (x.ndim - 3) + (*index.shape, 1))
        return jnp.take_along_axis(x, index, -2)

    shown, end, real = future.shown, future.end, future.real
    there = of((end.present > THERE) * 1.0, theirs)[..., 0]
    trusted = of(shown.present * shown.visible, theirs)[..., 0] * real[..., None] * there
    off = jnp.square(of(future.places, mine) - of(shown.place, theirs)).sum(-1)
    off = (jnp.sqrt(64 * off + 4e-4) - 0.02) * trusted
    error = off.sum(0) / jnp.maximum(real.sum(0), 1)[:, None]
    paint = jnp.abs(of(future.colour, mine) - of(end.colour, theirs)).mean(-1) / CONTRAST
    # So that what is certain can be unsaid.
    likely = 0.05 + 0.9 * of(future.heard.present, mine)[..., 0]
    wrong = -there * jnp.log(likely) - (1 - there) * jnp.log(1 - likely)
    drawn, _ = templates.coverage_and_known(of(future.heard.template, mine))
    outline, known = templates.coverage_and_known(of(end.template, theirs))
    came = of(slot_edit.empty(begin)[..., None] * 1.0, mine)[..., 0]
    size = (outline * known).sum(-1) + 1
    outline = (jnp.abs(drawn - outline) * known).sum(-1) / size * came
    seen = there * of(end.visible, theirs)[..., 0]
    error = error + seen * (COLOUR * paint + OUTLINE * outline) + PRESENCE * wrong
    return error.sum(-1)


def _since(is_first: Bool[Array, "b t"]) -> Int[Array, "b t"]:
    """Frames since a stream began."""
    frames = jnp.arange(is_first.shape[1])
    return frames - jax.lax.cummax(jnp.where(is_first, frames, 0), axis=1)


def _apart(a: Float[Array, "b i d"], b: Float[Array, "b j d"]) -> Float[Array, "b i j"]:
    return jnp.sqrt(jnp.square(a[:, :, None] - b[:, None]).sum(-1) + 1e-8)
