"""What pixels do not say: LPIPS, where its weights are given, how like the truth's the motion in a
set of predictions is, and whether samples spread as much as they should."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

import jax
import numpy as np
from jaxtyping import Float, Int, UInt8

from wm_jax.evaluation import distribution, i3d, lpips, statistics
from wm_jax.evaluation.protocol import Protocol
from wm_jax.evaluation.rows import Row, make_rows
from wm_jax.evaluation.statistics import Estimate
from wm_jax.evaluation.suite import Watch
from wm_jax.evaluation.tracker import Instrument, Tracks
from wm_jax.evaluation.world import Clips, Truth

#: metric -> (unit, whether more is better)
METRICS = {
    "lpips_alex": ("1", False),
    "lpips_vgg": ("1", False),
    "fvd": ("1", False),
    "motion_distance": ("1", False),
    "motion_kernel_distance": ("1", False),
    "coverage": ("1", True),
}
LPIPS_STEPS = (1, 5, 10, 20, 40)
RESAMPLES = 200  # of the clips, for the interval of a distance of sets
UNMEASURED = {
    "lpips_alex": "not measured: --weights has no alexnet.pth and lpips_alex.pth",
    "lpips_vgg": "not measured: --weights has no vgg16.pth and lpips_vgg.pth",
    "fvd": "not measured: --weights has no i3d_pretrained_400.pt, or the horizon is below 16",
}


def coverage(
    tracks: Sequence[Tracks], truth: Truth, protocol: Protocol
) -> tuple[Float[np.ndarray, "r t"], Float[np.ndarray, "r t"]]:
    """How often the truth is inside the spread of S samples, and how often that was asked.

    Asked of each coordinate of an object that the truth shows by visible_share and every sample
    shows. Where samples and truth are draws of one distribution, the truth is between the smallest
    and the largest of the samples with probability (S - 1) / (S + 1), whatever the distribution.
    """
    hue = np.where(truth.present, truth.hue, 0)
    found = np.stack([np.take_along_axis(t.present, hue, 2) for t in tracks]).all(0)
    asked = found & truth.present & (truth.visible >= protocol.visible_share)
    places = np.stack([np.take_along_axis(t.position, hue[..., None], 2) for t in tracks])
    low, high = (np.where(asked[..., None], x, 0) for x in (places.min(0), places.max(0)))
    centroid = np.where(asked[..., None], truth.centroid, 1)
    inside = (low <= centroid) & (centroid <= high) & asked[..., None]
    return inside.sum((2, 3)).astype(np.float64), 2.0 * asked.sum(2)


def frechet_interval(
    true: Float[np.ndarray, "r d"],
    own: Float[np.ndarray, "r d"],
    unit: Int[np.ndarray, " r"],
    seed: int,
) -> tuple[float, float, float]:
    """The Fréchet distance of two sets of clips by their features, and its 95 % interval: clips of
    one ``unit`` are drawn together, the same of both sets."""
    drawn = statistics.resamples(int(unit.max()) + 1, seed, RESAMPLES)[:, unit]
    draws = np.array([distribution.frechet(true, own, w, w) for w in drawn])
    low, high = statistics.interval(draws[:, None])
    return distribution.frechet(true, own), float(low[0]), float(high[0])


class Likeness:
    """Watches predictions while they are scored; see `suite.measure`."""

    def __init__(
        self, clips: Clips, protocol: Protocol, instrument: Instrument, weights: Path | None = None
    ):
        self.clips, self.protocol = clips, protocol
        self.truth = clips.frames[:, protocol.context :]
        resolution = protocol.resolution
        self._features = lambda tracks: distribution.motion_features(tracks, resolution)
        self.true = self._features(instrument.track(self.truth))
        self.steps = [step for step in LPIPS_STEPS if step <= protocol.horizon]
        self.nets = {} if weights is None else {n: lpips.load(weights, n) for n in
                                                lpips.available(weights)}  # fmt: skip
        self.video, self.true_video = None, np.zeros((0, 0))
        given = weights is not None and (weights / i3d.FILE).is_file()
        if weights is not None and given and protocol.horizon >= i3d.FRAMES:
            self.video = i3d.load(weights)
            self.true_video = self._logits(self.truth)
        self.covered: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
        self.samples: dict[str, int] = {}
        self.shown: dict[str, list[np.ndarray]] = {}
        self.seen: dict[str, list[np.ndarray]] = {}
        self.far: dict[tuple[str, str], list[np.ndarray]] = {}

    def watch(self, name: str) -> Watch:
        """For `suite.measure` of the subject of that name; batches come in order. Sets and LPIPS
        are of the first sample."""

        def see(index: np.ndarray, samples: Sequence[tuple[np.ndarray, Tracks]]) -> None:
            frames, tracks = samples[0]
            if len(samples) > 1:
                self._inside(name, index, [tracks for _, tracks in samples])
            self.seen.setdefault(name, []).append(self._features(tracks))
            if self.video is not None:
                self.shown.setdefault(name, []).append(self._logits(frames))
            at = [step - 1 for step in self.steps]
            for net, weights in self.nets.items():
                true, own = (
                    x[:, at].reshape(-1, *x.shape[2:]) for x in (self.truth[index], frames)
                )
                value = np.asarray(lpips.lpips(weights, net, true, own), np.float64)
                far = value.reshape(len(index), len(at))
                self.far.setdefault((name, net), []).append(far)

        return see

    def _inside(self, name: str, index: np.ndarray, tracks: Sequence[Tracks]) -> None:
        ahead = jax.tree.map(lambda x: x[index, self.protocol.context :], self.clips.truth)
        pair = coverage(tracks, ahead, self.protocol)
        self.covered.setdefault(name, []).append(pair)
        self.samples[name] = len(tracks)

    def _logits(self, frames: UInt8[np.ndarray, "r t h w 3"]) -> np.ndarray:
        first = frames[:, : i3d.FRAMES]
        parts = [i3d.logits(self.video, first[i : i + 4]) for i in range(0, len(first), 4)]
        return np.concatenate([np.asarray(part, np.float64) for part in parts])

    def rows(self, seed: int | None, tested: Collection[str]) -> list[Row]:
        """Of every subject that was watched. A row of what was not measured has no value and a
        ``note``; rows of sets say how many clips of how many frames they are about."""
        rows: list[Row] = []
        for name, parts in self.seen.items():
            trained = seed if name in tested else None
            for net in lpips.NETS:
                metric = f"lpips_{net}"
                if (name, net) not in self.far:
                    rows.append(self._missing(name, metric, trained))
                    continue
                sums = statistics.sums_by_unit(np.concatenate(self.far[name, net]), self.clips.unit)
                estimate = statistics.estimate(sums, self.protocol.seed)
                rows += make_rows(
                    estimate, self.protocol, model=name, metric=metric, unit="1", seed=trained,
                    steps=self.steps,
                )  # fmt: skip
            if name in self.shown:
                both = self.true_video, np.concatenate(self.shown[name])
                rows.append(self._frechet("fvd", name, *both, i3d.FRAMES, trained))
            else:
                rows.append(self._missing(name, "fvd", trained))
            rows += self._coverage(name, trained)
            both = self.true, np.concatenate(parts)
            horizon = self.protocol.horizon
            rows.append(self._frechet("motion_distance", name, *both, horizon, trained))
            value = distribution.kernel_distance(*both)
            none = (value, np.nan, np.nan)
            rows.append(self._row("motion_kernel_distance", name, none, horizon, trained))
        return rows

    def _missing(self, name: str, metric: str, seed: int | None) -> Row:
        none = np.full(1, np.nan)
        estimate = Estimate(none, none, none, np.zeros(1, int))
        (row,) = make_rows(
            estimate, self.protocol, model=name, metric=metric, unit="1", seed=seed, steps=[0]
        )
        return {**row, "note": UNMEASURED[metric]}

    def _coverage(self, name: str, seed: int | None) -> list[Row]:
        if name not in self.covered:
            return []
        pair = (np.concatenate(x) for x in zip(*self.covered[name], strict=True))
        unit = self.clips.unit
        sums = statistics.Sums(*(statistics.sums_by_unit(x, unit).total for x in pair))
        estimate = statistics.estimate(sums, self.protocol.seed)
        made = make_rows(
            estimate, self.protocol, model=name, metric="coverage", unit="1", seed=seed
        )
        count = self.samples[name]
        return [{**row, "nominal": round((count - 1) / (count + 1), 6)} for row in made]

    def _frechet(
        self,
        metric: str,
        name: str,
        true: np.ndarray,
        own: np.ndarray,
        frames: int,
        seed: int | None,
    ) -> Row:
        numbers = frechet_interval(true, own, self.clips.unit, self.protocol.seed)
        return self._row(metric, name, numbers, frames, seed)

    def _row(
        self, metric: str, name: str, numbers: tuple[float, float, float], frames: int,
        seed: int | None,
    ) -> Row:  # fmt: skip
        value, low, high = (np.array([x]) for x in numbers)
        estimate = Estimate(value, low, high, np.array([int(self.clips.unit.max()) + 1]))
        (row,) = make_rows(
            estimate, self.protocol, model=name, metric=metric, unit="1", seed=seed, steps=[0]
        )
        return {**row, "clips": len(self.clips.unit), "frames": frames}
