"""Sentences to changes: a small grammar, no weights.

What a sentence does not say is taken as `PUSH` px a frame, `MOVE` px and so on (of a frame of 64;
they scale with it). A sentence may say it: 'the red ball is pushed to the left by 3'.

    the red circle is pushed left          the red circle is moved up by 12
    the red circle turns blue              the red circle disappears
    a blue triangle appears at the top left
    the light gets dimmer                  the light gets brighter
    the camera moves left and zooms in     gravity now pulls down
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import numpy as np

from wm_jax import naming
from wm_jax.edit import Add, Camera, Change, Gravity, Light, Move, Push, Recolour, Remove
from wm_jax.errors import UserError
from wm_jax.naming import Thing

PUSH, MOVE, PAN, ZOOM, DIM, PULL = 2.0, 16.0, 6.0, 1.15, 0.75, 0.03
#: Where 'at the top left' is, shares of the frame.
LOW, MIDDLE, HIGH = 1 / 6, 0.5, 5 / 6
WAYS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
_WAY = r"(?:to the )?(?P<way>left|right|up|down)(?:wards?)?"
_BY = r"(?: by (?P<by>\d+(?:\.\d+)?)(?: px)?)?"
EXAMPLES = (
    "'the red circle is pushed left'",
    "'the red circle turns blue'",
    "'the red circle disappears'",
    "'a blue triangle appears in the middle'",
    "'the light gets dimmer'",
)


def parse(sentence: str, there: Sequence[Thing], resolution: int, gain: float = 1.0) -> Change:
    """The change that a sentence asks for, in a scene with these objects.

    gain: of the light now. Raises `UserError` for a sentence that is none of the module's, and for
    an object that is not there or not the only one.
    """
    said = re.sub(r"\s+", " ", sentence.strip().rstrip(".").lower())
    for pattern, make in _RULES:
        found = re.fullmatch(pattern, said)
        if found:
            return make(found.groupdict(), there, resolution / 64, gain)
    raise UserError(f"'{sentence}' is no sentence that is known here; try {', '.join(EXAMPLES)}.")


def check_named(sentence: str, there: Sequence[Thing], resolution: int) -> None:
    """Whatever a sentence calls by its colour ('the red circle') is there, and the only one: of a
    sentence that need not be one of the module's. Raises `UserError` where it is not."""
    colours = "|".join(naming.HUES | naming.MORE_HUES)
    for who in re.findall(rf"\bthe (?:{colours}) (?!and |or )[a-z]+", sentence.lower()):
        naming.choose(who, there, resolution)


def _push(told, there, unit, gain) -> Change:
    x, y = WAYS[told["way"]]
    by = float(told["by"] or PUSH * unit)
    return Push(told["who"], (by * x, by * y))


def _move(told, there, unit, gain) -> Change:
    thing = naming.choose(told["who"], there, round(64 * unit))
    if told.get("x") is not None:
        return Move(thing.slot, (float(told["x"]), float(told["y"])))
    by = float(told["by"] or MOVE * unit)
    aim = np.array(thing.place) + by * np.array(WAYS[told["way"]])
    x, y = np.clip(aim, 4 * unit, 60 * unit).tolist()
    return Move(thing.slot, (x, y))


def _add(told, there, unit, gain) -> Change:
    row = {"top": LOW, "bottom": HIGH}.get(told["row"] or "", MIDDLE)
    column = {"left": LOW, "right": HIGH}.get(told["column"] or "", MIDDLE)
    return Add(told["who"], (64 * unit * column, 64 * unit * row))


def _light(told, there, unit, gain) -> Change:
    return Light(gain=gain * DIM if told["how"] == "dimmer" else min(gain / DIM, 1.0))


def _camera(told, there, unit, gain) -> Change:
    x, y = WAYS.get(told["way"], (0, 0))
    zoom = {"in": ZOOM, "out": 1 / ZOOM}.get(told["zoom"], 1.0)
    return Camera((PAN * x, PAN * y), zoom)


def _gravity(told, there, unit, gain) -> Change:
    x, y = WAYS[told["way"]]
    by = float(told["by"] or PULL * unit)
    return Gravity((by * x, by * y))


_NUMBER = r"-?\d+(?:\.\d+)?"
_RULES: tuple[tuple[str, Callable[..., Change]], ...] = (
    (rf"(?P<who>.+?) is pushed {_WAY}{_BY}", _push),
    (rf"(?P<who>.+?) is moved {_WAY}{_BY}", _move),
    (rf"(?P<who>.+?) is moved to \(?(?P<x>{_NUMBER}), ?(?P<y>{_NUMBER})\)?", _move),
    (
        r"(?P<who>.+?) (?:turns|becomes) (?P<colour>[a-z]+)",
        lambda told, *_: Recolour(told["who"], told["colour"]),
    ),
    (r"(?P<who>.+?) (?:disappears|is removed)", lambda told, *_: Remove(told["who"])),
    (
        r"(?P<who>.+?) appears (?:in the middle|at the (?P<row>top|bottom)? ?"
        r"(?P<column>left|right)?)",
        _add,
    ),
    (r"the light gets (?P<how>brighter|dimmer)", _light),
    (
        rf"the camera (?:moves {_WAY})?(?: and )?(?:zooms (?P<zoom>in|out))?",
        _camera,
    ),
    (rf"gravity (?:now )?pulls {_WAY}{_BY}", _gravity),
)
