"""DMLab and Minecraft of TECO (Yan et al. 2023, arXiv 2210.02396): 300 frames of walks in a world.

TECO has two protocols for each: from 36 frames to 264, for FVD, and from 144 to 156, for PSNR, SSIM
and LPIPS. Both are here; the first is also scored frame by frame. FVD is of all 300 frames: those
shown, which are true in both sets, and those predicted. So a small part of it is won in advance,
and it compares with no FVD of predictions alone. TECO's script takes I3D from TensorFlow Hub; here
it is the port that `wm_jax.evaluation.i3d` reads.

Actions are one of six, told as ``discrete_actions``, or as vectors of six numbers with a single one
among them: as many as TECO's settings have room for. TECO's files hold with each frame the action
that led to it; here, as everywhere in this code base, that is the action of the frame before, and a
vector of zeros where none is known. Whoever is told no actions, or those of another width, predicts
without them; the result says who was told.
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from wm_jax.errors import UserError
from wm_jax.evaluation.benchmarks.spec import Benchmark, Recorded
from wm_jax.evaluation.benchmarks.video import read_video, stack
from wm_jax.shapes import Signal

ACTIONS = 6
SOURCE = (
    "FAR (Gu et al. 2025, arXiv 2503.19325), table 5, which collects those of others and is scored "
    "by TECO's protocol"
)
NOTE = (
    "LPIPS is that of AlexNet, as in TECO's script. TECO's FVD is of batches of 256 clips, and a "
    "Fréchet distance falls with their number: ask for --episodes 256. It is of whole clips, the "
    "frames shown among them. "
)
TOLD = {
    "dmlab": (
        "FAR is told actions; the samples of TECO's web page are made without them from 36 frames "
        "and with them from 144."
    ),
    "minecraft": "FAR and TECO are told actions.",
}


def read_dmlab(folder: Path, length: int, clips: int) -> Recorded:
    """Files of the test split, in the order of their paths."""
    paths = _paths(folder, "npz")[:clips]
    frames, actions = [], []
    for path in paths:
        arrays = _arrays(path, ("video", "actions"))
        video = arrays["video"]
        if video.dtype != np.uint8 or video.ndim != 4 or video.shape[-1] != 3:
            raise UserError(
                f"{path}: video is {video.dtype} {video.shape}, not uint8 (t, h, w, 3)."
            )
        if len(video) < length:
            raise UserError(f"{path} has {len(video)} frames and a clip takes {length}.")
        frames.append(video[:length])
        actions.append(_checked(path, arrays["actions"], length))
    return _recorded(stack(frames, paths), signal(actions, length))


def read_minecraft(folder: Path, length: int, clips: int) -> Recorded:
    """Videos of the test split, in the order of their paths. A video without actions beside it is
    one whose actions are not told."""
    paths = _paths(folder, "mp4")[:clips]
    frames, actions = [], []
    for path in paths:
        frames.append(read_video(path, range(length)))
        beside = path.with_suffix(".npz")
        known = _arrays(beside, ("actions",))["actions"] if beside.is_file() else None
        actions.append(None if known is None else _checked(beside, known, length))
    return _recorded(stack(frames, paths), signal(actions, length))


def _recorded(frames: np.ndarray, told: Signal) -> Recorded:
    which = jnp.argmax(told.value, -1, keepdims=True).astype(jnp.float32)
    return Recorded(frames, told, discrete_actions=told._replace(value=which))


def signal(actions: Sequence[np.ndarray | None], length: int) -> Signal:
    """Numbers of actions (t,), each with the frame it led to, as vectors with the frame it was
    taken at. Nothing is known of the last frame's."""
    value = np.zeros((len(actions), length, ACTIONS), np.float32)
    mask = np.zeros((len(actions), length), bool)
    for clip, numbers in enumerate(actions):
        if numbers is not None:
            value[clip, :-1] = np.eye(ACTIONS, dtype=np.float32)[numbers[1:length]]
            mask[clip, :-1] = True
    return Signal(jnp.asarray(value), jnp.asarray(mask))


