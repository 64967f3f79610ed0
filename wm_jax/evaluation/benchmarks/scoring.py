"""Clips of a benchmark, and the scores of whoever predicts them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from wm_jax import shapes
from wm_jax.evaluation import lpips, pixel, statistics, suite
from wm_jax.evaluation.benchmarks.spec import UNITS, Benchmark
from wm_jax.evaluation.informed import Prediction
from wm_jax.evaluation.judge import Tested
from wm_jax.evaluation.protocol import Protocol, split_hash
from wm_jax.evaluation.rows import Row, make_rows
from wm_jax.evaluation.statistics import Sums
from wm_jax.evaluation.suite import Subject
from wm_jax.evaluation.world import Clips, Truth
from wm_jax.models.baselines import CopyLast
from wm_jax.progress import Progress


def open_clips(benchmark: Benchmark, folder: Path, episodes: int) -> Clips:
    """Clips without a truth but their frames. Raises `UserError` for what is missing or wrong."""
    length = benchmark.context + benchmark.horizon
    frames = benchmark.read(folder, length, episodes)
    count = len(frames)
    none = np.zeros((count, length, 0))
    truth = Truth(
        none.astype(int), none.astype(int), none.astype(bool), none.astype(np.float32),
        np.zeros((count, length, 0, 2), np.float32), none.astype(bool), none.astype(bool),
    )  # fmt: skip
    empty = none.astype(np.float32)
    said = shapes.no_conditions(count, length)
    start = np.zeros(count, int)
    return Clips(frames, said, np.arange(count), truth, empty, empty, None, start)


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
    tested = [run.subject(name, protocol) for name, run in runs.items()]
    tested = [suite.with_samples(subject, clips, protocol) for subject in tested]
    size = (protocol.resolution,) * 2
    copy_last = suite.model_subject("copy_last", CopyLast(size), {}, protocol)
    subjects = [*tested, copy_last, Subject("context_median", _median(protocol))]
    net = lpips.load(weights, "vgg") if "vgg" in lpips.available(weights) and weights else None
    rows: list[Row] = []
    with Progress(len(subjects) * len(clips.frames), benchmark.name, "clips") as progress:
        for number, subject in enumerate(subjects):
            sums: dict[str, list[np.ndarray]] = {}
            for index in suite.batches(clips):
                batch = suite.take(clips, index)
                each = [
                    _scores(subject.predict(batch, sample).frames, batch, protocol, net)
                    for sample in range(subject.samples)
                ]
                for name in each[0]:
                    sums.setdefault(name, []).append(np.mean([e[name] for e in each], 0))
                progress.update(number * len(clips.frames) + int(index[-1]) + 1, model=subject.name)
            seed = runs[subject.name].seed if subject.name in runs else None
            rows += _rows(benchmark, subject.name, sums, clips, protocol, seed)
    return {
        "protocol": protocol.to_dict(),
        "models": {
            name: run.about(subject.samples)
            for (name, run), subject in zip(runs.items(), tested, strict=True)
        },
        "published": {"source": benchmark.source, "values": benchmark.published},
        "command": command,
        "rows": rows,
    }


def _median(protocol: Protocol):
    def predict(clips: Clips, _: int) -> Prediction:
        middle = np.round(np.median(clips.frames[:, : protocol.context], axis=1)).astype(np.uint8)
        return Prediction(np.repeat(middle[:, None], protocol.horizon, 1))

    return predict


def _scores(
    predicted: UInt8[np.ndarray, "r t h w 3"],
    clips: Clips,
    protocol: Protocol,
    net: lpips.Weights | None,
) -> dict[str, np.ndarray]:
    """Each metric per clip and step."""
    truth = clips.frames[:, protocol.context :]
    grey = (x.astype(np.float64).mean(-1) / 255 for x in (truth, predicted))
    first, second = grey
    out = {
        "mse": np.square(first - second).sum((2, 3)),
        "psnr": np.asarray(pixel.psnr(truth, predicted), np.float64),
        "ssim": np.asarray(pixel.ssim(truth, predicted), np.float64),
    }
    if net is not None:
        flat = (x.reshape(-1, *x.shape[2:]) for x in (truth, predicted))
        out["lpips_vgg"] = np.asarray(lpips.lpips(net, "vgg", *flat)).reshape(truth.shape[:2])
    return out


def _rows(
    benchmark: Benchmark,
    model: str,
    sums: Mapping[str, list[np.ndarray]],
    clips: Clips,
    protocol: Protocol,
    seed: int | None,
) -> list[Row]:
    """Of every metric step 0, all steps together, and each step."""
    rows: list[Row] = []
    pixels = clips.frames.shape[2] * clips.frames.shape[3]
    for metric in benchmark.metrics:
        source = "mse" if metric == "psnr_of_mse" else metric
        steps = list(range(protocol.horizon + 1))
        if source not in sums:
            none = np.full(1, np.nan)
            nothing = statistics.Estimate(none, none, none, np.zeros(1, int))
            made = make_rows(
                nothing, protocol, model=model, metric=metric, unit="1", seed=seed, steps=[0]
            )
            rows += [{**row, "note": "not measured: --weights lacks its files"} for row in made]
            continue
        value = np.concatenate(sums[source])
        value = np.concatenate([value.mean(1, keepdims=True), value], 1)
        estimate = statistics.estimate(Sums(value, np.ones_like(value)), protocol.seed)
        if metric == "psnr_of_mse":
            low, mean, high = (
                -10 * np.log10(np.maximum(x / pixels, 1e-10))
                for x in (estimate.high, estimate.value, estimate.low)
            )
            estimate = statistics.Estimate(mean, low, high, estimate.n)
        rows += make_rows(
            estimate, protocol, model=model, metric=metric, unit=UNITS[metric], seed=seed,
            steps=steps,
        )  # fmt: skip
    return rows
