"""The pixel suite: open-loop prediction of held-out clips, scored at every horizon step.

A *subject* is whatever predicts: the model under test or a baseline. All subjects see the same
clips, in the same batches, and are scored by the same code into sums per episode.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Hashable, Sequence
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree, UInt8

from wm_jax import shapes
from wm_jax.evaluation import informed, pixel, statistics
from wm_jax.evaluation.identity import score_identity
from wm_jax.evaluation.informed import Prediction
from wm_jax.evaluation.protocol import Protocol
from wm_jax.evaluation.rows import Row, make_rows
from wm_jax.evaluation.score import score_objects
from wm_jax.evaluation.statistics import Sums
from wm_jax.evaluation.tracker import Instrument, Tracks
from wm_jax.evaluation.world import Clips, World
from wm_jax.models.baselines import CopyLast

BATCH = 32  # clips predicted at once

#: metric -> (unit, whether more is better)
METRICS = {
    "psnr": ("dB", True),
    "ssim": ("1", True),
    "position_error": ("px", False),
    "position_error_touched": ("px", False),
    "matched_share": ("1", True),
    "identity": ("1", True),
    "missed_share": ("1", False),
    "invented_objects": ("1/frame", False),
}
#: The metrics for which a model is compared with each baseline, clip by clip.
PAIRED = ("psnr", "ssim", "position_error", "position_error_touched")

Scores = dict[str, Sums]
#: Called with indices of clips and, of each sample, their frames and what is tracked in them.
Watch = Callable[[np.ndarray, Sequence[tuple[UInt8[np.ndarray, "r t h w 3"], Tracks]]], None]


class Subject(NamedTuple):
    """Something that predicts. ``predict(clips, sample)`` is a function of both alone."""

    name: str
    predict: Callable[[Clips, int], Prediction]
    samples: int = 1


def model_subject(name: str, model: shapes.WorldModel, params: PyTree, protocol: Protocol):
    """A world model as a subject: it encodes the context and rolls out the horizon.

    It is stochastic if two samples of the first clip differ, and then gets all its samples.
    """
    forward = _forward(cast(Hashable, model), protocol.context, protocol.horizon)

    def predict(clips: Clips, sample: int) -> Prediction:
        # Padded to a power of two, so that one program or two serve every batch.
        filler = (1 << (len(clips.frames) - 1).bit_length()) - len(clips.frames)
        pad = lambda x: np.pad(x, [(0, filler)] + [(0, 0)] * (x.ndim - 1))  # noqa: E731
        frames, conditions = jax.tree.map(pad, (clips.frames, clips.conditions))
        key = jax.random.fold_in(jax.random.key(protocol.seed), sample)
        return Prediction(np.asarray(forward(params, frames, conditions, key))[: len(clips.frames)])

    return Subject(name, predict)


@functools.lru_cache(maxsize=4)
def _forward(model: Any, context: int, horizon: int):
    """Frames of the horizon, as one program for all parameters of a model and all splits."""

    @jax.jit
    def forward(params, frames, conditions, key):
        seen = jax.tree.map(lambda x: x[:, :context], conditions)
        told = shapes.conditions_for_steps(conditions)
        ahead = jax.tree.map(lambda x: x[:, context:], told)
        first, second = jax.random.split(key)
        state = shapes.encode(model, params, frames[:, :context], seen, first)
        future = shapes.rollout(model, params, state, horizon, ahead, second)
        return jnp.round(jnp.clip(future.frames, 0, 1) * 255).astype(jnp.uint8)

    return forward


def baselines(world: World, instrument: Instrument, protocol: Protocol) -> list[Subject]:
    """The five baselines of every table."""
    image = world.mean_image()

    def still(pictures: np.ndarray) -> Prediction:
        return Prediction(np.repeat(pictures[:, None], protocol.horizon, axis=1))

    def mean_image(clips: Clips, _: int) -> Prediction:
        return still(np.broadcast_to(image, (len(clips.frames), *image.shape)))

    def context_median(clips: Clips, _: int) -> Prediction:
        median = np.median(clips.frames[:, : protocol.context], axis=1)
        return still(np.round(median).astype(np.uint8))

    def constant_velocity(clips: Clips, _: int) -> Prediction:
        return informed.constant_velocity(clips, world, instrument, protocol)

    def see_then_simulate(clips: Clips, _: int) -> Prediction:
        return informed.see_then_simulate(clips, world, instrument, protocol)

    told = (mean_image, context_median, constant_velocity, see_then_simulate)
    copy_last = CopyLast((world.resolution, world.resolution))
    return [
        model_subject("copy_last", copy_last, {}, protocol),
        *(Subject(predict.__name__, predict) for predict in told),
    ]


def with_samples(subject: Subject, clips: Clips, protocol: Protocol) -> Subject:
    """The subject with the samples that are its due: one if two of them agree in every byte."""
    few = take(clips, batches(clips)[0])
    first, second = (subject.predict(few, sample).frames for sample in range(2))
    return subject._replace(samples=1 if np.array_equal(first, second) else protocol.samples)


def take(clips: Clips, index: np.ndarray) -> Clips:
    """Some of the clips."""
    return jax.tree.map(lambda x: np.asarray(x)[index], clips)


def batches(clips: Clips) -> list[np.ndarray]:
    """Indices of the clips of each batch: always the same ones, and as many in each as can be, so
    that one program serves nearly all."""
    count = len(clips.frames)
    return np.array_split(np.arange(count), max(1, -(-count // BATCH)))


def measure(
    subject: Subject,
    clips: Clips,
    protocol: Protocol,
    instrument: Instrument,
    progress: Callable[[int], None] = lambda clips: None,
    watch: Watch | None = None,
) -> tuple[Scores, np.ndarray]:
    """Sums per episode of every metric, and each clip's mean position error (r,), in px; NaN where
    fewer than one object a frame is to be seen.

    ``progress`` is called with the number of clips that are done, ``watch`` with indices of clips
    and, of each sample, their frames and what is tracked in them.
    """
    parts: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {name: [] for name in METRICS}
    for index in batches(clips):
        batch = take(clips, index)
        each, shown = [], []
        for sample in range(subject.samples):
            predicted = subject.predict(batch, sample)
            tracks = predicted.stated or instrument.track(predicted.frames)
            each.append(_score(predicted.frames, tracks, batch, protocol))
            shown.append((predicted.frames, tracks))
        if watch is not None:
            watch(index, shown)
        for name in METRICS:
            total, count = np.sum([scores[name] for scores in each], axis=0)
            parts[name].append((total, count))
        progress(int(index[-1]) + 1)
    sums, per_clip = {}, np.zeros(len(clips.frames))
    for name, pieces in parts.items():
        total, count = (np.concatenate(arrays) for arrays in zip(*pieces, strict=True))
        sums[name] = Sums(*(statistics.sums_by_unit(x, clips.unit).total for x in (total, count)))
        if name == "position_error":
            seen = count.sum(1) >= protocol.horizon
            per_clip = np.where(seen, total.sum(1) / np.maximum(count.sum(1), 1), np.nan)
    return sums, per_clip


def _score(
    predicted: UInt8[np.ndarray, "r t h w 3"], tracks: Tracks, clips: Clips, protocol: Protocol
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Each metric's total and count per clip and step."""
    truth = jax.tree.map(lambda x: x[:, protocol.context :], clips.truth)
    frames = clips.frames[:, protocol.context :]
    objects = score_objects(tracks, truth, protocol)
    one = np.ones(frames.shape[:2])
    asked, touched = objects.asked.sum(2), objects.touched.sum(2)
    invented = objects.invented
    some = (asked > 0).astype(np.float64)
    error = (objects.error * objects.asked).sum(2) + protocol.cap * invented
    return {
        "psnr": (np.asarray(pixel.psnr(frames, predicted), np.float64), one),
        "ssim": (np.asarray(pixel.ssim(frames, predicted), np.float64), one),
        "position_error": (error, asked + invented),
        "position_error_touched": ((objects.error * objects.touched).sum(2), touched),
        "matched_share": (objects.matched * some, some),
        "identity": score_identity(tracks, truth, protocol),
        "missed_share": ((objects.asked & ~objects.found).sum(2), asked),
        "invented_objects": (invented, one),
    }


def table(
    scores: dict[str, Scores], protocol: Protocol, seed: int | None, tested: Collection[str]
) -> list[Row]:
    """A row for every subject, metric and step; and for every tested subject its paired difference
    from each other one, with that one's name as ``control``. ``seed`` is the training seed."""
    out: list[Row] = []
    for model, metrics in scores.items():
        for metric, (unit, _) in METRICS.items():
            estimate = statistics.estimate(metrics[metric], protocol.seed)
            trained = seed if model in tested else None
            out += make_rows(
                estimate, protocol, model=model, metric=metric, unit=unit, seed=trained
            )
    for model in tested:
        for control in (name for name in scores if name != model):
            for metric in PAIRED:
                pair = scores[model][metric], scores[control][metric]
                estimate = statistics.difference(*pair, protocol.seed)
                out += make_rows(
                    estimate,
                    protocol,
                    model=model,
                    metric=f"{metric}_difference",
                    unit=METRICS[metric][0],
                    control=control,
                    seed=seed,
                )
    return out