def _paths(folder: Path, ending: str) -> list[Path]:
    paths = sorted((folder / "test").glob(f"*/*.{ending}"))
    if not paths:
        raise UserError(f"{folder} has no test/FOLDER/NAME.{ending}.")
    return paths


def _arrays(path: Path, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    try:
        with np.load(path) as file:
            return {name: file[name] for name in names}
    except (OSError, ValueError, KeyError, AttributeError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} is no file of arrays with {', '.join(names)} ({error}).") from None


def _checked(path: Path, actions: np.ndarray, length: int) -> np.ndarray:
    whole = actions.ndim == 1 and len(actions) >= length and actions.dtype.kind in "iu"
    if not whole or actions.min() < 0 or actions.max() >= ACTIONS:
        raise UserError(
            f"{path}: actions are {actions.dtype} {actions.shape} and must be at least {length} "
            f"whole numbers from 0 to {ACTIONS - 1}."
        )
    return actions


def _benchmark(kind: str, context: int, metrics: tuple[str, ...], published: dict) -> Benchmark:
    """``published``: method -> values of those of ``metrics`` that are published, in order."""
    dmlab = kind == "dmlab"
    world = "mazes of DMLab, 64 px" if dmlab else "Minecraft, 128 px"
    return Benchmark(
        name=kind if context == 36 else f"{kind}_{context}",
        about=(
            f"{world}, of TECO (Yan et al. 2023, arXiv 2210.02396): {context} frames to "
            f"{300 - context}"
            + ("; FVD of whole clips, those frames included" if "fvd" in metrics else "")
        ),
        context=context,
        horizon=300 - context,
        read=read_dmlab if dmlab else read_minecraft,
        files=(
            "test/FOLDER/NAME.npz with video, uint8 (300, 64, 64, 3), and actions (300,)"
            if dmlab
            else "test/FOLDER/NAME.mp4, 300 frames, and NAME.npz with actions (300,) beside it"
        ),
        metrics=metrics,
        published={k: dict(zip(metrics, v, strict=False)) for k, v in published.items()},
        source=SOURCE,
        note=NOTE + TOLD[kind],
    )


FVD = ("fvd", "psnr", "ssim", "lpips_alex")
FRAMES = ("psnr", "ssim", "lpips_alex")
DMLAB = _benchmark(
    "dmlab", 36, FVD,
    {"FitVid": (176,), "CW-VAE": (125,), "Perceiver AR": (96,), "Latent FDM": (181,),
     "TECO": (48,), "FAR-B-Long": (64,)},
)  # fmt: skip
DMLAB_144 = _benchmark(
    "dmlab", 144, FRAMES,
    {"FitVid": (12.0, 0.356, 0.491), "CW-VAE": (12.6, 0.372, 0.465),
     "Perceiver AR": (11.2, 0.304, 0.487), "Latent FDM": (17.8, 0.588, 0.222),
     "TECO": (21.9, 0.703, 0.157), "FAR-B-Long": (22.3, 0.687, 0.104)},
)  # fmt: skip
MINECRAFT = _benchmark(
    "minecraft", 36, FVD,
    {"FitVid": (956,), "CW-VAE": (397,), "Perceiver AR": (76,), "Latent FDM": (167,),
     "TECO": (116,), "FAR-M-Long": (39,)},
)  # fmt: skip
MINECRAFT_144 = _benchmark(
    "minecraft", 144, FRAMES,
    {"FitVid": (13.0, 0.343, 0.519), "CW-VAE": (13.4, 0.338, 0.441),
     "Perceiver AR": (13.2, 0.323, 0.441), "Latent FDM": (13.4, 0.349, 0.429),
     "TECO": (15.4, 0.381, 0.340), "FAR-M-Long": (16.9, 0.448, 0.251)},
)  # fmt: skip
