"""Edits: named changes of a scene, as a person writes them and as a model is told them.

A person writes a `Change`, in pixels of the model's frames, x to the right and y down, and names an
object by its colour and shape, by a point near it or by its slot (see `wm_jax.naming`):

    [Push("red ball", velocity=(2.0, 0.0)), Light(gain=0.6)]

A model that can be edited has ``edits``, the kinds it takes, and ``edit(params, state, edits)``,
a `LatentState` in which the change has just been made and no time has passed; `Edits` is what it
is told. Light and camera are not in a state but in what a model is told: a model that is told them
takes those kinds by being told otherwise from the next step on, and ``edit`` leaves its state as it
is. `wm_jax.world` brings the two together.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from wm_jax.errors import UserError

if TYPE_CHECKING:  # it would import jax, which readers of data do without
    from jaxtyping import Array

KINDS = ("move", "push", "recolour", "remove", "add", "light", "camera", "gravity")
#: Kinds of one object that is there, which is named.
OF_OBJECTS = ("move", "push", "recolour", "remove")
#: Kinds that change what a model is told instead of its state, and what that is.
TOLD = {"light": "light", "camera": "camera"}

#: The kind of what is kept in words.
SENTENCE = "sentence"

#: How an object is named: by words, by its slot, or by a point near it (px).
Who = str | int | tuple[float, float]
Pair = tuple[float, float]


@dataclasses.dataclass(frozen=True)
class Move:
    """``what`` is put ``to`` a place (px); it keeps its velocity."""

    what: Who
    to: Pair


@dataclasses.dataclass(frozen=True)
class Push:
    """``velocity`` (px a frame) is added to that of ``what``."""

    what: Who
    velocity: Pair


@dataclasses.dataclass(frozen=True)
class Recolour:
    """``what`` gets a ``colour``: a word, or RGB in [0, 1] as it looks in full light."""

    what: Who
    colour: str | tuple[float, float, float]


@dataclasses.dataclass(frozen=True)
class Remove:
    """``what`` is gone."""

    what: Who


@dataclasses.dataclass(frozen=True)
class Add:
    """A new object: ``what`` is its colour and shape ('blue triangle'), ``at`` its place (px),
    ``velocity`` px a frame, ``radius`` px of the circle of the same area."""

    what: str
    at: Pair
    velocity: Pair = (0.0, 0.0)
    radius: float | None = None


@dataclasses.dataclass(frozen=True)
class Light:
    """The light from the next frame on; what is None stays as it is. ``gain`` 1 is full light;
    ``gradient`` is how much brighter the right and the lower edge are than the middle."""

    gain: float | None = None
    gradient: Pair | None = None


@dataclasses.dataclass(frozen=True)
class Camera:
    """The view moves by ``pan`` (64ths of the frame) and is magnified ``zoom`` times, from the next
    frame on: things look larger where it is above 1."""

    pan: Pair = (0.0, 0.0)
    zoom: float = 1.0


@dataclasses.dataclass(frozen=True)
class Gravity:
    """Everything falls with this ``pull`` (px a frame²), in place of what pulled before."""

    pull: Pair


Change = Move | Push | Recolour | Remove | Add | Light | Camera | Gravity
CHANGES: Mapping[str, type] = {
    "move": Move,
    "push": Push,
    "recolour": Recolour,
    "remove": Remove,
    "add": Add,
    "light": Light,
    "camera": Camera,
    "gravity": Gravity,
}


#: What `as_list` takes: changes, or sentences that mean some.
Said = str | Change | Sequence[str | Change]


def as_list(changes: Said) -> list[str | Change]:
    """One or several, as a list."""
    if isinstance(changes, str) or not isinstance(changes, Sequence):
        return [changes]
    return list(changes)


def kind_of(change: Change) -> str:
    """Its name in `KINDS`."""
    return type(change).__name__.lower()


def to_json(change: str | Change) -> dict[str, Any]:
    """A dict that `from_json` reads back."""
    if isinstance(change, str):
        return {"kind": SENTENCE, "text": change}
    return {"kind": kind_of(change), **dataclasses.asdict(change)}


def from_json(told: Mapping[str, Any]) -> str | Change:
    """Raises `UserError` for an unknown kind or a field that a kind does not have."""
    if told.get("kind") == SENTENCE:
        return str(told.get("text", ""))
    fields = {k: tuple(v) if isinstance(v, list) else v for k, v in told.items() if k != "kind"}
    kind = str(told.get("kind"))
    if kind not in CHANGES:
        raise UserError(f"there is no edit '{kind}'; there are {', '.join(KINDS)}.")
    try:
        return CHANGES[kind](**fields)
    except TypeError:
        known = ", ".join(field.name for field in dataclasses.fields(CHANGES[kind]))
        raise UserError(f"the edit {dict(told)} does not fit: '{kind}' takes {known}.") from None


class Edits(NamedTuple):
    """One edit a stream, as a model is told it. Lengths are shares of the frame, x to the right and
    y down; colours are RGB in [0, 1]. What a kind does not need is zero.

    kind:   index into `KINDS`; -1: none
    at:     where the object now is that is meant; and
    named:  the colour it is called by, in full light
    place:  where it is put (move, add)
    speed:  change of its velocity (push), or its velocity (add), a step
    paint:  its new colour in full light (recolour, add)
    shape:  0 circle, 1 square, 2 triangle that points up (add)
    radius: of the circle of the same area (add)
    pull:   the new gravity, a step² (gravity)
    """

    kind: Int[np.ndarray, " b"]
    at: Float[np.ndarray, "b 2"]
    named: Float[np.ndarray, "b 3"]
    place: Float[np.ndarray, "b 2"]
    speed: Float[np.ndarray, "b 2"]
    paint: Float[np.ndarray, "b 3"]
    shape: Int[np.ndarray, " b"]
    radius: Float[np.ndarray, " b"]
    pull: Float[np.ndarray, "b 2"]


def no_edits(batch_size: int) -> Edits:
    """Edits that do nothing."""

    def zeros(*size: int) -> np.ndarray:
        return np.zeros((batch_size, *size), np.float32)

    whole = np.zeros(batch_size, np.int32)
    return Edits(
        whole - 1, zeros(2), zeros(3), zeros(2), zeros(2), zeros(3), whole, zeros(), zeros(2)
    )


def as_vector(edits: Edits, xp: Any = np) -> Float[Any, "b 24"]:
    """Edits as the condition ``intervention`` tells them: the kind (8, one-hot), the colour by
    which the object is called (3), where it is put (2), its speed (2) and new colour (3), its shape
    (3, one-hot), its radius, the pull (2). Lengths are scaled to be near one. Where the object now
    is is not part of it. Without an edit, all zeros. ``xp`` is numpy or jax.numpy."""
    some = (edits.kind >= 0)[:, None]
    kind = edits.kind[:, None] == xp.arange(len(KINDS))
    added = (edits.kind == KINDS.index("add"))[:, None]
    shape = added & (edits.shape[:, None] == xp.arange(3))
    parts = (
        *(kind, edits.named, 2 * edits.place - some * _placed(edits.kind, xp), 32 * edits.speed),
        *(edits.paint, shape, 8 * edits.radius[:, None], 512 * edits.pull),
    )
    return xp.concatenate([xp.asarray(part, xp.float32) for part in parts], -1) * some


def says(edits: Edits, xp: Any = np) -> Any:
    """In which streams (b,) there is anything to tell: a push by nothing is no change."""
    push = edits.kind == KINDS.index("push")
    return (edits.kind >= 0) & ~(push & (xp.abs(edits.speed).sum(-1) == 0))


def _placed(kind: Any, xp: Any) -> Any:
    """1 for the kinds that put something somewhere: their places are counted from the middle."""
    return ((kind == KINDS.index("move")) | (kind == KINDS.index("add")))[:, None]


class Objects(NamedTuple):
    """What a state says of the objects in it, one of k slots each; of a model whose dynamics have
    ``objects(carry)``. Lengths are shares of the frame.

    place:    where it is               speed:  shares a step
    present:  in [0, 1]; a slot below a half is empty
    colour:   RGB in [0, 1], in the light that falls on it
    coverage: how much of each cell of a square map around it it covers, as far as was seen
    known:    how much of its outline was ever seen, in [0, 1]
    """

    place: Float[Array, "b k 2"]
    speed: Float[Array, "b k 2"]
    present: Float[Array, "b k"]
    colour: Float[Array, "b k 3"]
    coverage: Float[Array, "b k s s"]
    known: Float[Array, "b k"]
