"""What an episode is: the fields that every source yields, and the check that says what is wrong.

An episode is a flat dict of numpy arrays (and strings) over T frames. `frames[t]` is drawn, then
interventions at t apply, then `actions[t]` act between t and t + 1; `audio[t]` covers (t - 1, t].
A source brings what it has: `frames` and `fps` are enough for `complete`, which adds the rest of
the required fields. An optional field that is absent means that the modality is unknown.

Sizes: T frames; H, W px; A action numbers; S samples a frame; E events; N object slots; K bars.
World units are those of the source; image px have their centres at + 0.5.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from typing import Any

import numpy as np

from wm_jax.errors import UserError

Size = int | str  # a fixed size, or a name that stands for the same size everywhere
TEXT = "str"


class EpisodeError(UserError):
    """An episode breaks the specification; the sentence names the field and the cure."""


@dataclasses.dataclass(frozen=True)
class Field:
    """One field: every axis of its shape has a size or a name."""

    dtype: str  # a numpy dtype, or TEXT
    shape: tuple[Size, ...] = ()
    required: bool = False
    meaning: str = ""
    low: float = -np.inf
    high: float = np.inf
    may_be_nan: bool = False

    def describe(self) -> str:
        """'uint8 (T, H, W, 3)'"""
        return f"{self.dtype} ({', '.join(map(str, self.shape))})"


@dataclasses.dataclass(frozen=True)
class EpisodeSpec:
    """The fields of an episode by name."""

    fields: Mapping[str, Field]

    def validate(self, episode: Mapping[str, Any], name: str = "the episode") -> dict[str, int]:
        """Check every field; returns the sizes found, as {'T': 64, 'H': 32, ...}.

        Raises EpisodeError: one sentence with the field, what is wrong and what to do.
        """
        for key in episode:
            if key not in self.fields:
                near = difflib.get_close_matches(key, self.fields, n=1)
                hint = f"did you mean '{near[0]}'?" if near else "leave it out."
                raise EpisodeError(f"{name}: there is no field '{key}'; {hint}")
        for key, field in self.fields.items():
            if field.required and key not in episode:
                raise EpisodeError(
                    f"{name}: the field '{key}' is missing; give it as {field.describe()}, or let "
                    "data_pipelines.episode.complete fill in what follows from frames and fps."
                )
        sizes: dict[str, int] = {}
        for key, field in self.fields.items():  # frames first: the others must agree with them
            if key in episode:
                _check_field(name, key, field, episode[key], sizes)
        _check_marks(name, episode)
        return sizes


def complete(episode: Mapping[str, Any]) -> dict[str, Any]:
    """The episode with every required field that is missing filled in from `frames`.

    It becomes one stream that starts at its first frame and stops, unterminated, at its last; no
    twin (group -1), no intervention. Raises EpisodeError where `frames` itself is missing.
    """
    if "frames" not in episode:
        raise EpisodeError("the episode: the field 'frames' is missing; give uint8 (T, H, W, 3).")
    length = len(episode["frames"])
    first, last = np.zeros(length, bool), np.zeros(length, bool)
    first[:1] = last[-1:] = True
    defaults = {
        "is_first": first,
        "is_last": last,
        "is_terminal": np.zeros(length, bool),
        "group": np.int64(-1),
        "branch": np.int32(0),
        "intervention/kind": "",
        "intervention/frame": np.int32(-1),
        "intervention/target": np.int32(-1),
        "intervention/params": np.zeros(8, np.float32),
        "intervention/sentence": "",
    }
    return {**defaults, **episode}


def validate(episode: Mapping[str, Any], name: str = "the episode") -> dict[str, int]:
    """Check an episode against EPISODE; see `EpisodeSpec.validate`."""
    return EPISODE.validate(episode, name)


def _check_field(name: str, key: str, field: Field, value: Any, sizes: dict[str, int]) -> None:
    what = f"{name}: the field '{key}'"
    if field.dtype == TEXT:
        many = bool(field.shape)
        strings = list(value) if many and not isinstance(value, str) else [value]
        if not all(isinstance(s, str) for s in strings) or (many and isinstance(value, str)):
            wanted = "a list of str" if many else "a str"
            raise EpisodeError(f"{what} is {type(value).__name__}; give {wanted}, not bytes.")
        shape: tuple[int, ...] = (len(strings),) if many else ()
    else:
        array = np.asarray(value)
        if array.dtype != np.dtype(field.dtype):
            raise EpisodeError(
                f"{what} is {array.dtype}; give {field.describe()}, "
                f"converted by its source so that no value changes silently."
            )
        shape = array.shape
    _check_shape(what, field, shape, sizes)
    if field.dtype != TEXT:
        _check_range(what, field, array)


def _check_shape(what: str, field: Field, shape: tuple[int, ...], sizes: dict[str, int]) -> None:
    wrong = f"{what} has shape {shape}; give {field.describe()}"
    if len(shape) != len(field.shape):
        raise EpisodeError(f"{wrong}.")
    for size, axis in zip(shape, field.shape, strict=True):
        if axis == "N + 2":
            axis = sizes.get("N", size - 2) + 2
        wanted = sizes.setdefault(axis, size) if isinstance(axis, str) else axis
        if size != wanted:
            stands = f", where {axis} is {wanted} in the other fields" if axis != wanted else ""
            raise EpisodeError(f"{wrong}{stands}.")
        if axis in ("T", "H", "W") and size < 1:
            raise EpisodeError(f"{wrong} with at least one frame and one pixel.")


def _check_range(what: str, field: Field, array: np.ndarray) -> None:
    if array.dtype.kind not in "fiu" or not array.size:
        return
    if array.dtype.kind == "f" and not field.may_be_nan and not np.isfinite(array).all():
        raise EpisodeError(f"{what} has NaN or infinite values; leave the field out if unknown.")
    low, high = np.nanmin(array) if not np.isnan(array).all() else 0, np.nanmax(array)
    if low < field.low or high > field.high:
        raise EpisodeError(
            f"{what} goes from {low:g} to {high:g}; keep it within {field.low:g} and "
            f"{field.high:g}."
        )


def _check_marks(name: str, episode: Mapping[str, Any]) -> None:
    length = len(episode["frames"])
    if not episode["is_first"][0] or not episode["is_last"][-1]:
        raise EpisodeError(
            f"{name}: is_first must be true at frame 0 and is_last at frame {length - 1}; "
            "set them, or leave both out and call data_pipelines.episode.complete."
        )
    if np.any(np.asarray(episode["is_terminal"]) & ~np.asarray(episode["is_last"])):
        raise EpisodeError(f"{name}: is_terminal is true at a frame where is_last isn't; set both.")
    if "events/frame" in episode and np.any(np.asarray(episode["events/frame"]) >= length):
        raise EpisodeError(f"{name}: 'events/frame' names a frame after the last, {length - 1}.")


def _truth() -> dict[str, Field]:
    """Never fed to a model; for evaluation only."""
    per_object = {
        "radius": "of the circle of the same area",
        "mass": "",
        "inertia": "moment of inertia; 0: never turns",
        "friction": "product of two at a contact",
        "restitution": "product of two at a contact",
    }
    over_time = {
        "position": (("T", "N", 2), "world units"),
        "velocity": (("T", "N", 2), "world units a frame"),
        "angle": (("T", "N"), "radians, clockwise on the screen"),
        "angular_velocity": (("T", "N"), "radians a frame"),
        "contact": (("T", "N", "N + 2"), "impulse in (t - 1, t] with objects, walls, hand"),
        "hand": (("T", 3), "x, y, radius; radius 0: no hand"),
        "gravity": (("T", 2), "world units a frame^2"),
    }
    fields = {k: Field("float32", ("N",), meaning=m) for k, m in per_object.items()}
    fields |= {k: Field("float32", shape, meaning=m) for k, (shape, m) in over_time.items()}
    fields |= {
        "hue": Field("int32", ("T", "N"), meaning="index of the hue; -1 absent", low=-1.0),
        "shape": Field("int32", ("T", "N"), meaning="index of the shape; -1 absent", low=-1.0),
        "present": Field("bool", ("T", "N")),
        "visible_fraction": Field("float32", ("T", "N"), low=0.0, high=1.0),
        "centroid": Field(
            "float32", ("T", "N", 2), meaning="of the visible mask, px", may_be_nan=True
        ),
        "segmentation": Field(
            "uint8", ("T", "H", "W"), meaning="slot + 1; 0 background, 254 hand, 255 bar"
        ),
        "depth": Field("int32", ("N",), meaning="drawing order, the highest in front"),
        "occluders": Field("float32", ("K", 4), meaning="x0, y0, x1, y1 in world units"),
        "looks": Field("float32", ("L",), meaning="greys and texture that the source draws with"),
    }
    return {f"truth/{name}": field for name, field in fields.items()}


EPISODE = EpisodeSpec(
    {
        "frames": Field("uint8", ("T", "H", "W", 3), True, "sRGB as the source has it"),
        "fps": Field("float32", (), True, "frames a second", low=1e-3, high=1e4),
        "is_first": Field("bool", ("T",), True, "a stream starts here: the state is reset"),
        "is_last": Field("bool", ("T",), True, "the stream's last frame"),
        "is_terminal": Field("bool", ("T",), True, "the environment ended, not merely the clip"),
        "group": Field("int64", (), True, "the scene that twins share; -1 none"),
        "branch": Field("int32", (), True, "0 factual, k >= 1 counterfactual", low=0.0),
        "intervention/kind": Field(TEXT, (), True, "'' none"),
        "intervention/frame": Field("int32", (), True, "-1 none", low=-1.0),
        "intervention/target": Field("int32", (), True, "object slot; -1 none", low=-1.0),
        "intervention/params": Field("float32", (8,), True, "see twins/interventions.py"),
        "intervention/sentence": Field(TEXT, (), True),
        "reward": Field("float32", ("T",), meaning="for the step that led to this frame"),
        "readout": Field("float32", ("T", "R"), meaning="numbers to be read off the state"),
        "actions": Field("float32", ("T", "A"), meaning="act between t and t + 1"),
        "discrete_actions": Field("int32", ("T",), meaning="which, in place of actions", low=0.0),
        "text": Field(TEXT, (), meaning="a caption of the whole"),
        "events/frame": Field("int32", ("E",), low=0.0),
        "events/text": Field(TEXT, ("E",)),
        "events/target": Field("int32", ("E",), low=-1.0),
        "audio": Field("float32", ("T", "S"), meaning="mono", low=-1.0, high=1.0),
        "camera": Field("float32", ("T", 3), meaning="pan x, pan y, log zoom"),
        "light": Field("float32", ("T", 3), meaning="gain, gradient x, gradient y"),
        **_truth(),
    }
)
