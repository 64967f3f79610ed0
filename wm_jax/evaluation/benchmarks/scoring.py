"""Clips of a benchmark, and the scores of whoever predicts them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from wm_jax import shapes
from wm_jax.errors import UserError
from wm_jax.evaluation import i3d, statistics, suite
from wm_jax.evaluation.benchmarks import measures
from wm_jax.evaluation.benchmarks.spec import UNITS, Benchmark
from wm_jax.evaluation.informed import Prediction
from wm_jax.evaluation.judge import Tested
from wm_jax.evaluation.outside import Outside, Videos
from wm_jax.evaluation.protocol import Protocol, split_hash
from wm_jax.evaluation.rows import Row, make_rows
from wm_jax.evaluation.statistics import Estimate, Sums
from wm_jax.evaluation.suite import Subject
from wm_jax.evaluation.world import Clips, bare_clips
from wm_jax.models.baselines import CopyLast
from wm_jax.progress import Progress


def open_clips(benchmark: Benchmark, folder: Path, episodes: int) -> Clips:
    """Clips without a truth but their frames. Raises `UserError` for what is missing or wrong."""
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder; --data must hold {benchmark.files}.")
    found = benchmark.read(folder, benchmark.context + benchmark.horizon, episodes)
    length = found.frames.shape[1]
    return bare_clips(found.frames, length, found.actions, found.covered, found.discrete_actions)


def protocol_of(benchmark: Benchmark, clips: Clips, episodes: int) -> Protocol:
    """The benchmark's lengths, and which clips of it were used."""
    return Protocol(
        suite=benchmark.name,
        world=benchmark.about,
        split_hash=split_hash(clips.frames),
        resolution=clips.frames.shape[2],
        episodes=episodes,
        starts=(0,),
        context=benchmark.context,
        horizon=benchmark.horizon,
        reduction=benchmark.reduction,
    )


def judge_benchmark(
    benchmark: Benchmark,
    runs: Mapping[str, Tested],
    clips: Clips,
    episodes: int,
    command: str,
    weights: Path | None = None,
) -> dict[str, Any]:
    """Scores models and the two baselines that need no world; the result as JSON."""
    protocol = protocol_of(benchmark, clips, episodes)
    told = {name: told_of(run, clips) for name, run in runs.items()}
    tested = []
    for name, run in runs.items():
        subject = _telling(run.subject(name, protocol), told[name])
        tested.append(suite.with_samples(subject, clips, protocol))
    copy_last = CopyLast(clips.frames.shape[2:4])
    subjects = [
        *tested,
        suite.model_subject("copy_last", copy_last, {}, protocol),
        Subject("context_median", _median(protocol)),
    ]
    scorer = Scorer(benchmark, clips, protocol, weights)
    rows: list[Row] = []
    with Progress(len(subjects) * len(clips.frames), benchmark.name, "clips") as progress:
        for number, subject in enumerate(subjects):
            begun = number * len(clips.frames)

            def tell(done: int, begun: int = begun, name: str = subject.name) -> None:
                progress.update(begun + done, model=name)

            seed = runs[subject.name].seed if subject.name in runs else None
            rows += scorer.rows(subject, seed, tell)
    return {
        "protocol": protocol.to_dict(),
        "models": {
            name: {**run.about(subject.samples), "told": list(told[name])}
            for (name, run), subject in zip(runs.items(), tested, strict=True)
        },
        "published": {"source": benchmark.source, "values": benchmark.published},
        "note": benchmark.note,
        "command": command,
        "rows": rows,
    }


def told_of(run: Tested, clips: Clips) -> tuple[str, ...]:
    """What of the clips' actions can be told to this model: what it takes, of that width."""
    there = {}
    for name in ("actions", "discrete_actions"):
        signal = getattr(clips.conditions, name)
        if np.asarray(signal.mask).any():
            there[name] = signal.value.shape[-1]
    if isinstance(run, Videos):
        return tuple(there)
    if isinstance(run, Outside):
        takes = getattr(run.model, "conditions", ())
        if not isinstance(takes, Mapping):
            return tuple(name for name in there if name in takes)
    else:
        known = run.settings()["model"]["modalities"]
        takes = {name: shapes.CONDITION_SIZES[name] for name in known}
    return tuple(name for name, width in there.items() if takes.get(name) == width)


