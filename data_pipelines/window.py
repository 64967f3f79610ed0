"""Episodes to training windows to batches, in numpy.

A batch is a flat dict: ``frames`` uint8 (b, t, h, w, 3); ``is_first``, ``mask`` bool (b, t); for
each modality its value float32 (b, t, k) and ``<modality>_mask`` bool (b, t), which of text and
interventions is where something is said; and, for heads,
``reward`` float32 (b, t), ``is_terminal`` bool (b, t), ``readout`` float32 (b, t, k).
"""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from data_pipelines.twins import paraphrases as pairs
from data_pipelines.twins import telling
from wm_jax import words
from wm_jax.errors import UserError

#: Modalities that a window can carry.
MODALITIES = ("actions", "discrete_actions", "audio", "camera", "light", "text", "intervention")
#: Episode fields that those are made of which no field of the same name holds.
MADE_OF = {
    "text": ("text", *(f"intervention/{n}" for n in ("kind", "frame", "params", "sentence"))),
    "intervention": tuple(f"intervention/{n}" for n in ("kind", "frame", "params", "sentence")),
}
AUDIO_BANDS = 16
#: Frames of a window before and after a change that it tells.
MARGIN = 4
#: What only a head learns from; absent from a window whose episode hasn't been asked for it.
TARGETS = ("reward", "is_terminal", "readout")

Arrays = dict[str, np.ndarray]


def fields(conditions: Sequence[str]) -> tuple[str, ...]:
    """Episode fields that windows with these modalities (and targets of heads) read."""
    unknown = set(conditions) - {*MODALITIES, *TARGETS}
    if unknown:
        raise UserError(
            f"config.data.conditions has {', '.join(sorted(unknown))}; "
            f"windows carry {', '.join(MODALITIES)}."
        )
    made = (MADE_OF.get(name, (name,)) for name in conditions)
    return ("frames", "is_first", *dict.fromkeys(itertools.chain(*made)))


def trim(episode: Mapping[str, Any], conditions: Sequence[str]) -> Arrays:
    """What windows need of an episode, checked: sound as `log_bands`, text as the ids of words, and
    an intervention as a vector; for the last two ``<modality>_mask``, where anything is said."""
    missing = [name for name in fields(conditions) if name not in episode]
    if missing:
        raise UserError(f"an episode lacks {', '.join(missing)}; it has {', '.join(episode)}.")
    plain = ("frames", "is_first", *(name for name in conditions if name not in MADE_OF))
    out = {name: np.asarray(episode[name]) for name in plain}
    frames = out["frames"]
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or not len(frames):
        raise UserError(
            f"an episode's frames are {frames.dtype} {frames.shape}; they must be uint8 "
            "(time, height, width, 3), with at least one frame."
        )
    for name, value in out.items():
        if len(value) != len(frames):
            raise UserError(f"an episode has {len(frames)} frames but {len(value)} of '{name}'.")
    if "discrete_actions" in out:
        out["discrete_actions"] = out["discrete_actions"].reshape(len(frames), -1)
    if "audio" in out:
        out["audio"] = log_bands(out["audio"])
    camera = np.asarray(episode["camera"]) if "camera" in conditions else None
    if "text" in conditions:
        out["text"], out["text_mask"] = said(episode, camera)
    if "intervention" in conditions:
        out["intervention"], out["intervention_mask"] = telling.intervention(episode, camera)
    return out


def cut(episode: Arrays, start: int, length: int, begins: bool = True) -> Arrays:
    """Frames ``start … start + length``, padded with zeros and ``mask`` False past the end.

    The first frame of a window starts a stream, whatever came before it in the episode, unless
    ``begins`` is False: then the window goes on from another.
    """
    stop = min(start + length, len(episode["frames"]))
    out = {}
    for name, value in episode.items():
        window = value[start:stop]
        if stop - start < length:
            padding = [(0, start + length - stop)] + [(0, 0)] * (value.ndim - 1)
            window = np.pad(window, padding)
        out[name] = window
    mask = np.arange(length) < stop - start
    out["is_first"] = out["is_first"].astype(bool) | (begins & (np.arange(length) == 0))
    masks = {f"{m}_mask": mask & out.get(f"{m}_mask", True) for m in MODALITIES if m in out}
    return out | {"mask": mask} | masks


