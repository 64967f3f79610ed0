"""What a published benchmark is: frames shown and predicted, what is scored, what is known."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

#: What the scores of a prediction are, for `Benchmark.reduction`.
REDUCTION = (
    "mse is the sum over the pixels of a frame of squared errors of grey values in [0, 1]; "
    "psnr_of_mse follows from it (that of the mean error, not a mean of PSNRs); psnr, ssim and "
    "lpips_vgg are means over frames. Frames are rounded to 8 bits."
)


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """A protocol with its reader.

    read:      at most so many clips of a folder, uint8 (r, context + horizon, h, w, 3)
    files:     what the folder must hold, in words
    metrics:   of `UNITS`
    published: method -> metric -> value, from ``source``
    reduction: how frames become scores, in words; written into every result
    """

    name: str
    about: str
    context: int
    horizon: int
    read: Callable[[Path, int, int], UInt8[np.ndarray, "r t h w 3"]]
    files: str
    metrics: tuple[str, ...]
    published: Mapping[str, Mapping[str, float]] = dataclasses.field(default_factory=dict)
    source: str = ""
    reduction: str = REDUCTION


#: metric -> unit
UNITS = {"mse": "1/frame", "psnr": "dB", "psnr_of_mse": "dB", "ssim": "1", "lpips_vgg": "1"}
