"""What a scene is told: by the caller, by what holds from before, and by edits of that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from wm_jax import shapes
from wm_jax.edit import TOLD, Camera, Change, Light, kind_of
from wm_jax.errors import UserError
from wm_jax.shapes import CONDITION_SIZES, Conditions, Signal

#: What stays as it was said until something else is.
HELD = ("light", "camera")
#: Where nobody said: gain and gradient of the light, pan and log zoom of the camera.
PLAIN = {"light": (1.0, 0.0, 0.0), "camera": (0.0, 0.0, 0.0)}


def conditions(
    given: Mapping[str, Any], lead: tuple[int, ...], modalities: Sequence[str], model: str
) -> Conditions:
    """Values by name, (time, k) or (batch, time, k), as the conditions of ``lead`` (batch, time);
    what is None or not given is absent. Raises `UserError`, which calls the model ``model``, for a
    name that is none or not of ``modalities``, and for another shape."""
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