def draw_start(rng: np.random.Generator, episode: Arrays, length: int) -> int:
    """A uniform start at which a whole window fits; 0 in a shorter episode. Where a change is told,
    it is one of those that have frames before and after it, if there are any."""
    starts = np.arange(max(1, len(episode["frames"]) - length + 1))
    told = np.flatnonzero(episode.get("intervention_mask", ()))
    if len(told):
        near = (starts + MARGIN <= told[0]) & (told[0] < starts + length - MARGIN)
        starts = starts[near] if near.any() else starts
    return int(starts[rng.integers(len(starts))])


def collate(windows: Sequence[Arrays]) -> Arrays:
    """Windows of equal shape to one batch."""
    shapes = {window["frames"].shape for window in windows}
    if len(shapes) > 1:
        raise UserError(f"episodes of one data set differ in frame size: {sorted(shapes)}.")
    batch = {name: np.stack([window[name] for window in windows]) for name in windows[0]}
    numeric = (*MODALITIES, "reward", "readout")
    numbers = {m: batch[m].astype(np.float32, copy=False) for m in numeric if m in batch}
    return batch | numbers


def blank(
    batch: int,
    time: int,
    size: int,
    targets: Sequence[str] = (),
    readout: int = 0,
    paraphrases: bool = False,
) -> Arrays:
    """A batch without data, of frames ``size`` px high and wide: for tracing. It has those of
    ``targets`` that are in `TARGETS`, ``readout`` with that many numbers, and ``paraphrases``."""
    made = {
        "reward": np.zeros((batch, time), np.float32),
        "is_terminal": np.zeros((batch, time), bool),
        "readout": np.zeros((batch, time, readout), np.float32),
    }
    out = {
        "frames": np.zeros((batch, time, size, size, 3), np.uint8),
        "is_first": np.zeros((batch, time), bool),
        "mask": np.ones((batch, time), bool),
    } | {name: made[name] for name in targets if name in made}
    return out | pairs.blank(batch, time) if paraphrases else out


def said(
    episode: Mapping[str, Any], camera: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The condition ``text`` of an episode, ids of words (t, 32) and where anything is said (t,):
    its caption at its first frame, and what is changed at the frame after which that acts, every
    other one with all its numbers (`telling.exactly`). What merely happens is not said: it is what
    a model is asked. ``camera`` (t, 3): where it looks; None: at the whole."""
    length, frame = len(episode["is_first"]), int(episode["intervention/frame"])
    ids, mask = np.zeros((length, words.LENGTH), np.float32), np.zeros(length, bool)
    sentences = {0: str(episode["text"]), frame: _sentence(episode, camera)}
    for at, sentence in sentences.items():
        if 0 <= at < length and sentence:
            ids[at], mask[at] = words.encode(sentence), True
    return ids, mask


def _sentence(episode: Mapping[str, Any], camera: np.ndarray | None) -> str:
    sentence, frame = str(episode["intervention/sentence"]), int(episode["intervention/frame"])
    params = np.asarray(episode["intervention/params"])
    if not sentence or zlib.crc32(params.tobytes()) % 2 or not 0 <= frame < len(episode["frames"]):
        return sentence
    view = np.zeros(3, np.float32) if camera is None else camera[frame]
    (who, named, _), kind = sentence.partition(" is "), str(episode["intervention/kind"])
    if kind in ("move", "push") and not named:  # the words of another data set
        return sentence
    size = np.asarray(episode["frames"]).shape[1]
    return telling.exactly(kind, who, params, view, size) or sentence


def log_bands(audio: np.ndarray, bands: int = AUDIO_BANDS) -> np.ndarray:
    """Sound (t, s) to log energies (t, bands) in octave-spaced bands; silence is 0."""
    power = np.square(np.abs(np.fft.rfft(audio.astype(np.float32), axis=-1)))[:, 1:]
    edges = np.unique(np.geomspace(1, power.shape[1] + 1, bands + 1).round().astype(int)) - 1
    energy = np.add.reduceat(power, edges[:-1], axis=1)
    out = np.zeros((len(audio), bands), np.float32)
    out[:, : energy.shape[1]] = np.log1p(energy)
    return out
