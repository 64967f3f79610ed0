"""Sound: each beginning of a touch rings, pitched by mass and loud by impulse."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from data_pipelines.twins.world import FPS, MAX_OBJECTS

SAMPLE_RATE = 4096
SAMPLES = int(SAMPLE_RATE / FPS)  # a frame: 256
_LENGTH = 1024  # samples of one tone, a quarter of a second
_DECAY = 0.06  # seconds
_LOUDEST = 0.35


def tone(mass: float, impulse: float) -> Float[np.ndarray, " 1024"]:
    """440 Hz for mass 1, an octave lower for twice the mass; half as loud at impulse 0.7."""
    seconds = np.arange(_LENGTH) / SAMPLE_RATE
    loudness = _LOUDEST * (1 - np.exp(-impulse))
    return loudness * np.exp(-seconds / _DECAY) * np.sin(2 * np.pi * 440 / mass * seconds)


def sound_track(onsets: Sequence[Sequence], mass: np.ndarray) -> Float[np.ndarray, "T 256"]:
    """Mono in [-1, 1]; row t covers the time from frame t - 1 to frame t.

    `onsets[t]` are the touches that began in that time; both partners ring, walls don't.
    """
    track = np.zeros(len(onsets) * SAMPLES + _LENGTH)
    for frame, contacts in enumerate(onsets):
        for contact in contacts:
            start = frame * SAMPLES + contact.substep * SAMPLES // 8
            for slot in (contact.a, contact.b):
                if slot < MAX_OBJECTS:
                    track[start : start + _LENGTH] += tone(mass[slot], contact.impulse)
    track = np.clip(track[: len(onsets) * SAMPLES], -1, 1)
    return track.reshape(len(onsets), SAMPLES).astype(np.float32)
