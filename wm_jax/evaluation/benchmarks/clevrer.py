"""CLEVRER (Yi et al. 2020, arXiv 1910.01442), as in SlotFormer: 6 frames to 42.

The protocol is that of SlotFormer's own data set and test script: of each validation video every
second frame, from the first of the frames 0 to 33 after which no object enters that could not be
seen in the context; a video without such a frame is left out, and 10800, whose annotation is
broken. Frames are brought to 128 px and then to 64, as its scripts do; the JPEG files that those
write in between are not imitated.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np

from wm_jax.errors import UserError
from wm_jax.evaluation.benchmarks.spec import Benchmark, Recorded
from wm_jax.evaluation.benchmarks.video import read_video, shrink, stack

STRIDE = 2  # of frames, of which a video has 128
FRAMES = 128
CONTEXT, HORIZON = 6, 42
LATEST = (CONTEXT - 3) * STRIDE  # frames after a clip's start at which an object may still enter
BROKEN = 10800  # its annotation


def read(folder: Path, length: int, clips: int) -> Recorded:
    """Videos of the validation split, in the order of their numbers."""
    span = (length - 1) * STRIDE
    paths = sorted((folder / "videos" / "val").glob("*/video_*.mp4"), key=_number)
    if not paths:
        raise UserError(f"{folder} has no videos/val/FOLDER/video_NUMBER.mp4.")
    found: list[np.ndarray] = []
    names: list[Path] = []
    for path in paths:
        if len(found) == clips:
            break
        start = None if _number(path) == BROKEN else first_start(_entries(folder, path), span)
        if start is not None:
            frames = read_video(path, range(start, start + span + 1, STRIDE))
            found.append(shrink(shrink(frames, 128), 64))
            names.append(path)
    if not found:
        raise UserError(f"{folder}: in every video an object enters late, so no clip is left.")
    return Recorded(stack(found, names))


def first_start(entries: list[int], span: int) -> int | None:
    """The first frame after whose context nothing enters until the clip's last, ``span`` frames
    on; None if there is none. ``entries`` are frames at which an object enters."""
    for start in range(FRAMES - span):
        if not any(start + LATEST < t <= start + span for t in entries):
            return start
    return None


def _entries(folder: Path, video: Path) -> list[int]:
    place = Path(video.parent.name, video.stem + ".json")
    path = folder / "annotations" / "val" / str(place).replace("video", "annotation")
    if not path.is_file():
        raise UserError(f"{path} is missing: it says when an object enters {video.name}.")
    try:
        trajectory = json.loads(path.read_text())["motion_trajectory"]
        seen = [{o["object_id"]: o["inside_camera_view"] for o in t["objects"]} for t in trajectory]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is not an annotation of CLEVRER ({error!r}).") from None
    pairs = enumerate(zip(seen, seen[1:], strict=False), start=1)
    return [t for t, (before, now) in pairs if any(now[k] and not before.get(k) for k in now)]


def _number(path: Path) -> int:
    found = re.search(r"\d+$", path.stem)
    if found is None:
        raise UserError(f"{path}: the name of a video ends in its number.")
    return int(found[0])


CLEVRER = Benchmark(
    name="clevrer",
    about="CLEVRER (Yi et al. 2020, arXiv 1910.01442), as in SlotFormer: 6 frames to 42",
    context=CONTEXT,
    horizon=HORIZON,
    read=read,
    files="videos/val/FOLDER/video_NUMBER.mp4 and annotations/val/FOLDER/annotation_NUMBER.json",
    metrics=("psnr", "ssim", "lpips_vgg"),
    published={
        "PredRNN": {"psnr": 31.34, "ssim": 0.90, "lpips_vgg": 0.17},
        "SAVi-dyn": {"psnr": 29.77, "ssim": 0.89, "lpips_vgg": 0.19},
        "G-SWM": {"psnr": 28.42, "ssim": 0.89, "lpips_vgg": 0.16},
        "VQFormer": {"psnr": 26.80, "ssim": 0.85, "lpips_vgg": 0.18},
        "SlotFormer": {"psnr": 30.21, "ssim": 0.89, "lpips_vgg": 0.11},
    },
    source="SlotFormer (Wu et al. 2023, arXiv 2210.05861), table 1",
    note=(
        "They are of the whole validation split, so ask for --episodes 5000. Their authors compare "
        "LPIPS: blurred frames do well in the others. Masks are not asked for here; the FG-mIoU of "
        "SlotFormer's is 49.42 % after a correction that its authors announced in their README in "
        "September 2023 (29.81 % in the paper's table 2 was before it)."
    ),
)