class Scorer:
    """What all subjects of a benchmark are scored by: networks and true features once for all."""

    def __init__(
        self, benchmark: Benchmark, clips: Clips, protocol: Protocol, weights: Path | None
    ):
        self.benchmark, self.clips, self.protocol = benchmark, clips, protocol
        self.measures = measures.measures(benchmark, clips, weights)
        self.sets = None
        if "fvd" in benchmark.metrics and weights is not None and (weights / i3d.FILE).is_file():
            self.sets = measures.Sets(clips, weights, protocol.context)

    def rows(self, subject: Subject, seed: int | None, tell: Callable[[int], None]) -> list[Row]:
        """Of every metric of frames step 0, all steps together, and each step; of a set step 0.
        ``tell`` is called with the number of clips that are done."""
        values: dict[str, list[np.ndarray]] = {metric: [] for metric in self.measures}
        for index in suite.batches(self.clips):
            for metric, value in self._batch(suite.take(self.clips, index), subject).items():
                values[metric].append(value)
            tell(int(index[-1]) + 1)
        out: list[Row] = []
        for metric in self.benchmark.metrics:
            if metric in values:
                estimate = self._estimate(metric, np.concatenate(values[metric]))
                out += self._made(estimate, subject.name, metric, seed)
            elif metric == "fvd" and self.sets is not None:
                out.append(self._set(subject.name, seed))
            else:
                none = np.full(1, np.nan)
                nothing = Estimate(none, none, none, np.zeros(1, int))
                (row,) = self._made(nothing, subject.name, metric, seed)
                out.append({**row, "note": measures.UNMEASURED[metric]})
        return out

    def _batch(self, batch: Clips, subject: Subject) -> dict[str, np.ndarray]:
        """Each metric per clip and step, the mean over samples."""
        total = dict.fromkeys(self.measures, np.zeros(()))
        for sample in range(subject.samples):
            frames = subject.predict(batch, sample).frames
            if sample == 0 and self.sets is not None:
                self.sets.see(batch.frames, frames)
            for metric, measure in self.measures.items():
                value = measures.by_frame(measure, batch, frames, self.protocol.context)
                total[metric] = total[metric] + value / subject.samples
        return total

    def _estimate(self, metric: str, value: np.ndarray) -> Estimate:
        value = np.concatenate([value.mean(1, keepdims=True), value], 1)
        estimate = statistics.estimate(Sums(value, np.ones_like(value)), self.protocol.seed)
        if metric != "psnr_of_mse":
            return estimate
        pixels = self.clips.frames.shape[2] * self.clips.frames.shape[3]
        low, mean, high = (
            -10 * np.log10(np.maximum(x / pixels, 1e-10))
            for x in (estimate.high, estimate.value, estimate.low)
        )
        return Estimate(mean, low, high, estimate.n)

    def _set(self, name: str, seed: int | None) -> Row:
        assert self.sets is not None
        count, length = self.clips.frames.shape[:2]
        value, low, high = (np.array([x]) for x in self.sets.distance(self.protocol.seed))
        (row,) = self._made(Estimate(value, low, high, np.array([count])), name, "fvd", seed)
        return {**row, "clips": count, "frames": length}

    def _made(self, estimate: Estimate, name: str, metric: str, seed: int | None) -> list[Row]:
        return make_rows(
            estimate, self.protocol, model=name, metric=metric, unit=UNITS[metric], seed=seed,
            steps=range(len(estimate.value)),
        )  # fmt: skip


def _telling(subject: Subject, names: tuple[str, ...]) -> Subject:
    """The subject, told these and nothing else."""

    def predict(clips: Clips, sample: int) -> Prediction:
        said = shapes.no_conditions(*clips.frames.shape[:2])
        said = said._replace(**{name: getattr(clips.conditions, name) for name in names})
        return subject.predict(clips._replace(conditions=said), sample)

    return subject._replace(predict=predict)


def _median(protocol: Protocol):
    def predict(clips: Clips, _: int) -> Prediction:
        middle = np.round(np.median(clips.frames[:, : protocol.context], axis=1)).astype(np.uint8)
        return Prediction(np.repeat(middle[:, None], protocol.horizon, 1))

    return predict
