"""What objects are called, and which one is meant.

A colour is named by its hue, the angle around grey: nine words 40° apart, which are those of the
twins world, and some more that people use. A shape is named by the moments of its outline: of z³ a
triangle has one, of z⁴ a square, a circle neither; they do not change as it turns.
"""

from __future__ import annotations

import colorsys
import dataclasses
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from wm_jax.edit import Objects, Who
from wm_jax.errors import UserError

#: Degrees. The first nine have names of their own in `Thing.hue`.
HUES = {
    "red": 0,
    "orange": 40,
    "lime": 80,
    "green": 120,
    "mint": 160,
    "azure": 200,
    "blue": 240,
    "purple": 280,
    "pink": 320,
}
MORE_HUES = {"yellow": 60, "cyan": 180, "magenta": 300, "violet": 280, "teal": 170}
SHAPES = {
    **dict.fromkeys(("circle", "ball", "disc", "disk"), 0),
    **dict.fromkeys(("square", "box", "block"), 1),
    "triangle": 2,
}
SHAPE_NAMES = ("circle", "square", "triangle")
#: Words that say nothing about which object is meant.
FILLERS = {"the", "a", "an", "object", "thing", "one"}
#: A word means hues up to so far from its own; half of what lies between two of the nine.
NEAR = 20.0
#: A colour less saturated than this has no hue: it is called 'grey', as a hand is.
GREY = 0.15
GREYS = ("grey", "gray", "hand")
#: A slot is an object from this presence on; its shape can be named if so much of it was seen.
THERE, WHOLE = 0.5, 0.9
#: Least third moment of a triangle, least fourth of a square.
TRIANGLE, SQUARE = 0.03, 0.006
#: A point means an object whose middle is at most so far away, shares of the frame.
CLOSE = 0.125


@dataclasses.dataclass(frozen=True)
class Thing:
    """One object of a scene. place in px from the top left corner, velocity in px a frame; hue and
    shape None where they cannot be told."""

    slot: int
    hue: str | None
    shape: str | None
    place: tuple[float, float]
    velocity: tuple[float, float]
    colour: tuple[float, float, float]

    @property
    def name(self) -> str:
        """'red circle'"""
        return f"{self.hue or 'grey'} {self.shape or 'object'}"

    def __str__(self) -> str:
        x, y = self.place
        return f"{self.name} at ({x:.0f}, {y:.0f})"


def things(objects: Objects, stream: int, resolution: int) -> list[Thing]:
    """What is in one stream of the batch; ``resolution`` is px on a side."""
    fields = (objects.place, objects.speed, objects.present, objects.colour, objects.known)
    place, speed, present, seen, known = (np.asarray(x)[stream] for x in fields)
    coverage, out = np.asarray(objects.coverage)[stream], []
    for slot in np.flatnonzero(present > THERE):
        shape = SHAPE_NAMES[shape_of(coverage[slot])] if known[slot] > WHOLE else None
        red, green, blue = np.clip(seen[slot], 0, 1).tolist()
        x, y = (resolution * place[slot]).tolist()
        right, down = (resolution * speed[slot]).tolist()
        hue = hue_of((red, green, blue))
        out.append(Thing(int(slot), hue, shape, (x, y), (right, down), (red, green, blue)))
    return out


def hue_of(colour: Sequence[float]) -> str | None:
    """The nearest of `HUES` of an RGB colour; None of a grey one."""
    angle, saturation, _ = colorsys.rgb_to_hsv(*colour)
    if saturation < GREY:
        return None
    return min(HUES, key=lambda hue: _apart(360 * angle, HUES[hue]))


def colour_of(word: str) -> Float[np.ndarray, "3"]:
    """RGB of a colour word as objects of the twins world have it in full light (saturation 0.9,
    value 0.77). Raises `UserError` for a word that is no colour."""
    angles = HUES | MORE_HUES
    if word not in angles:
        raise UserError(f"'{word}' is no colour that is known here; there are {', '.join(HUES)}.")
    return np.array(colorsys.hsv_to_rgb(angles[word] / 360, 0.9, 0.77), np.float32)


def colour_and_shape(words: str) -> tuple[str | None, int | None]:
    """'a blue triangle' → ('blue', 2). Raises `UserError` for a word that is neither."""
    colour, shape = None, None
    for word in re.findall(r"[a-z]+", words.lower()):
        if word in HUES or word in MORE_HUES:
            colour = word
        elif word in GREYS:
            colour = GREYS[0]
        elif word in SHAPES:
            shape = SHAPES[word]
        elif word not in FILLERS:
            raise UserError(
                f"'{word}' in '{words}' is neither a colour nor a shape; colours are "
                f"{', '.join(HUES)}, shapes {', '.join(SHAPE_NAMES)}."
            )
    return colour, shape


def shape_of(coverage: Float[np.ndarray, "s s"]) -> int:
    """Index into `SHAPE_NAMES` of an outline that was seen whole."""
    weight = np.clip(coverage, 0, 1)
    mass = max(float(weight.sum()), 1e-6)
    y, x = np.indices(weight.shape, np.float64)
    z = (x - (weight * x).sum() / mass) + 1j * (y - (weight * y).sum() / mass)
    third, fourth = (abs((weight * z**n).sum()) / mass ** (1 + n / 2) for n in (3, 4))
    return 2 if third > TRIANGLE else 1 if fourth > SQUARE else 0


def choose(who: Who, there: Sequence[Thing], resolution: int) -> Thing:
    """The one that is meant. Raises `UserError` where none is, or more than one."""
    if isinstance(who, str):
        return _named(who, there)
    if isinstance(who, int | np.integer):
        for thing in there:
            if thing.slot == who:
                return thing
        slots = ", ".join(f"{thing.slot} ({thing})" for thing in there) or "none"
        raise UserError(f"slot {who} holds no object; these do: {slots}.")
    x, y = who
    if not (0 <= x <= resolution and 0 <= y <= resolution):
        raise UserError(f"the point ({x:g}, {y:g}) is outside the frame of {resolution} px.")
    near = [t for t in there if np.hypot(t.place[0] - x, t.place[1] - y) < CLOSE * resolution]
    if not near:
        raise UserError(f"there is no object near ({x:g}, {y:g}); {_list(there)}.")
    return min(near, key=lambda t: np.hypot(t.place[0] - x, t.place[1] - y))


def _named(who: str, there: Sequence[Thing]) -> Thing:
    colour, shape = colour_and_shape(who)
    fits = [t for t in there if colour is None or _is(t, colour)]
    # A shape that cannot be told is no reason not to be meant, unless another one fits better.
    wanted = None if shape is None else SHAPE_NAMES[shape]
    if wanted is not None:
        fits = [t for t in fits if t.shape == wanted] or [t for t in fits if t.shape is None]
    if not fits:
        raise UserError(f"there is no {who.removeprefix('the ')}; {_list(there)}.")
    if len(fits) > 1:
        options = " or ".join(f"the {thing}" for thing in fits)
        raise UserError(f"'{who}' could be {options}: say which, by colour and shape or a point.")
    return fits[0]


def _is(thing: Thing, colour: str) -> bool:
    angle, saturation, _ = colorsys.rgb_to_hsv(*thing.colour)
    if colour == GREYS[0]:
        return saturation < GREY
    away = _apart(360 * angle, (HUES | MORE_HUES)[colour])
    return saturation >= GREY and away <= NEAR


def _apart(a: float, b: float) -> float:
    return abs((a - b + 180) % 360 - 180)


def _list(there: Sequence[Any]) -> str:
    if not there:
        return "the scene has no object"
    return "there is " + " and ".join(f"the {thing}" for thing in there)
