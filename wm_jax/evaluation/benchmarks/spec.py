"""What a published benchmark is: frames shown and predicted, what is scored, what is known."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, UInt8

from wm_jax.shapes import Signal

#: metric -> unit
UNITS = {
    "mse": "1/frame",
    "psnr": "dB",
    "psnr_of_mse": "dB",
    "l_psnr": "dB",
    "ssim": "1",
    "lpips_alex": "1",
    "lpips_vgg": "1",
    "fvd": "1",
}

#: What the scores of a prediction are, for `Benchmark.reduction`.
REDUCTION = (
    "mse is the sum over the pixels of a frame of squared errors of grey values in [0, 1]; "
    "psnr_of_mse follows from it (that of the mean error, not a mean of PSNRs); psnr, ssim, "
    "lpips_alex and lpips_vgg are means over frames. l_psnr: the same as psnr where errors off the "
    "objects of the true frame count as zero. fvd is of whole clips, the frames shown and those "
    "predicted, as one sequence. Frames are rounded to 8 bits. Of a stochastic model, means over "
    "samples; fvd of the first."
)


class Recorded(NamedTuple):
    """What a reader finds: r clips, context and horizon.

    actions: a vector for each frame, in the terms of `wm_jax.shapes` (that of frame t acts between
             t and t + 1); None of a set without
    covered: pixels with an object on them, for l_psnr; None where that cannot be known
    discrete_actions: which, where they are numbered; with ``actions``, not in their place
    """

    frames: UInt8[np.ndarray, "r t h w 3"]
    actions: Signal | None = None
    covered: Bool[np.ndarray, "r t h w"] | None = None
    discrete_actions: Signal | None = None


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """A protocol with its reader.

    read:      of a folder, clips of so many frames, at most so many of them. Raises `UserError`
               for what is missing or wrong
    files:     what the folder must hold, in words
    metrics:   of `UNITS`
    published: method -> metric -> value, from ``source``
    note:      what to know before numbers are compared
    reduction: how frames become scores, in words; written into every result
    """

    name: str
    about: str
    context: int
    horizon: int
    read: Callable[[Path, int, int], Recorded]
    files: str
    metrics: tuple[str, ...]
    published: Mapping[str, Mapping[str, float]] = dataclasses.field(default_factory=dict)
    source: str = ""
    note: str = ""
    reduction: str = REDUCTION
