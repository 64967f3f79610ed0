"""Pictures of an episode with the true state drawn over, so that a person can check it."""

from __future__ import annotations

import os
import textwrap
import wave
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from data_pipelines.twins.geometry import project
from data_pipelines.twins.render import PALETTE
from data_pipelines.twins.sound import SAMPLE_RATE
from data_pipelines.twins.world import HUES, SHAPES

_SIDE = 320  # px of one enlarged frame
_HEAD, _FOOT = 44, 44  # px for the words above the sheet and under a frame
_ARROW = 4.0  # a velocity arrow spans the way of so many frames
_WHITE, _BLACK, _GREY = (255, 255, 255), (0, 0, 0), (120, 120, 120)


def contact_sheet(episode: Mapping[str, Any], columns: int = 4, rows: int = 4) -> Image.Image:
    """Frames spread evenly over the episode, each with its state and its events."""
    count = min(columns * rows, len(episode["frames"]))
    times = np.linspace(0, len(episode["frames"]) - 1, count).round().astype(int)
    sheet = Image.new("RGB", (columns * _SIDE, rows * (_SIDE + _FOOT) + _HEAD), _BLACK)
    _write(ImageDraw.Draw(sheet), (8, 6), _title(episode), columns * _SIDE)
    for k, t in enumerate(times):
        until = times[k + 1] if k + 1 < count else t + 1
        tile = annotate(episode, int(t), int(until))
        sheet.paste(tile, (k % columns * _SIDE, _HEAD + k // columns * (_SIDE + _FOOT)))
    return sheet


def clip(episode: Mapping[str, Any]) -> list[Image.Image]:
    """Every frame, annotated."""
    return [annotate(episode, t) for t in range(len(episode["frames"]))]


def save(episode: Mapping[str, Any], directory: str) -> list[str]:
    """Write sheet.png, clip.gif and, where there is sound, sound.wav; returns their paths."""
    os.makedirs(directory, exist_ok=True)
    paths = [os.path.join(directory, name) for name in ("sheet.png", "clip.gif")]
    contact_sheet(episode).save(paths[0])
    images = [image.quantize(96) for image in clip(episode)]
    wait = round(1000 / float(episode["fps"]))
    images[0].save(paths[1], save_all=True, append_images=images[1:], duration=wait, loop=0)
    if "audio" in episode:
        paths.append(os.path.join(directory, "sound.wav"))
        with wave.open(paths[2], "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(SAMPLE_RATE)
            file.writeframes((episode["audio"] * 32767).astype("<i2").tobytes())
    return paths


def annotate(episode: Mapping[str, Any], t: int, until: int | None = None) -> Image.Image:
    """Frame t enlarged, the true state over it, and the events of [t, until) under it.

    Each object: a cross at its true centre, an arrow four frames of its velocity long, its
    name and the share of it that can be seen; hollow where nothing can. A ring is the visible
    mask's centroid. Bars are outlined, the hand is circled.
    """
    tile = Image.new("RGB", (_SIDE, _SIDE + _FOOT), _BLACK)
    frame = Image.fromarray(np.asarray(episode["frames"][t]))
    tile.paste(frame.resize((_SIDE, _SIDE), Image.Resampling.NEAREST), (0, 0))
    pen = ImageDraw.Draw(tile)
    if "truth/position" in episode:
        _draw_bars(pen, episode, t)
        _draw_hand(pen, episode, t)
        for slot in np.flatnonzero(episode["truth/present"][t]):
            _draw_object(pen, episode, t, int(slot))
    _write(pen, (4, _SIDE + 3), _words(episode, t, until or t + 1), _SIDE)
    return tile


def _draw_bars(pen: ImageDraw.ImageDraw, episode: Mapping[str, Any], t: int) -> None:
    for x0, y0, x1, y1 in episode["truth/occluders"]:
        edges = project(np.array([[x0, y0], [x1, y1]]), episode["camera"][t], _SIDE)
        pen.rectangle([*edges[0], *edges[1]], outline=_WHITE)


def _draw_hand(pen: ImageDraw.ImageDraw, episode: Mapping[str, Any], t: int) -> None:
    x, y, radius = episode["truth/hand"][t]
    if not radius:
        return
    camera = episode["camera"][t]
    here, ahead = project(
        np.array([[x, y], [x, y] + _ARROW * episode["actions"][t]]), camera, _SIDE
    )
    size = radius * np.exp(camera[2]) * _SIDE / 64
    pen.ellipse([*(here - size), *(here + size)], outline=_BLACK)
    pen.line([*here, *ahead], fill=_BLACK, width=2)


def _draw_object(pen: ImageDraw.ImageDraw, episode: Mapping[str, Any], t: int, slot: int) -> None:
    place, speed = (episode[f"truth/{name}"][t, slot] for name in ("position", "velocity"))
    camera = episode["camera"][t]
    here, ahead = project(np.stack([place, place + _ARROW * speed]), camera, _SIDE)
    hue, shape = int(episode["truth/hue"][t, slot]), int(episode["truth/shape"][t, slot])
    seen = float(episode["truth/visible_fraction"][t, slot])
    colour = tuple(int(v) for v in (PALETTE[hue] * 255).round())
    line = _WHITE if seen > 0.01 else colour
    pen.line([here[0] - 5, here[1], here[0] + 5, here[1]], fill=line, width=1)
    pen.line([here[0], here[1] - 5, here[0], here[1] + 5], fill=line, width=1)
    if seen <= 0.01:
        size = episode["truth/radius"][slot] * np.exp(camera[2]) * _SIDE / 64
        pen.ellipse([*(here - size), *(here + size)], outline=colour)
    pen.line([*here, *ahead], fill=line, width=2)
    tip = ahead - 2
    pen.rectangle([*tip, *(ahead + 2)], fill=line)
    middle = episode["truth/centroid"][t, slot] * (_SIDE / episode["frames"].shape[2])
    if np.isfinite(middle).all():
        pen.ellipse([*(middle - 3), *(middle + 3)], outline=_BLACK)
    label = f"{HUES[hue]} {SHAPES[shape]} {seen:.2f}"
    corner = np.clip(here + (7, 6), 2, (_SIDE - 7 * len(label), _SIDE - 14))
    pen.text(tuple(corner), label, fill=_WHITE, font=_font(), stroke_width=1, stroke_fill=_BLACK)


def _words(episode: Mapping[str, Any], t: int, until: int) -> str:
    words = [f"t={t}"]
    loud = float(np.abs(episode["audio"][t]).max()) if "audio" in episode else 0.0
    if loud > 0.01:
        words.append(f"sound {loud:.2f}")
    events = (episode.get(f"events/{name}", ()) for name in ("frame", "text"))
    for at, text in zip(*events, strict=True):
        if t <= at < until:
            words.append(f"{at}: {text}")
    return ", ".join(words[:2]) + "".join(f"; {w}" for w in words[2:])


def _title(episode: Mapping[str, Any]) -> str:
    title = f"scene {int(episode['group'])}, branch {int(episode['branch'])}: "
    title += str(episode.get("text", ""))
    if episode["intervention/kind"]:
        title += f"; at frame {int(episode['intervention/frame'])} "
        title += f"{episode['intervention/sentence']}"
    return title


def _write(pen: ImageDraw.ImageDraw, corner: tuple[int, int], words: str, width: int) -> None:
    lines = textwrap.wrap(words, width // 6)[:3]
    pen.multiline_text(corner, "\n".join(lines), fill=_WHITE, font=_font(), spacing=2)


def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(11)
