"""Edits: named changes of a scene, as a model is told them. See `wm_jax.shapes.LatentState`.

A model that can be edited has ``edits``, the kinds it takes, and ``edit(params, state, edits)``,
a `LatentState` in which the change has just been made and no time has passed. Light and camera are
not in a state but in what a model is told: a model that is told them takes those kinds by being
told otherwise from the next step on, and `edit` leaves its state as it is.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

KINDS = ("move", "push", "recolour", "remove", "add", "light", "camera", "gravity")
#: Kinds that change what a model is told instead of its state, and what that is.
TOLD = {"light": "light", "camera": "camera"}


class Edits(NamedTuple):
    """One edit a stream. Lengths are shares of the frame, x to the right and y down; colours are
    RGB in [0, 1]. What a kind does not need is zero.

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
