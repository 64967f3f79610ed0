"""How `GridSlots` predicts: straight flight, what a hand, a camera and a pull add to it, contacts.

All take the bound module (``dynamics``), which owns what is learned.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from wm_jax.models.dynamics.kalman import UNIT, sway_on, widen
from wm_jax.models.dynamics.pixels import has_hue, saturation
from wm_jax.models.dynamics.tracking import Scene, panned, shared_pull, told_pull
from wm_jax.nn import contact_turning
from wm_jax.nn.contact import Bodies, collide, rebound
from wm_jax.nn.gradient import steady, within
from wm_jax.nn.outlook import brightness

#: Largest speed along an axis, shares of the frame a step.
FASTEST = 0.2
#: Fastest spin, radians a step.
FASTEST_TURN = 1.0
#: So that what a camera does is about as large in every number: x, y and zoom.
VIEW = np.array([1 / 16, 1 / 16, 4.0], np.float32)
#: The same, of what a light does.
LIGHT = 4.0
#: How sharply a contact chooses among directions, times their number: discs bounce most exactly if
#: a few neighbours share it.
SHARP = 20 / 3
#: A speed times this is about one.
FEEL = 32
#: So that a hand may become several times as heavy as what it pushes within some hundred updates.
HEAVY = 4.0
#: Longest gradient that a slot hands from a step to the one before, and that a contact hands to
#: what the step began with and to what all contacts share. Where bodies touch the same wall and
#: each other again and again, it grows tenfold a step, and where they hardly close but turn, a
#: hundred thousandfold in one, and drowns all others; at this length what is learned from single
#: contacts passes as it is.
LONGEST = 1.0


def bodies_of(dynamics: Any, scene: Scene) -> Bodies:
    """What is learned of every slot as a body, in the frame that its template is in."""
    support, sharp, log_mass, *gyration = jnp.split(
        dynamics.outline(_kind(dynamics, scene)),
        dynamics.directions + np.arange(2 + bool(dynamics.spin)),
        -1,
    )
    log_mass = 0.1 * log_mass
    if dynamics.told_size > 1:
        log_mass += HEAVY * dynamics.hand_mass * _grey(scene)
    return Bodies(
        support=0.08 + 0.05 * support,
        sharp=SHARP * dynamics.directions * jnp.exp(jnp.clip(0.3 * sharp, -2.0, 2.0)),
        log_mass=log_mass,
        present=followed(dynamics, scene),
        gyration=_gyration(support, *gyration) if dynamics.spin else None,
    )


def followed(dynamics: Any, scene: Scene) -> Float[Array, "*b k 1"]:
    """How much of a body each slot is. Where there may be a hand, there is one: of what has no hue,
    which a bar's end or the arena's edge may be taken for as the camera moves, that which was found
    in most frames."""
    if dynamics.told_size == 1:
        return scene.present
    grey = scene.present * _grey(scene)
    oldest = jnp.argmax(jnp.where(grey > 0.3, scene.age, -1.0), -2, keepdims=True)
    others = jnp.arange(grey.shape[-2])[:, None] != oldest
    return scene.present * (1 - others * _grey(scene))


def _kind(dynamics: Any, scene: Scene) -> Float[Array, "b k f"]:
    """What an object's outline, mass and freedom depend on: its looks; where a hand may be
    among them, which is grey, how much of a colour it has, too."""
    if dynamics.told_size == 1:
        return scene.look
    return jnp.concatenate([scene.look, 2 * saturation(scene.colour) - 1], -1)


def _gyration(support: Float[Array, "b k d"], told: Float[Array, "b k 1"]):
    """From that of a disc of the mean reach."""
    reach = jax.lax.stop_gradient((0.08 + 0.05 * support).mean(-1, keepdims=True))
    return 0.5 * jnp.square(jnp.maximum(reach, 0.02)) * jnp.exp(jnp.clip(told, -1.5, 1.5))


def predict(
    dynamics: Any,
    scene: Scene,
    told: Float[Array, "b t"],
    stage: bool = True,
    past: bool = True,
    bodies: Bodies | None = None,
    imagined: Bool[Array, " b"] | bool = False,
) -> Scene:
    """Straight on. Without ``stage`` or ``past`` that field stays what it is. ``imagined``: no
    frame of this step will be seen, so that what all slots know of a pull counts for each."""
    bodies = bodies or bodies_of(dynamics, scene)
    if dynamics.told_size > 1:
        view = _view(dynamics, scene.told, told)
        scene, bodies = _zoomed(dynamics, scene, bodies, told, view)
    pull = jnp.zeros_like(scene.speed)
    if dynamics.pull:
        scene, pull = _falling(dynamics, scene, imagined)
    news = dynamics.told_in(jnp.concatenate([told, scene.told], -1))
    push = shift = jnp.zeros_like(scene.speed)
    recent = scene.past
    if dynamics.told_size > 1:
        push, shift = _free(dynamics, scene, news, view)
        recent = panned(recent, view[:, :2], dynamics.cells) if past else recent
    speed = steady(scene.speed + push + pull, LONGEST)
    walls = jnp.broadcast_to(jnp.array([1.0, 1.0, 0.0, 0.0]) + dynamics.walls, (told.shape[0], 4))
    if dynamics.told_size > 1:
        walls = _shown(dynamics, walls, told)
    walls = steady(walls, LONGEST)
    bounce = _of_contacts(dynamics, scene, "bounce", (1.5, 1.5))
    late = within(0.05 + _each(dynamics.late, scene), 0.0, 0.5)
    flight, turning = (scene.place, speed, bodies), dict[str, Array]()
    pairs: Any
    sides: Any
    if dynamics.spin:
        spin = contact_turning.Spin(scene.turn, scene.rate)
        grip = _of_contacts(dynamics, scene, "grip", (0.02, 0.15))
        grip = [within(x, 0.0, 1.0) for x in grip]
        pairs = contact_turning.collide(*flight, spin, bounce[0], late[0], grip[0])
        sides = contact_turning.rebound(*flight, spin, walls, bounce[1], late[1], grip[1])
        turning = _turn(scene, pairs, sides)
    else:
        pairs = collide(*flight, bounce[0], late[0])
        sides = rebound(*flight, walls, bounce[1], late[1])
    blow = pairs.speed + sides.speed
    place = scene.place + speed - pull / 2 + shift + pairs.place + sides.place
    colour = scene.colour
    if dynamics.told_size > 1:
        before, after = light(dynamics, scene.told), light(dynamics, told)
        lit = brightness(after[:, None], place) / brightness(before[:, None], scene.place)
        colour = colour * lit
    doubt = jnp.square(UNIT * blow).sum(-1, keepdims=True)
    return scene._replace(
        stage=dynamics.stage.predict(scene.stage, dynamics.stage.told_in(told))
        if stage
        else scene.stage,
        place=jnp.clip(place, -0.2, 1.2),
        speed=jnp.clip(speed + blow, -FASTEST, FASTEST),
        colour=colour,
        spread=widen(scene.spread, 0.01 * doubt, 0.0025 * doubt),
        visible=jnp.zeros_like(scene.visible),
        past=recent,
        told=told,
        **turning,
    )


def _shown(dynamics: Any, walls: Float[Array, "b 4"], told: Array) -> Float[Array, "b 4"]:
    """Where the camera shows the walls, of where they are while it is told nothing."""
    by = _view(dynamics, jnp.zeros_like(told), told)
    return 0.5 + jnp.exp(by[:, 2:]) * (walls - 0.5) + by[:, [0, 1, 0, 1]]


def _zoomed(dynamics: Any, scene: Scene, bodies: Bodies, told: Array, view: Array):
    """What has a length is longer where the camera comes nearer: speeds and pulls with each step of
    it, outlines since they were seen."""
    now = jnp.exp(view[:, None, 2:])
    since = jnp.exp(_view(dynamics, scene.shown, told)[:, None, 2:])
    gyration = None if bodies.gyration is None else bodies.gyration * since**2
    bodies = bodies._replace(support=bodies.support * since, gyration=gyration)
    return scene._replace(speed=scene.speed * now, pull=scene.pull * now), bodies


def _falling(dynamics: Any, scene: Scene, imagined: Any) -> tuple[Scene, Float[Array, "b k 2"]]:
    """The scene, and each slot's pull. As long as it is followed that is what its own frames say of
    it; as soon as it is not, what all of them say. A hand is not pulled."""
    everyones = (1 - _grey(scene)) * shared_pull(scene, dynamics.pull)
    followed = (scene.visible > 0.1) & ~jnp.reshape(jnp.asarray(imagined), (-1, 1, 1))
    last = (scene.visible > 0.1) & ~followed
    told = told_pull(scene, everyones)
    places = {n: jnp.where(last, getattr(told, n), getattr(scene, n)) for n in ("place", "speed")}
    return scene._replace(**places), jnp.where(followed, scene.pull, everyones)


def _of_contacts(
    dynamics: Any, scene: Scene, name: str, start: tuple[float, float]
) -> list[Float[Array, "b _ 1"]]:
    """What is learned of contacts of each pair and of each slot with walls, from ``start`` on; of
    what is grey, where a hand may be, also by the parameter of that name after ``hand_``."""
    pairs, sides = (
        x + y for x, y in zip(start, _each(getattr(dynamics, name), scene), strict=True)
    )
    if dynamics.told_size == 1:
        return [pairs, sides]
    grey, hand = _grey(scene), _each(getattr(dynamics, f"hand_{name}"), scene)
    first, second = np.triu_indices(grey.shape[1], 1)
    return [pairs + hand[0] * (grey[:, first] + grey[:, second]), sides + hand[1] * grey]


def _each(parameter: Any, scene: Scene) -> Float[Array, "2 b 1 1"]:
    """A parameter of pairs and one of walls for each stream, none of which says too much of it."""
    each = jnp.asarray(parameter)[:, None, None, None]
    return steady(jnp.broadcast_to(each, (2, scene.place.shape[0], 1, 1)), LONGEST)


def _grey(scene: Scene) -> Float[Array, "b k 1"]:
    """1 of what has no hue, as a hand: it may weigh, bounce and grip unlike all that has one."""
    return 1 - has_hue(scene.colour)


def _turn(scene: Scene, pairs: contact_turning.Change, sides: contact_turning.Change):
    """Turn, rate and sway after a step."""
    spun, blow = pairs.rate + sides.rate, UNIT * (pairs.speed + sides.speed)
    doubt = 0.04 * jnp.square(spun) + 1e-4 * jnp.square(blow).sum(-1, keepdims=True)
    return {
        "turn": scene.turn + scene.rate + pairs.turn + sides.turn,
        "rate": jnp.clip(scene.rate + spun, -FASTEST_TURN, FASTEST_TURN),
        "sway": sway_on(scene.sway, doubt),
    }


def _free(dynamics: Any, scene: Scene, news: Float[Array, "b f"], view: Float[Array, "b 3"]):
    """Changes of speed and place beside collisions: what moves by itself, and how the
    ``view`` (x, y and zoom) moves what is in it."""
    news = jnp.broadcast_to(news[:, None], (*scene.place.shape[:2], news.shape[-1]))
    about = 8 * scene.place - 4, FEEL * scene.speed, _kind(dynamics, scene), news
    push, matrix = jnp.split(dynamics.free(jnp.concatenate(about, -1)), [2], -1)
    matrix = matrix.reshape(*matrix.shape[:-1], 2, 2)
    push = push / UNIT + (matrix * scene.speed[..., None, :]).sum(-1)
    bias, slope = dynamics.moves_itself[0] + 4, dynamics.moves_itself[1] + 10
    push = push * nn.sigmoid(bias - slope * saturation(scene.colour))
    return push, view[:, None, :2] + jnp.expm1(view[:, None, 2:]) * (scene.place - 0.5)


def outlook(dynamics: Any, scene: Scene) -> Float[Array, "*lead 9"]:
    """How what was last seen looks now: x, y and log zoom of the camera since then; the light then;
    the light now (`brightness`)."""
    lights = (light(dynamics, told) for told in (scene.shown, scene.told))
    return jnp.concatenate([_view(dynamics, scene.shown, scene.told), *lights], -1)


def light(dynamics: Any, told: Float[Array, "*lead t"]) -> Float[Array, "*lead 3"]:
    """See `brightness`."""
    return LIGHT * dynamics.light(told) + jnp.array([1.0, 0.0, 0.0])


def _view(dynamics: Any, before: Float[Array, "*lead t"], now: Float[Array, "*lead t"]):
    """x, y (shares of the frame) and log zoom of the camera from one step to another. How far it
    goes is told in the world's units: on the frame that is more, the nearer it is."""
    by, whole = (jnp.asarray(VIEW) * dynamics.view(told) for told in (now - before, now))
    return jnp.concatenate([by[..., :2] * jnp.exp(whole[..., 2:]), by[..., 2:]], -1)
