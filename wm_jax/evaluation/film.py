"""Frames as pictures inside a page: single frames, sprites for the player, error maps."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw

#: Colours of an absolute error of 0, 1/4, 1/2, 3/4 and 1 of the full range: black to pale yellow,
#: each lighter than the one before.
_ERROR_COLOURS = np.array(
    [[12, 12, 18], [92, 30, 88], [190, 58, 72], [246, 148, 64], [255, 246, 190]], np.float32
)
_FULL_ERROR = 0.6  # of the range of a channel


def picture(frame: UInt8[np.ndarray, "h w 3"]) -> str:
    """A ``data:`` address of the frame as PNG."""
    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def sprite(frames: UInt8[np.ndarray, "t h w 3"]) -> str:
    """All frames beside each other in one picture, for a player that shifts it."""
    time, height, width, _ = frames.shape
    return picture(frames.transpose(1, 0, 2, 3).reshape(height, time * width, 3))


def ringed(
    frame: UInt8[np.ndarray, "h w 3"],
    places: Mapping[int, Float[np.ndarray, "2"]],
    palette: Float[np.ndarray, "k 3"],
    by: int = 4,
) -> UInt8[np.ndarray, "h w 3"]:
    """The frame, ``by`` times as large, with a ring of each hue's colour at its place (px)."""
    large = np.repeat(np.repeat(frame, by, 0), by, 1)
    drawn = Image.fromarray(large)
    pen, radius = ImageDraw.Draw(drawn), 0.06 * len(large)
    for hue, place in places.items():
        x, y = by * np.asarray(place)
        colour = tuple(
            np.round(255 * np.clip(palette[hue], 0, 1) ** (1 / 2.2)).astype(int).tolist()
        )
        for wide, ink in ((4, (255, 255, 255)), (2, colour)):
            box = (x - radius, y - radius, x + radius, y + radius)
            pen.ellipse(box, outline=ink, width=wide)
    return np.asarray(drawn)


def error_map(
    truth: UInt8[np.ndarray, "*lead h w 3"], frames: UInt8[np.ndarray, "*lead h w 3"]
) -> UInt8[np.ndarray, "*lead h w 3"]:
    """The largest absolute error of a pixel's three channels, as a colour."""
    error = np.abs(truth.astype(np.float32) - frames.astype(np.float32)).max(-1) / 255
    place = np.clip(error / _FULL_ERROR, 0, 1) * (len(_ERROR_COLOURS) - 1)
    low = np.minimum(place.astype(np.int64), len(_ERROR_COLOURS) - 2)
    share = (place - low)[..., None]
    colour = _ERROR_COLOURS[low] * (1 - share) + _ERROR_COLOURS[low + 1] * share
    return np.round(colour).astype(np.uint8)
