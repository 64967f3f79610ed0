"""A first state from a caption alone: no frame is shown, several scenes fit the words.

    scene = wm_jax.captions.imagine(world, "a red circle and a blue square, with a bar in front")
    clip  = world.rollout(scene, steps=40)

What the words leave open (places, velocities, sizes, greys, where the bars are) is drawn, anew for
every sample, from the ranges of `LOOSE`. The bare stage is drawn as pixels and *seen* by the model,
because that is how a stage gets into its state; the objects are put into the state with `Add`, the
pull with `Gravity`. So a scene from words takes a model that takes these edits, and nothing here is
learned.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from wm_jax import naming
from wm_jax.edit import Add, Change, Gravity
from wm_jax.errors import UserError
from wm_jax.sentences import WAYS
from wm_jax.shapes import LatentState

#: Ranges of what a caption leaves open, lengths in 64ths of the frame, times in frames.
LOOSE = {
    "radius": (4.8, 6.0),
    "speed": (0.8, 1.6),
    "ground": (0.32, 0.48),
    "bar": (10.0, 14.0),
    "dark": (0.12, 0.2),
    "pull": (0.01, 0.025),
}
#: Frames of the bare stage that the model is shown.
SHOWN = 4
_BARS = {"a bar": 1, "one bar": 1, "two bars": 2, "no bar": 0}
_PARTS = (
    (r"with (?P<bars>a bar|one bar|two bars|no bar) in front", "bars"),
    (r"gravity pulls (?P<way>left|right|up|down)", "way"),
    (r"(?P<hand>a hand pushes)", "hand"),
)


class Caption(NamedTuple):
    """What a caption says. ``things``: 'red circle', in its order; ``pull``: a word of `WAYS`."""

    things: tuple[str, ...]
    bars: int = 0
    pull: str | None = None


def parse(text: str) -> Caption:
    """'a red circle and a blue square, with a bar in front; gravity pulls down' as a `Caption`.

    Raises `UserError` for words that are none of a colour, a shape, bars and gravity, for an object
    without a colour or a shape, and for a hand, which no edit can put into a scene.
    """
    rest, said = text.lower().strip().rstrip("."), dict[str, str]()
    for pattern, name in _PARTS:
        found = re.search(rf"[,;]?\s*{pattern}", rest)
        if found:
            said[name] = found[name]
            rest = rest[: found.start()] + rest[found.end() :]
    if "hand" in said:
        raise UserError("a hand cannot be put into a scene by words; show it in frames.")
    things = tuple(_thing(part) for part in re.split(r",\s*(?:and\s+)?|\s+and\s+", rest) if part)
    if not things:
        raise UserError(f"'{text}' names no object; say 'a red circle and a blue square'.")
    return Caption(things, _BARS[said.get("bars", "no bar")], said.get("way"))


def _thing(words: str) -> str:
    colour, shape = naming.colour_and_shape(words)
    if colour is None or shape is None:
        missing = "colour" if colour is None else "shape"
        raise UserError(f"'{words.strip()}' names no {missing}; say 'a red circle'.")
    return f"{colour} {naming.SHAPE_NAMES[shape]}"


def imagine(world: Any, text: str, samples: int = 1, seed: int = 0) -> LatentState:
    """Scenes that fit the caption, one a stream of the batch, of a `wm_jax.World`.

    Raises `UserError` where `parse` does, where the model does not take the edits that the caption
    needs, and where so many objects do not fit into the frame, or into the model's slots.
    """
    caption = parse(text)
    if samples < 1:
        raise UserError(f"at least one sample is drawn; {samples} were asked for.")
    needed = ("add", "gravity") if caption.pull else ("add",)
    missing = [kind for kind in needed if kind not in world.edits]
    if missing:
        raise UserError(
            f"{world.path or 'this model'} cannot begin from words: it does not take the edit "
            f"'{missing[0]}'."
        )
    draws = [np.random.default_rng([seed, index]) for index in range(samples)]
    stages = [_stage(caption, rng) for rng in draws]
    frames = np.stack([_drawn(stage, world.resolution) for stage in stages])
    scene = world.encode(np.repeat(frames[:, None], SHOWN, 1), **_still(world, samples))
    changes = [
        _changes(caption, stage, rng, world.resolution / 64)
        for stage, rng in zip(stages, draws, strict=True)
    ]
    for each in zip(*changes, strict=True):
        scene, wrong = world.edit_each(scene, each)
        for error in wrong:
            if error is not None:
                raise error
    held = int(np.asarray(world.objects(scene).present > naming.THERE).sum(1).min())
    if held < len(caption.things):  # an object for which no slot is empty is not added
        raise UserError(
            f"{world.path or 'this model'} holds {held} objects at most; "
            f"the caption names {len(caption.things)}."
        )
    return scene


class _Stage(NamedTuple):
    """Greys in [0, 1]; bars (k, 2) as left and right, 64ths of the frame."""

    ground: float
    dark: float
    bars: Float[np.ndarray, "k 2"]


def _stage(caption: Caption, rng: np.random.Generator) -> _Stage:
    ground, dark = rng.uniform(*LOOSE["ground"]), rng.uniform(*LOOSE["dark"])
    # Each in a part of its own, clear of the walls.
    parts = np.linspace(6, 58, caption.bars + 1)
    bars = []
    for left, right in zip(parts, parts[1:], strict=False):
        wide = min(rng.uniform(*LOOSE["bar"]), right - left - 8)
        start = rng.uniform(left + 4, right - 4 - wide)
        bars.append((start, start + wide))
    return _Stage(ground, dark, np.array(bars).reshape(-1, 2))


def _drawn(stage: _Stage, resolution: int) -> UInt8[np.ndarray, "h w 3"]:
    """The bare stage."""
    edges = np.arange(resolution + 1) * (64 / resolution)
    covered = np.zeros(resolution)
    for left, right in stage.bars:
        covered += np.clip(np.minimum(edges[1:], right) - np.maximum(edges[:-1], left), 0, None)
    covered = covered * resolution / 64
    line = stage.ground + covered * (stage.dark - stage.ground)
    frame = np.broadcast_to(line[None, :, None], (resolution, resolution, 3))
    return np.round(255 * frame).astype(np.uint8)


def _still(world: Any, samples: int) -> dict[str, np.ndarray]:
    """Full light and a camera that looks straight on, of a model that is told them."""
    rest = {"light": (1.0, 0.0, 0.0), "camera": (0.0, 0.0, 0.0)}
    return {
        name: np.broadcast_to(np.array(rest[name], np.float32), (samples, SHOWN, 3))
        for name in world.modalities
        if name in rest
    }


def _changes(
    caption: Caption, stage: _Stage, rng: np.random.Generator, unit: float
) -> list[Change]:
    """Objects at places where nothing touches and, if there is room, no bar is in front; then the
    pull. ``unit`` is px a 64th of the frame."""
    radius = rng.uniform(*LOOSE["radius"], len(caption.things))
    spots = _spots(1.6 * radius, stage.bars, rng)
    changes: list[Change] = []
    for what, size, spot in zip(caption.things, radius, spots, strict=True):
        speed, heading = rng.uniform(*LOOSE["speed"]), rng.uniform(-np.pi, np.pi)
        velocity = speed * unit * np.cos(heading), speed * unit * np.sin(heading)
        at = float(unit * spot[0]), float(unit * spot[1])
        changes.append(Add(what, at, velocity=velocity, radius=float(unit * size)))
    if caption.pull:
        x, y = WAYS[caption.pull]
        pull = rng.uniform(*LOOSE["pull"]) * unit
        changes.append(Gravity((pull * x, pull * y)))
    return changes


def _spots(reach: Float[np.ndarray, " n"], bars, rng) -> list[Float[np.ndarray, "2"]]:
    """Middles, 64ths of the frame, of discs that do not meet."""
    spots: list[np.ndarray] = []
    for tries in range(20_000):
        if len(spots) == len(reach):
            return spots
        own = reach[len(spots)]
        spot = rng.uniform(own, 64 - own, 2)
        apart = all(
            np.hypot(*(spot - s)) > own + r for s, r in zip(spots, reach[: len(spots)], strict=True)
        )
        behind = any(left - own / 2 < spot[0] < right + own / 2 for left, right in bars)
        if apart and (not behind or tries % 400 > 200):
            spots.append(spot)
        elif tries % 400 == 399:  # painted into a corner: begin again
            spots = []
    raise UserError(f"{len(reach)} objects do not fit into a frame.")
