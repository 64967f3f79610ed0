"""OBJ3D (Lin et al. 2020, arXiv 2010.02054), as in SlotFormer: 6 frames to 44."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from wm_jax.errors import UserError
from wm_jax.evaluation.benchmarks.spec import Benchmark


def read(folder: Path, length: int, clips: int) -> UInt8[np.ndarray, "r t h w 3"]:
    episodes = sorted(path for path in (folder / "test").glob("*") if path.is_dir())[:clips]
    if not episodes:
        raise UserError(f"{folder} has no folder 'test' with a folder of frames for each clip.")
    out = []
    for episode in episodes:
        files = sorted(episode.glob("*.png"), key=_number)[:length]
        if len(files) < length:
            raise UserError(f"{episode} has {len(files)} frames and a clip takes {length}.")
        out.append(np.stack([np.asarray(Image.open(file).convert("RGB")) for file in files]))
    return np.stack(out)


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
)
