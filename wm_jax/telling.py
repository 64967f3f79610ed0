"""What a scene is told: by the caller, by what holds from before, by edits of that, and changes as
a model is told them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from wm_jax import naming, shapes
from wm_jax.edit import (
    KINDS,
    TOLD,
    Add,
    Camera,
    Change,
    Edits,
    Gravity,
    Light,
    Move,
    Push,
    Recolour,
    kind_of,
)
from wm_jax.errors import UserError
from wm_jax.naming import Thing
from wm_jax.shapes import CONDITION_SIZES, Conditions, Signal

#: What stays as it was said until something else is.
HELD = ("light", "camera")
#: Where nobody said: gain and gradient of the light, pan and log zoom of the camera.
PLAIN = {"light": (1.0, 0.0, 0.0), "camera": (0.0, 0.0, 0.0)}
#: Radius of an added object if none is said, 64ths of the frame: the middle of the twins world's.
RADIUS = 4.5


def conditions(
    given: Mapping[str, Any], lead: tuple[int, ...], modalities: Sequence[str], model: str
) -> Conditions:
    """Values by name, (time, k) or (batch, time, k), as the conditions of ``lead`` (batch, time);
    discrete actions also (time,); what is None or not given is absent. Raises `UserError`, which
    calls the model ``model``, for a name that is none or not of ``modalities``, for another shape,
    and for a discrete action that is none."""
    out = shapes.no_conditions(*lead)
    for name, signal in given.items():
        if name not in CONDITION_SIZES:
            known = ", ".join(CONDITION_SIZES)
            raise UserError(f"there is nothing called '{name}' to be told; there is {known}.")
        if signal is None:
            continue
        if name not in modalities:
            has = ", ".join(modalities) or "nothing besides frames"
            raise UserError(f"{model} is not told {name}; it is told {has}.")
        wanted, values = (*lead, CONDITION_SIZES[name]), np.asarray(signal, np.float32)
        if name == "discrete_actions":
            shapes.check_choices(values, f"told to {model}")
            values = values[:, None] if values.ndim == 1 else values
        values = values[None] if values.ndim == 2 else values
        if values.shape[1:] != wanted[1:] or values.shape[0] not in (1, lead[0]):
            raise UserError(f"{name} has shape {values.shape[-2:]}; give {wanted[1:]}.")
        values = np.broadcast_to(values, wanted)
        out = out._replace(**{name: Signal(jnp.asarray(values), jnp.ones(lead, bool))})
    return out


def held(told: Conditions) -> Conditions:
    """What stays said: the rest is absent."""
    nothing = shapes.no_conditions(*told.light.mask.shape)
    return nothing._replace(**{name: getattr(told, name) for name in HELD})


def throughout(held: Conditions | None, steps: int) -> Conditions | None:
    """What holds (b, …), in each of so many steps."""
    if held is None:
        return None
    return jax.tree.map(lambda x: jnp.repeat(x[:, None], steps, 1), held)


def with_held(told: Conditions, before: Conditions | None) -> Conditions:
    """What is told now, and where that is nothing, what holds from ``before``."""
    if before is None:
        return told

    both = shapes.with_pending(told, before)
    return told._replace(**{name: getattr(both, name) for name in HELD})


def with_first(told: Conditions, pending: Conditions | None) -> Conditions:
    """Steps (b, t, …) of which the first is also told what is ``pending`` (b, …)."""
    if pending is None:
        return told
    first = shapes.with_pending(shapes.at_time(told, 0), pending)
    return jax.tree.map(lambda x, y: jnp.asarray(x).at[:, 0].set(y), told, first)


def value(before: Conditions | None, name: str) -> np.ndarray:
    """(b, 3): what holds, or what is plain where nobody said."""
    plain = np.asarray(PLAIN[name], np.float32)
    if before is None:
        return plain[None]
    signal = getattr(before, name)
    return np.where(np.asarray(signal.mask)[..., None], np.asarray(signal.value), plain)


def retold(before: Conditions | None, changes: Sequence[Change | None]) -> Conditions:
    """What holds after changes of the light or of the camera, one a stream, all of one kind."""
    some = next(change for change in changes if change is not None)
    batch, name = len(changes), TOLD[kind_of(some)]
    before = before or shapes.no_conditions(batch)
    values = np.array(np.broadcast_to(value(before, name), (batch, 3)))
    for row, change in zip(values, changes, strict=True):
        if isinstance(change, Light):
            row[0] = row[0] if change.gain is None else change.gain
            row[1:] = row[1:] if change.gradient is None else change.gradient
        elif isinstance(change, Camera):
            if change.zoom <= 0:
                raise UserError(f"a zoom of {change.zoom:g} shows nothing; give one above 0.")
            row[:2] += change.pan
            row[2] += np.log(change.zoom)
    return before._replace(**{name: Signal(jnp.asarray(values), jnp.ones(batch, bool))})


def write(
    edits: Edits, stream: int, change: Change, there: Sequence[Thing] | None, resolution: int
) -> None:
    """Writes the change as one stream's row; of light and camera, which no state holds, nothing.
    Where nobody knows what is ``there`` (None), what is meant is a colour."""

    def share(pixels: Sequence[float]) -> np.ndarray:
        return np.asarray(pixels, np.float32) / resolution

    def inside(place: Sequence[float]) -> np.ndarray:
        x, y = place
        if not (0 <= x <= resolution and 0 <= y <= resolution):
            raise UserError(f"the place ({x:g}, {y:g}) is outside the frame of {resolution} px.")
        return share(place)

    if isinstance(change, Light | Camera):
        return
    if isinstance(change, Add):
        colour, shape = naming.colour_and_shape(change.what)
        if colour is None:
            raise UserError(f"'{change.what}' names no colour; say 'a blue {change.what}'.")
        edits.place[stream], edits.speed[stream] = inside(change.at), share(change.velocity)
        edits.paint[stream], edits.shape[stream] = naming.colour_of(colour), shape or 0
        radius = RADIUS / 64 if change.radius is None else change.radius / resolution
        edits.radius[stream] = radius
    elif isinstance(change, Gravity):
        edits.pull[stream] = share(change.pull)
    else:
        if there is None:
            edits.named[stream] = naming.colour_of(_colour_said(change.what))
        else:
            thing = naming.choose(change.what, there, resolution)
            edits.at[stream] = share(thing.place)
            edits.named[stream] = naming.colour_of(thing.hue) if thing.hue else thing.colour
        if isinstance(change, Move):
            edits.place[stream] = inside(change.to)
        elif isinstance(change, Push):
            edits.speed[stream] = share(change.velocity)
        elif isinstance(change, Recolour):
            word = change.colour
            edits.paint[stream] = naming.colour_of(word) if isinstance(word, str) else word
    edits.kind[stream] = KINDS.index(kind_of(change))


def _colour_said(what: Any) -> str:
    colour = naming.colour_and_shape(what)[0] if isinstance(what, str) else None
    if colour is None:
        raise UserError(
            f"this model has no slots to find '{what}' among; name the object by its colour, for "
            "example 'the red circle'."
        )
    return colour
