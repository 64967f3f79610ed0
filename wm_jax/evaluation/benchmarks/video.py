"""Frames of video files, decoded by PyAV (the extra 'video')."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import UInt8

from wm_jax.errors import MissingExtra, UserError


def read_video(path: Path, numbers: Sequence[int]) -> UInt8[np.ndarray, "t h w 3"]:
    """The frames of those ascending ``numbers``, counted from 0 in the order they are shown.

    Raises `UserError` where there is no such file, it is no video, or it is too short.
    """
    try:
        import av
    except ModuleNotFoundError:
        raise MissingExtra("av", "video") from None
    if not path.is_file():
        raise UserError(f"there is no video {path}.")
    wanted, last, found, number = set(numbers), max(numbers), [], -1
    try:
        with av.open(str(path)) as container:
            # Decoded from the start: a seek lands on a key frame, not on the frame asked for.
            for number, frame in enumerate(container.decode(video=0)):
                if number in wanted:
                    found.append(frame.to_ndarray(format="rgb24"))
                if number == last:
                    break
    except (av.FFmpegError, IndexError) as error:
        raise UserError(f"{path} is not a video that can be read ({error}).") from None
    if number < last:
        raise UserError(f"{path} has {number + 1} frames and a clip takes {last + 1}.")
    return np.stack(found)


def shrink(frames: UInt8[np.ndarray, "t h w 3"], size: int) -> UInt8[np.ndarray, "t s s 3"]:
    """Bilinear between the nearest pixels, so with aliasing, as OpenCV does it; rounded to 8
    bits."""
    shape = (len(frames), size, size, 3)
    small = jax.image.resize(jnp.asarray(frames, jnp.float32), shape, "linear", antialias=False)
    return np.asarray(jnp.round(small), np.uint8)


def stack(clips: Sequence[np.ndarray], names: Sequence[str | Path]) -> np.ndarray:
    """Clips of one size as one array. Raises `UserError` where sizes differ."""
    for clip, name in zip(clips, names, strict=True):
        if clip.shape != clips[0].shape:
            raise UserError(
                f"{name} has frames of {clip.shape[-3:-1]} px and {names[0]} of "
                f"{clips[0].shape[-3:-1]} px; a benchmark has one size."
            )
    return np.stack(clips)
