"""Sentences to changes: a small grammar, no weights.

What a sentence does not say is taken as `PUSH` px a frame, `MOVE` px and so on (of a frame of 64;
they scale with it). A sentence may say it: 'the red ball is pushed to the left by 3', or say all:
'the red ball is pushed by (1.5, -0.5)'. Lengths are px, what the camera does 64ths of the frame.

    the red circle is pushed left          the red circle is moved up by 12
    the red circle turns blue              the red circle disappears
    a blue triangle appears at the top left
    a blue triangle of 5 px appears at (20, 12) and moves by (1, -0.5)
    the light gets dimmer                  the light gets brighter
    the light goes to 0.6 with a gradient of (0.05, 0)
    the camera moves left and zooms in     gravity now pulls down
    the camera moves by (3, -1) and zooms 1.1 times
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
    "'the red circle is pushed by (2, -1)'",
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
    for pattern, make in _RULES:
        found = re.fullmatch(pattern, _plain(sentence))
        if found:
            return make(found.groupdict(), there, resolution / 64, gain)
    raise UserError(f"'{sentence}' is no sentence that is known here; try {', '.join(EXAMPLES)}.")


def told_kind(sentence: str) -> str | None:
    """'light' or 'camera' where the sentence is about one of them, else None."""
    said, kinds = _plain(sentence), {_light: "light", _camera: "camera"}
    makes = [make for pattern, make in _RULES if re.fullmatch(pattern, said)]
    return kinds.get(makes[0]) if makes else None


def check_named(sentence: str, there: Sequence[Thing], resolution: int) -> None:
    """Whatever a sentence calls by its colour ('the red circle') is there, and the only one: of a
    sentence that need not be one of the module's. Raises `UserError` where it is not."""
    colours = "|".join(naming.HUES | naming.MORE_HUES)
    for who in re.findall(rf"\bthe (?:{colours}) (?!and |or )[a-z]+", sentence.lower()):
        naming.choose(who, there, resolution)


def _plain(sentence: str) -> str:
    return re.sub(r"\s+", " ", sentence.strip().rstrip(".").lower())


def _push(told, there, unit, gain) -> Change:
    return Push(told["who"], _far(told, PUSH * unit))


def _far(told, plain: float) -> tuple[float, float]:
    """What is said as numbers, else so far the way that is said, ``plain`` where it is not said
    how far."""
    if told.get("x") is not None:
        return float(told["x"]), float(told["y"])
    x, y = WAYS[told["way"]]
    by = float(told["by"] or plain)
    return by * x, by * y


def _move(told, there, unit, gain) -> Change:
    thing = naming.choose(told["who"], there, round(64 * unit))
    if told.get("x") is not None:
        return Move(thing.slot, (float(told["x"]), float(told["y"])))
    by = float(told["by"] or MOVE * unit)
    aim = np.array(thing.place) + by * np.array(WAYS[told["way"]])
    x, y = np.clip(aim, 4 * unit, 60 * unit).tolist()
    return Move(thing.slot, (x, y))


def _add(told, there, unit, gain) -> Change:
    radius = None if told["radius"] is None else float(told["radius"])
    if told.get("x") is not None:
        speed = (float(told["vx"] or 0), float(told["vy"] or 0))
        return Add(told["who"], (float(told["x"]), float(told["y"])), speed, radius)
    row = {"top": LOW, "bottom": HIGH}.get(told["row"] or "", MIDDLE)
    column = {"left": LOW, "right": HIGH}.get(told["column"] or "", MIDDLE)
    return Add(told["who"], (64 * unit * column, 64 * unit * row), radius=radius)


def _light(told, there, unit, gain) -> Change:
    if told.get("gain") is not None:
        slope = None if told["x"] is None else (float(told["x"]), float(told["y"]))
        return Light(float(told["gain"]), slope)
    return Light(gain=gain * DIM if told["how"] == "dimmer" else min(gain / DIM, 1.0))


def _camera(told, there, unit, gain) -> Change:
    if told.get("x") is not None:
        return Camera((float(told["x"]), float(told["y"])), float(told["times"] or 1.0))
    x, y = WAYS.get(told["way"], (0, 0))
    zoom = {"in": ZOOM, "out": 1 / ZOOM}.get(told["zoom"], 1.0)
    return Camera((PAN * x, PAN * y), zoom)


def _gravity(told, there, unit, gain) -> Change:
    return Gravity(_far(told, PULL * unit))


_NUMBER = r"-?\d+(?:\.\d+)?"


def _pair(x: str = "x", y: str = "y") -> str:
    return rf"\(?(?P<{x}>{_NUMBER}), ?(?P<{y}>{_NUMBER})\)?"


_RULES: tuple[tuple[str, Callable[..., Change]], ...] = (
    (rf"(?P<who>.+?) is pushed {_WAY}{_BY}", _push),
    (rf"(?P<who>.+?) is moved {_WAY}{_BY}", _move),
    (rf"(?P<who>.+?) is pushed by {_pair()}", _push),
    (rf"(?P<who>.+?) is moved to {_pair()}", _move),
    (
        r"(?P<who>.+?) (?:turns|becomes) (?P<colour>[a-z]+)",
        lambda told, *_: Recolour(told["who"], told["colour"]),
    ),
    (r"(?P<who>.+?) (?:disappears|is removed)", lambda told, *_: Remove(told["who"])),
    (
        rf"(?P<who>.+?)(?: of (?P<radius>{_NUMBER}) px)? appears at {_pair()}"
        rf"(?: and moves by {_pair('vx', 'vy')})?",
        _add,
    ),
    (
        rf"(?P<who>.+?)(?: of (?P<radius>{_NUMBER}) px)? appears (?:in the middle|"
        r"at the (?P<row>top|bottom)? ?(?P<column>left|right)?)",
        _add,
    ),
    (r"the light gets (?P<how>brighter|dimmer)", _light),
    (rf"the light goes to (?P<gain>{_NUMBER})(?: with a gradient of {_pair()})?", _light),
    (rf"the camera moves by {_pair()}(?: and zooms (?P<times>{_NUMBER}) times)?", _camera),
    (
        rf"the camera (?:moves {_WAY})?(?: and )?(?:zooms (?P<zoom>in|out))?",
        _camera,
    ),
    (rf"gravity (?:now )?pulls {_WAY}{_BY}", _gravity),
    (rf"gravity (?:now )?pulls by {_pair()}", _gravity),
)
