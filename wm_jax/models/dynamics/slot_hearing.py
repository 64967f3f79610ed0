"""What is said changes slots: whose, and what of them, learned from frames that came after it.

That slot is meant whose hue and looks agree best with what was said (attention: a product of
embeddings, a softmax over slots), and what was said is read for where something is put, how much
faster it gets, how it is painted, whether it goes, whether something comes that was not there, and
what pulls. Choices reach 0 and 1 (stretched, as in Louizos et al. 2018, arXiv 1712.01312, section
3), so that what is not meant stays what it was, to the last bit. What comes is drawn into a
template, as by `slot_edit`.

With a sigmoid of its own each slot could be unmeant as long as nobody knows yet what happens to it,
and then nobody ever learned it.

Nothing says which slot was meant or what became of it: `said_error` compares where the slots would
be, in what colour, with what frames show some steps later.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax.assignment
from jaxtyping import Array, Bool, Float

from wm_jax.models.dynamics import motion, slot_edit, templates
from wm_jax.models.dynamics.pixels import CONTRAST
from wm_jax.models.dynamics.tracking import Scene
from wm_jax.nn.compute import over_time
from wm_jax.nn.dense import Dense
from wm_jax.nn.gradient import steady, within
from wm_jax.nn.mlp import MLP
from wm_jax.nn.outlook import brightness

#: What can happen to a slot that is meant, to an empty one, and to all.
CHOICES = ("move", "push", "paint", "remove", "add", "pull")
#: Price of a slot that is there where none is, or the other way round, in matching what is told
#: with what is seen; most that a difference of hue, and one of place, costs. Something that
#: changed in one of the two is the same, something that changed in both is something else.
PRICE, MOST = 0.7, 0.6
#: Price of taking for new what could be something that was there: else what is painted is learned
#: as one thing that goes and another that comes.
OLD = 1.0
#: Frames into a stream from which slots are known well enough to learn from.
SETTLED = 4
#: A presence from which the tracker is believed that something is there.
THERE = 0.6
#: What a wrong colour (RGB in [0, 1]), a wrong presence (nats) and a wrong outline of what came
#: weigh against a place that is an eighth of the frame off.
COLOUR, PRESENCE, OUTLINE = 8.0, 0.5, 4.0


class Heard(NamedTuple):
    """What was said, as it was understood. Lengths are shares of the frame.

    meant:  which slots, in [0, 1]     choices: `CHOICES`, each in [0, 1]
    place, speed, paint (RGB in [0, 1], in full light), pull: see `wm_jax.edit.Edits`
    shape:  odds of a circle, a square, a triangle         radius: of the circle of the same area
    """

    meant: Float[Array, "b k 1"]
    choices: dict[str, Float[Array, "b 1"]]
    place: Float[Array, "b 2"]
    speed: Float[Array, "b 2"]
    paint: Float[Array, "b 3"]
    pull: Float[Array, "b 2"]
    shape: Float[Array, "b 3"]
    radius: Float[Array, " b"]


class Hearing(nn.Module):
    """Slots and what is said, (b, 1 + e), of which the first is 1 where anything is, to `Heard`."""

    hidden: int = 128
    match: int = 32

    @nn.compact
    def __call__(self, scene: Scene, said: Float[Array, "b k"]) -> Heard:
        there, said = said[:, :1], said[:, 1:]
        hue = 2 * slot_edit.hues(scene.colour) - 1
        asked = Dense(self.match)(said) + MLP((self.hidden, self.match))(said)
        offered = MLP((self.hidden, self.match))(jnp.concatenate([hue, scene.look], -1))
        agree = (asked[:, None] * offered).sum(-1, keepdims=True) / jnp.sqrt(self.match)
        meant = nn.softmax(jnp.where(scene.present < slot_edit.EMPTY, -1e9, agree), 1)
        sizes = {"choices": len(CHOICES), "place": 2, "speed": 2, "paint": 3, "pull": 2, "shape": 3}
        total = sum(sizes.values()) + 1
        out = Dense(total)(said) + MLP((self.hidden, total))(said)
        parts = jnp.split(out, np.cumsum(list(sizes.values())), -1)
        choices, place, speed, paint, pull, shape, radius = parts
        choices = _choice(choices) * there
        return Heard(
            meant=_reached(meant) * scene.present * there[:, None],
            choices={name: choices[:, i : i + 1] for i, name in enumerate(CHOICES)},
            place=0.5 + place / 2,
            speed=speed / 32,
            paint=nn.sigmoid(2 * paint),
            pull=pull / 512,
            shape=nn.softmax(shape),
            radius=0.08 * jnp.exp(jnp.clip(radius[:, 0] / 2, -1.0, 1.0)),
        )


def _choice(x: Float[Array, "*lead k"]) -> Float[Array, "*lead k"]:
    """In [0, 1], both of them reached; never so sure that it could not be unlearned."""
    return _reached(nn.sigmoid(4 * jnp.tanh(x / 4)))


def _reached(share: Float[Array, "*lead k"]) -> Float[Array, "*lead k"]:
    """Stretched so that 0 and 1 are reached."""
    return within(1.2 * share - 0.1, 0.0, 1.0)


def apply(dynamics: Any, scene: Scene, heard: Heard) -> Scene:
    """The scene after what was heard; no time passes. ``dynamics`` is the bound `GridSlots`."""

    def of(name: str) -> Float[Array, "b k 1"]:
        return heard.meant * heard.choices[name][:, None]

    def towards(old: Array, new: Array, share: Array) -> Array:
        return old + share * (new - old)

    place, speed, paint = (x[:, None] for x in (heard.place, heard.speed, CONTRAST * heard.paint))
    if dynamics.told_size > 1:  # what is painted is lit as all the rest is
        paint = paint * brightness(motion.light(dynamics, scene.told)[:, None], scene.place)
    falls = heard.choices["pull"][:, None] * scene.present
    sure = scene.spread.at[..., 6:].multiply(1 - falls)
    scene = scene._replace(
        place=towards(scene.place, place, of("move")),
        speed=scene.speed + of("push") * speed,
        colour=towards(scene.colour, paint, of("paint")),
        present=scene.present * (1 - of("remove")),
        visible=scene.visible * (1 - of("remove")),
        pull=towards(scene.pull, heard.pull[:, None], falls),
        spread=sure,
    )
    return _add(dynamics, scene, heard)


def _add(dynamics: Any, scene: Scene, heard: Heard) -> Scene:
    """What comes, in the emptiest slot, if that is empty; as likely there as it is said to be."""
    share = heard.choices["add"][:, None]
    chosen = slot_edit.empty(scene) & (share[..., 0] > 0)
    side = round((scene.template.shape[-1] // 2) ** 0.5)
    spots = templates.spots(side**2, dynamics.cells)
    coverage = slot_edit.drawn(heard.shape, heard.radius, spots, dynamics.cells[0])
    new = slot_edit.made(coverage, spots, dynamics.pull, dynamics.look_at)
    paint = CONTRAST * heard.paint
    if dynamics.told_size > 1:
        light = motion.light(dynamics, scene.told)
        paint = paint * brightness(light[:, None], heard.place[:, None])[:, 0]
    new |= {"place": heard.place, "speed": heard.speed, "colour": paint}
    new |= {"present": share, "visible": share}
    return slot_edit.put(scene, chosen, **new)


def said_error(
    dynamics: Any, slots: Scene, told: Float[Array, "b t k"], is_first: Bool[Array, "b t"]
) -> Float[Array, "b t"]:
    """At the step that hears the last thing that is said in a window: from the slots before it, up
    to ``dynamics.foresight`` steps are imagined, and what is there at the last is matched with what
    the frames show then, each thing with one. The error of places over all steps, in eighths of the
    frame, and of colours, presence and outlines, summed over things."""
    batch, time = is_first.shape
    flag = told[..., dynamics.told_size] > 0
    age = _since(is_first)
    flag &= (age >= SETTLED) & ~is_first
    at = time - 1 - jnp.argmax(flag[:, ::-1], 1)
    said, stream = flag.any(1), jnp.arange(batch)
    begin = jax.tree.map(lambda x: x[stream, at - 1], slots)
    heard = apply(dynamics, begin, dynamics.hearing(begin, told[stream, at, dynamics.told_size :]))
    heard = heard._replace(look=dynamics.look_at(heard.template)[0])
    bodies = motion.bodies_of(dynamics, heard)

    def ahead(module, moving, step):
        now = jnp.minimum(at + step, time - 1)
        scene = heard._replace(**{k: steady(x, motion.LONGEST) for k, x in moving.items()})
        hears = told[stream, now, : dynamics.told_size]
        alone = {"stage": False, "past": False, "imagined": True}
        scene = motion.predict(module, scene, hears, bodies=bodies, **alone)
        moving = {name: getattr(scene, name) for name in moving}
        return moving, (scene.place, scene.colour)

    turning = ("turn", "rate") if dynamics.spin else ()
    changing = ("place", "speed", "visible", "told", "colour", *turning)
    moving = {name: getattr(heard, name) for name in changing}
    steps = jnp.arange(dynamics.foresight)
    _, (places, colours) = over_time(ahead, 0, 0)(dynamics, moving, steps)
    when = jnp.minimum(at + steps[:, None], time - 1)  # (k, b)
    real = at + steps[:, None] < time
    shown = jax.tree.map(lambda x: x[stream, when], slots)  # (k, b, …)
    last = jnp.minimum(dynamics.foresight, time - at) - 1  # the last real step
    end = jax.tree.map(lambda x: x[last, stream], shown)
    place, colour = places[last, stream], colours[last, stream]

    there = (end.present[..., 0] > THERE) * 1.0  # (b, j)
    known = there * end.visible[..., 0]
    unlike = _apart(slot_edit.hues(colour), slot_edit.hues(end.colour)) / 0.5
    far = _apart(8 * place, 8 * end.place)
    cost = jnp.minimum(unlike, MOST) + jnp.minimum(0.2 * far, MOST)
    present = heard.present[..., 0]
    cost = there[:, None] * (cost + PRICE * (1 - present[..., None]))
    # What was there before is something that is there now, if it can be; of the empty slots only
    # that one can have become something which `apply` would have filled.
    free, filled = begin.present[..., 0] < slot_edit.EMPTY, slot_edit.empty(begin)
    cost = cost + (OLD * free + 9.0 * (free & ~filled))[..., None] * there[:, None]
    cost = cost + (1 - there)[:, None] * PRICE * present[..., None]
    mine, theirs = jax.vmap(optax.assignment.hungarian_algorithm)(jax.lax.stop_gradient(cost))

    def of(x: Array, index: Array) -> Array:
        """(…, b, k, d) in the order of the pairs."""
        index = index.reshape((1,) * (x.ndim - 3) + (*index.shape, 1))
        return jnp.take_along_axis(x, index, -2)

    trusted = of(shown.present * shown.visible, theirs)[..., 0] * real[..., None]
    trusted = trusted * of(there[..., None], theirs)[..., 0]
    off = jnp.square(of(places, mine) - of(shown.place, theirs)).sum(-1)
    off = (jnp.sqrt(64 * off + 4e-4) - 0.02) * trusted
    error = off.sum(0) / jnp.maximum(real.sum(0), 1)[:, None]
    seen = of(known[..., None], theirs)[..., 0]
    paint = jnp.abs(of(colour, mine) - of(end.colour, theirs)).mean(-1) / CONTRAST
    likely = 0.05 + 0.9 * of(heard.present, mine)[..., 0]  # so that what is certain can be unsaid
    truth = of(there[..., None], theirs)[..., 0]
    wrong = -truth * jnp.log(likely) - (1 - truth) * jnp.log(1 - likely)
    drawn, _ = templates.coverage_and_known(of(heard.template, mine))
    outline, sure = templates.coverage_and_known(of(end.template, theirs))
    came = of(filled[..., None] * 1.0, mine)[..., 0]
    outline = (jnp.abs(drawn - outline) * sure).mean(-1) * came
    error = error + seen * (COLOUR * paint + OUTLINE * outline) + PRESENCE * wrong
    return jnp.zeros(is_first.shape).at[stream, at].set(error.sum(-1) * said)


def _since(is_first: Bool[Array, "b t"]) -> Float[Array, "b t"]:
    """Frames since a stream began."""
    frames = jnp.arange(is_first.shape[1])
    return frames - jax.lax.cummax(jnp.where(is_first, frames, 0), axis=1)


def _apart(a: Float[Array, "b i d"], b: Float[Array, "b j d"]) -> Float[Array, "b i j"]:
    return jnp.sqrt(jnp.square(a[:, :, None] - b[:, None]).sum(-1) + 1e-8)
