"""OBJ3D (Lin et al. 2020, arXiv 2010.02054), as in SlotFormer: 6 frames to 44."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from PIL import Image

from wm_jax.errors import UserError
from wm_jax.evaluation.benchmarks.spec import Benchmark, Recorded
from wm_jax.evaluation.benchmarks.video import stack


def read(folder: Path, length: int, clips: int) -> Recorded:
    """Folders of the test split; their frames in the order of their numbers."""
    episodes = sorted(path for path in (folder / "test").glob("*") if path.is_dir())[:clips]
    if not episodes:
        raise UserError(f"{folder} has no folder 'test' with a folder of frames for each clip.")
    out = []
    for episode in episodes:
        files = sorted(episode.glob("*.png"), key=_number)[:length]
        if len(files) < length:
            raise UserError(f"{episode} has {len(files)} frames and a clip takes {length}.")
        out.append(np.stack([np.asarray(Image.open(file).convert("RGB")) for file in files]))
    return Recorded(stack(out, episodes))


def _number(path: Path) -> int:
    found = re.findall(r"\d+", path.stem)
    if not found:
        raise UserError(f"{path}: the name of a frame holds its number.")
    return int(found[-1])


OBJ3D = Benchmark(
    name="obj3d",
    about="OBJ3D (Lin et al. 2020, arXiv 2010.02054), as in SlotFormer: 6 frames to 44",
    context=6,
    horizon=44,
    read=read,
    files="test/CLIP/NAME_NUMBER.png, 64x64, at least 50 frames a clip",
    metrics=("psnr", "ssim", "lpips_vgg"),
    published={
        "PredRNN": {"psnr": 33.68, "ssim": 0.91, "lpips_vgg": 0.12},
        "SAVi-dyn": {"psnr": 32.94, "ssim": 0.91, "lpips_vgg": 0.12},
        "G-SWM": {"psnr": 31.43, "ssim": 0.89, "lpips_vgg": 0.10},
        "VQFormer": {"psnr": 30.71, "ssim": 0.86, "lpips_vgg": 0.11},
        "SlotFormer": {"psnr": 32.40, "ssim": 0.91, "lpips_vgg": 0.08},
    },
    source="SlotFormer (Wu et al. 2023, arXiv 2210.05861), table 1",
    note=(
        "They are of 200 videos, so ask for --episodes 200; SlotFormer's script reads them from "
        "the folder 'val', here they are those of 'test'. Its authors compare LPIPS: blurred "
        "frames do well in the others."
    ),
)
