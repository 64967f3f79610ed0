"""Captions and event sentences. Every word is a fact of the simulation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Real

from data_pipelines.twins.world import ARENA, HUES, MAX_OBJECTS, SHAPES, Index

QUIET = 6  # frames during which a pair's later touches belong to the same event
FAINT = 0.2  # change of speed (world units a frame) below which a touch isn't told
HIDDEN, SEEN = 0.02, 0.1  # visible fractions: hidden below the one, back above the other


class Event(NamedTuple):
    """A sentence, the frame that first shows it, the object slot it is about (-1 none)."""

    frame: int
    text: str
    target: int


def thing(hue: Index, shape: Index) -> str:
    """'red circle'"""
    return f"{HUES[int(hue)]} {SHAPES[int(shape)]}"


def a_thing(hue: Index, shape: Index) -> str:
    """'an orange circle'"""
    name = thing(hue, shape)
    return f"an {name}" if name[0] in "aeiou" else f"a {name}"


def direction_word(vector: Real[np.ndarray, " 2"]) -> str:
    """left, right, up or down, whichever is nearest (y is down)."""
    if abs(vector[0]) >= abs(vector[1]):
        return "right" if vector[0] > 0 else "left"
    return "down" if vector[1] > 0 else "up"


def place_words(position: Real[np.ndarray, " 2"]) -> str:
    """Where in the arena: 'in the middle', 'at the top left', ..."""
    column = ("left", "", "right")[min(2, int(3 * position[0] / ARENA))]
    row = ("top", "", "bottom")[min(2, int(3 * position[1] / ARENA))]
    words = " ".join(word for word in (row, column) if word)
    return f"at the {words}" if words else "in the middle"


def change(
    kind: str,
    who: str,
    params: Real[np.ndarray, " p"],
    place: Real[np.ndarray, " 2"] | None = None,
) -> str:
    """The sentence of an intervention, without numbers; ``params`` as `interventions` writes them.
    ``place``: of a move, where the object was."""
    if kind == "move" and place is not None:
        return f"{who} is moved {direction_word(params[:2] - place)}"
    if kind == "push":
        return f"{who} is pushed {direction_word(params[:2])}"
    if kind == "recolour":
        return f"{who} turns {HUES[int(params[0])]}"
    if kind == "remove":
        return f"{who} disappears"
    if kind == "add":
        return f"{a_thing(params[4], params[5])} appears {place_words(params[:2])}"
    if kind == "light":
        return f"the light gets {'brighter' if params[0] > 0 else 'dimmer'}"
    if kind == "camera":
        word = "in" if params[2] > 0 else "out"
        return f"the camera moves {direction_word(params[:2])} and zooms {word}"
    if kind == "gravity":
        return f"gravity now pulls {direction_word(params[:2])}"
    raise ValueError(f"no sentence says a change of kind '{kind}'")


def caption(hue, shape, occluders: int, hand: bool, gravity: Real[np.ndarray, " 2"]) -> str:
    """The scene at frame 0: objects in slot order, bars, hand, gravity."""
    things = [a_thing(h, s) for h, s in zip(hue, shape, strict=True) if h >= 0]
    text = things[0] if len(things) == 1 else ", ".join(things[:-1]) + " and " + things[-1]
    if occluders:
        text += ", with a bar in front" if occluders == 1 else ", with two bars in front"
    if hand:
        text += "; a hand pushes"
    if np.any(gravity):
        text += f"; gravity pulls {direction_word(gravity)}"
    return text


def touch_events(states, onsets: Sequence[Sequence], mass: np.ndarray) -> list[Event]:
    """One sentence for each touch that changes an object's speed by at least FAINT."""
    events: list[Event] = []
    last: dict[tuple[int, int, str], int] = {}
    for frame, contacts in enumerate(onsets):
        for contact in contacts:
            pair = (contact.a, contact.b, contact.wall)
            before, last[pair] = last.get(pair, -QUIET - 1), frame
            if frame - before <= QUIET or contact.impulse < FAINT * mass[contact.a]:
                continue
            # An object removed at this frame still touched during it: name it by the past.
            at = frame if states["present"][frame, contact.a] else frame - 1
            name = thing(states["hue"][at, contact.a], states["shape"][at, contact.a])
            if contact.b < MAX_OBJECTS:
                other = thing(states["hue"][at, contact.b], states["shape"][at, contact.b])
                text = f"the {name} and the {other} collide"
            elif contact.b == MAX_OBJECTS:
                text = f"the {name} hits the {contact.wall} wall"
            else:
                text = f"the hand pushes the {name}"
            events.append(Event(frame, text, contact.a))
    return events


def sight_events(states, visible: Float[np.ndarray, "T N"], occluders) -> list[Event]:
    """One sentence for each object that goes out of sight or comes back."""
    events = []
    for slot in np.flatnonzero(states["present"].any(0)):
        seen = True
        for frame in np.flatnonzero(states["present"][:, slot]):
            share = visible[frame, slot]
            was_seen, seen = seen, bool(share >= HIDDEN if seen else share > SEEN)
            if seen == was_seen:
                continue
            x = states["position"][frame, slot, 0]
            barred = any(x0 - 8 < x < x1 + 8 for x0, _, x1, _ in occluders)
            name = thing(states["hue"][frame, slot], states["shape"][frame, slot])
            if seen:
                text = f"the {name} comes {'out from behind the bar' if barred else 'into view'}"
            else:
                text = f"the {name} goes {'behind the bar' if barred else 'out of view'}"
            events.append(Event(int(frame), text, int(slot)))
    return events
