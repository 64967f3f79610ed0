"""What is said changes slots: whose, and what of them, learned from frames that came after it.

That slot is meant whose hue and looks agree best with what was said (attention: a product of
embeddings, a softmax over slots), and what was said is read for where something is put, how much
faster it gets, how it is painted, whether it goes, whether something comes that was not there, and
what pulls. Choices reach 0 and 1 (stretched, as in Louizos et al. 2018, arXiv 1712.01312, section
3), so that what is not meant stays what it was, to the last bit. What comes is drawn into a
template, as by `slot_edit`.

One thing is said at a time: slots share one softmax, and so do the choices, with one share for
none. With a sigmoid of its own each slot could be unmeant as long as nobody knows yet what happens
to it, and then nobody ever learned it; and a pull of 0.2 to 0.4 was heard in whatever was said,
which steadies what slots believe of theirs and moves what nobody spoke of.

Nothing says which slot was meant or what became of it: see `said_lesson`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from wm_jax.models.dynamics import motion, slot_edit, templates
from wm_jax.models.dynamics.pixels import CONTRAST
from wm_jax.models.dynamics.tracking import Scene
from wm_jax.nn.dense import Dense
from wm_jax.nn.gradient import within
from wm_jax.nn.mlp import MLP
from wm_jax.nn.outlook import brightness

#: What can happen to a slot that is meant, to an empty one, and to all.
CHOICES = ("move", "push", "paint", "remove", "add", "pull")

#: Frames in which something must have been found before anything is heard: what is said as a stream
#: begins is its caption, and changes nothing.
BEGUN = 3.0


class Heard(NamedTuple):
    """What was said, as it was understood. Lengths are shares of the frame.

    meant:  which slots, in [0, 1]     choices: `CHOICES`, each in [0, 1]
    place, speed, paint (RGB in [0, 1], in full light), pull: see `wm_jax.edit.Edits`
    from_it: how much of the place is meant from where it is, along each axis: "to the left" all
    shape:  odds of a circle, a square, a triangle         radius: of the circle of the same area
    """

    meant: Float[Array, "b k 1"]
    choices: dict[str, Float[Array, "b 1"]]
    place: Float[Array, "b 2"]
    from_it: Float[Array, "b 2"]
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
        there, said = said[:, :1] * (scene.age.max(1) > BEGUN), said[:, 1:]
        hue = 2 * slot_edit.hues(scene.colour) - 1
        asked = Dense(self.match)(said) + MLP((self.hidden, self.match))(said)
        offered = MLP((self.hidden, self.match))(jnp.concatenate([hue, scene.look], -1))
        agree = (asked[:, None] * offered).sum(-1, keepdims=True) / jnp.sqrt(self.match)
        meant = nn.softmax(jnp.where(scene.present < slot_edit.EMPTY, -1e9, agree), 1)
        sizes = {"choices": len(CHOICES), "place": 2, "from_it": 2, "speed": 2, "paint": 3}
        sizes |= {"pull": 2, "shape": 3}
        total = sum(sizes.values()) + 1
        out = Dense(total)(said) + MLP((self.hidden, total))(said)
        parts = jnp.split(out, np.cumsum(list(sizes.values())), -1)
        choices, place, from_it, speed, paint, pull, shape, radius = parts
        choices = _one_of(choices) * there
        return Heard(
            meant=_reached(meant) * scene.present * there[:, None],
            choices={name: choices[:, i : i + 1] for i, name in enumerate(CHOICES)},
            place=0.5 + place / 2,
            from_it=_choice(from_it - 1),
            speed=speed / 32,
            paint=nn.sigmoid(2 * paint),
            pull=pull / 512,
            shape=nn.softmax(shape),
            radius=0.08 * jnp.exp(jnp.clip(radius[:, 0] / 2, -1.0, 1.0)),
        )


def _choice(x: Float[Array, "*lead k"]) -> Float[Array, "*lead k"]:
    """In [0, 1], both of them reached; never so sure that it could not be unlearned."""
    return _reached(nn.sigmoid(4 * jnp.tanh(x / 4)))


def _one_of(x: Float[Array, "*lead k"]) -> Float[Array, "*lead k"]:
    """Shares of several and of none; of none the logit is 0. As bold and as unsure as `_choice`."""
    x = jnp.concatenate([jnp.zeros_like(x[..., :1]), 6 * jnp.tanh(x / 6)], -1)
    return _reached(nn.softmax(x)[..., 1:])


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
    # From the middle of the frame, or as far from where it is.
    place = place + heard.from_it[:, None] * (scene.place - 0.5)
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
