"""Filtered-CoPhy (Janny et al. 2022, arXiv 2202.00368): what would have happened.

An experiment is two videos of the same objects with the same unseen masses: AB as it was, and CD
after something in its first frame was moved or removed. The task is D, given AB and C.

A model is told this as one stream: the frames of AB, then C as one more observed frame, and from
there it predicts. Between B's last frame and C the scene jumps; that C starts anew is not said in
any other way, nor what was changed. Whatever the model knows of the masses it has to carry over
from AB in its state.

L-PSNR is by the authors' evaluation script. An object's pixels are those of the true frame that
differ from a picture of the empty scene by more than 0.1, the sum over colours of squares of values
in [0, 1], closed by one pixel; of the four empty scenes the one is taken that is nearest to the
clip. Errors elsewhere count as zero, and the mean is over all pixels of the frame.
"""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image
from scipy import ndimage

from wm_jax.errors import UserError
from wm_jax.evaluation.benchmarks.spec import Benchmark, Recorded
from wm_jax.evaluation.benchmarks.video import read_video, stack

SCENES = 4  # pictures of the empty scene
DIFFERS = 0.1  # of a pixel with an object on it
NOTE = (
    "CoDy and UV-CDN are given AB and C like a model here, PhyDNet and PredRNN only C; N and 2N "
    "are their numbers of keypoints, N that of the objects. The authors' script also counts the "
    "first frame, C as it is drawn again. Most of a frame is background that never moves, so "
    "baselines that copy do well in PSNR, as the paper says. L-PSNR is that of its table 1, in the "
    "way of its script; its table 3 has others of the same models."
)


def read(split: str, pictures: str, folder: Path, length: int, clips: int) -> Recorded:
    """Experiments of the test ``split``, in its order; masks where the folder has backgrounds/."""
    half = length // 2
    scenes = _empty_scenes(folder, pictures)
    found: list[np.ndarray] = []
    masks: list[np.ndarray] = []
    names = _names(folder, split)[:clips]
    for name in names:
        parts = [read_video(folder / name / part / "rgb.mp4", range(half)) for part in ("ab", "cd")]
        found.append(stack(parts, [f"{name}/ab", f"{name}/cd"]).reshape(-1, *parts[0].shape[1:]))
        if scenes is not None:
            mask = foreground(parts[1], scenes)
            masks.append(np.concatenate([np.zeros_like(mask), mask]))
    return Recorded(stack(found, names), None, np.stack(masks) if masks else None)


def foreground(
    frames: UInt8[np.ndarray, "t h w 3"], scenes: Float[np.ndarray, "k h w 3"]
) -> Bool[np.ndarray, "t h w"]:
    """Where an object is. Raises `UserError` where pictures and frames differ in size."""
    if frames.shape[1:] != scenes.shape[1:]:
        raise UserError(
            f"backgrounds/ has pictures of {scenes.shape[1:3]} px and the videos have "
            f"{frames.shape[1:3]} px."
        )
    off = [np.square(frames / 255 - scene) for scene in scenes]
    nearest = min(off, key=lambda squares: squares.mean())
    differs = nearest.sum(-1) > DIFFERS
    cross = ndimage.generate_binary_structure(2, 1)[None]
    wide = ndimage.binary_dilation(differs, cross)
    return ndimage.binary_erosion(wide, cross, border_value=1)


def _names(folder: Path, split: str) -> list[str]:
    for path in (folder / f"{split}.txt", folder / split):
        if path.is_file():
            names = path.read_text().split()
            if names:
                return names
    raise UserError(
        f"{folder} has no {split}.txt, the list of test experiments of the authors' repository "
        "(its folder Datasets)."
    )


def _empty_scenes(folder: Path, pictures: str) -> Float[np.ndarray, "k h w 3"] | None:
    place = folder / "backgrounds"
    if not place.is_dir():
        return None
    paths = [place / pictures.format(number) for number in range(SCENES)]
    for path in paths:
        if not path.is_file():
            raise UserError(f"{path} is missing: backgrounds/ holds {SCENES} empty scenes.")
    scenes = [np.asarray(Image.open(path).convert("RGB")) / 255 for path in paths]
    return stack(scenes, paths)


def _benchmark(
    name: str, task: str, frames: int, split: str, pictures: str, published: dict
) -> Benchmark:
    """``frames`` of each of the two videos."""
    return Benchmark(
        name=name,
        about=(
            f"Filtered-CoPhy (Janny et al. 2022, arXiv 2202.00368), {task}: AB, {frames} frames, "
            f"and C, one more, to the {frames - 1} of D"
        ),
        context=frames + 1,
        horizon=frames - 1,
        read=functools.partial(read, split, pictures),
        files=(
            f"ID/ab/rgb.mp4 and ID/cd/rgb.mp4, {split}.txt, and for L-PSNR backgrounds/, misc/"
            "backgrounds of the authors' repository"
        ),
        metrics=("psnr", "l_psnr"),
        published={
            method: {"psnr": psnr, "l_psnr": l_psnr} for method, (psnr, l_psnr) in published.items()
        },
        source="Janny et al. 2022, table 1",
        note=NOTE,
    )


COPHY_BLOCKTOWER = _benchmark(
    "cophy_blocktower", "BlocktowerCF", 150, "blocktowerCF_4_test", "plane_{}.png",
    {"CoDy (N)": (23.48, 25.51), "CoDy (2N)": (24.69, 26.79), "UV-CDN (N)": (21.07, 22.36),
     "UV-CDN (2N)": (21.99, 23.64), "PhyDNet": (16.49, 23.03), "PredRNN": (22.04, 24.97)},
)  # fmt: skip
COPHY_BALLS = _benchmark(
    "cophy_balls", "BallsCF", 150, "ballsCF_4_test", "plane_{}_balls.png",
    {"CoDy (N)": (21.19, 23.88), "CoDy (2N)": (21.33, 24.12), "UV-CDN (N)": (19.51, 22.35),
     "UV-CDN (2N)": (19.54, 22.38), "PhyDNet": (18.56, 22.55), "PredRNN": (22.31, 22.63)},
)  # fmt: skip
COPHY_COLLISION = _benchmark(
    "cophy_collision", "CollisionCF", 75, "collisionCF_test", "plane_{}.png",
    {"CoDy (N)": (24.09, 26.07), "CoDy (2N)": (24.09, 26.55), "UV-CDN (N)": (23.73, 26.08),
     "UV-CDN (2N)": (23.83, 26.34), "PhyDNet": (19.69, 24.61), "PredRNN": (24.70, 26.39)},
)  # fmt: skip
