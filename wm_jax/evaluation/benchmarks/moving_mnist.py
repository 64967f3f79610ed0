"""Moving MNIST (Srivastava et al. 2015, arXiv 1502.04681): 10 frames to 10."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from wm_jax.errors import UserError
from wm_jax.evaluation.benchmarks.spec import Benchmark, Recorded


def read(folder: Path, length: int, clips: int) -> Recorded:
    """The file as it is spread, time first; its greys in all three colours."""
    path = folder / "mnist_test_seq.npy"
    if not path.is_file():
        raise UserError(f"{folder} has no mnist_test_seq.npy, the test set of Moving MNIST.")
    try:
        frames = np.load(path, mmap_mode="r")
    except ValueError as error:
        raise UserError(f"{path} is not an array of NumPy ({error}).") from None
    if frames.dtype != np.uint8 or frames.ndim != 4 or len(frames) != length:
        raise UserError(
            f"{path} is {frames.dtype} {frames.shape} and must be uint8 ({length}, clips, h, w)."
        )
    grey = np.moveaxis(np.asarray(frames[:, :clips]), 1, 0)
    return Recorded(np.repeat(grey[..., None], 3, -1))


MOVING_MNIST = Benchmark(
    name="moving_mnist",
    about="Moving MNIST (Srivastava et al. 2015, arXiv 1502.04681), 10 frames to 10",
    context=10,
    horizon=10,
    read=read,
    files="mnist_test_seq.npy, uint8 (20, 10000, 64, 64)",
    metrics=("mse", "psnr_of_mse", "ssim"),
    published={
        "ConvLSTM-S": {"mse": 46.26, "ssim": 0.878},
        "PhyDNet": {"mse": 35.68, "ssim": 0.917},
        "SimVP": {"mse": 26.69, "ssim": 0.940},
        "PredRNN": {"mse": 25.04, "ssim": 0.944},
        "SimVP.V2": {"mse": 15.05, "ssim": 0.967},
    },
    source="OpenSTL, docs/en/model_zoos/video_benchmarks.md",
    note=(
        "OpenSTL's PSNR is left out: there 37.97 dB stands beside an MSE of 32.15 over 64x64 "
        "pixels, which is 21.05 dB. SSIM has other windows in other codebases; compare MSE first."
    ),
)
