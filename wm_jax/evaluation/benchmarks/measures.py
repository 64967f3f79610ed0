"""Scores of predictions, frame by frame and as a set of clips."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, UInt8

from wm_jax.evaluation import i3d, likeness, lpips, pixel
from wm_jax.evaluation.benchmarks.spec import Benchmark
from wm_jax.evaluation.world import Clips

#: Of one clip: true frames, predicted ones, and where the true ones have an object.
Measure = Callable[
    [UInt8[np.ndarray, "t h w 3"], UInt8[np.ndarray, "t h w 3"], Bool[np.ndarray, "t h w"] | None],
    Float[np.ndarray, " t"],
]
#: metric -> why it was not measured
UNMEASURED = {
    "lpips_alex": "not measured: --weights has no alexnet.pth and lpips_alex.pth",
    "lpips_vgg": "not measured: --weights has no vgg16.pth and lpips_vgg.pth",
    "fvd": "not measured: --weights has no i3d_pretrained_400.pt",
    "l_psnr": "not measured: --data has no backgrounds/, by which objects are found",
}


def measures(benchmark: Benchmark, clips: Clips, weights: Path | None) -> dict[str, Measure]:
    """Of each metric of single frames that can be measured here."""
    known: dict[str, Measure] = {"psnr": _psnr, "ssim": _ssim, "mse": _mse, "psnr_of_mse": _mse}
    if clips.covered is not None:
        known["l_psnr"] = _l_psnr
    for net in lpips.available(weights):
        if weights is not None and f"lpips_{net}" in benchmark.metrics:
            known[f"lpips_{net}"] = functools.partial(_lpips, lpips.load(weights, net), net)
    return {metric: known[metric] for metric in benchmark.metrics if metric in known}


def by_frame(
    measure: Measure, clips: Clips, predicted: UInt8[np.ndarray, "r t h w 3"], context: int
) -> Float[np.ndarray, "r t"]:
    """Clip by clip: hundreds of frames of many clips at once would need many gigabytes."""
    out = []
    for clip, own in enumerate(predicted):
        mask = None if clips.covered is None else clips.covered[clip, context:]
        out.append(measure(clips.frames[clip, context:], own, mask))
    return np.stack(out)


class Sets:
    """FVD of whole clips: the frames shown, then those predicted, against the true clips."""

    def __init__(self, clips: Clips, folder: Path, context: int):
        self.clips, self.context = clips, context
        self._net = i3d.load(folder)
        self._true = self._features(clips.frames)
        self._seen: list[np.ndarray] = []

    def see(self, shown: UInt8[np.ndarray, "r t h w 3"], own: UInt8[np.ndarray, "r s h w 3"]):
        """A batch; all batches of a subject come in order."""
        self._seen.append(self._features(np.concatenate([shown[:, : self.context], own], 1)))

    def distance(self, seed: int) -> tuple[float, float, float]:
        """FVD with its interval of the subject whose batches came; the next one's come anew."""
        own, self._seen = np.concatenate(self._seen), []
        return likeness.frechet_interval(self._true, own, self.clips.unit, seed)

    def _features(self, frames: UInt8[np.ndarray, "r t h w 3"]) -> Float[np.ndarray, "r d"]:
        rows: Sequence[np.ndarray] = [
            np.asarray(i3d.logits(self._net, clip[None]), np.float64) for clip in frames
        ]
        return np.concatenate(rows)


def _mse(truth, own, _):
    first, second = (x.astype(np.float64).mean(-1) / 255 for x in (truth, own))
    return np.square(first - second).sum((1, 2))


def _psnr(truth, own, _):
    return np.asarray(pixel.psnr(truth, own), np.float64)


def _ssim(truth, own, _):
    return np.asarray(pixel.ssim(truth, own), np.float64)


def _l_psnr(truth, own, mask):
    off = (truth.astype(np.float64) - own) / 255 * mask[..., None]
    least = 10 ** (-pixel.PSNR_CEILING / 10)
    return -10 * np.log10(np.maximum(np.square(off).mean((1, 2, 3)), least))


def _lpips(weights, net, truth, own, _):
    return np.asarray(lpips.lpips(weights, net, truth, own), np.float64)
