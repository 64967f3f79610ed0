"""The temporal suite: is what is there still there later, and nothing else?

Two sets of clips. Short ones, as in the pixel suite: *permanence* of what was hidden and *flicker*
where nothing moves. Long ones, of twenty training windows, in which no place can be right any more:
*coherence*, for how long a rollout keeps its objects. The truth itself is a subject in both: what
it scores is what the instrument is worth.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float, Int

from wm_jax.evaluation import coherence, permanence, statistics, survival
from wm_jax.evaluation.flicker import flicker
from wm_jax.evaluation.informed import Prediction
from wm_jax.evaluation.protocol import Protocol
from wm_jax.evaluation.rows import Row, make_rows
from wm_jax.evaluation.statistics import Estimate, Sums
from wm_jax.evaluation.suite import Subject, batches, take
from wm_jax.evaluation.tracker import Instrument
from wm_jax.evaluation.world import Clips, World

#: metric -> (unit, whether more is better)
METRICS = {
    "coherence": ("1", True),
    "coherence_half_life": ("step", True),
    "permanence": ("1", True),
    "permanence_error": ("px", False),
    "permanence_identity": ("1", True),
    "flicker": ("level^2", False),
}
ALL = (1, 999)  # the bin that holds every event


@dataclasses.dataclass(frozen=True)
class TemporalProtocol(Protocol):
    """How permanence, flicker and coherence are scored."""

    suite: str = "temporal"
    long_episodes: int = 64  # at most, of the long clips
    long_starts: tuple[int, ...] = (0,)
    long_horizon: int = 480  # twenty windows of 24 frames
    longest_hidden: int = 0  # frames: longest that training hides anything
    bins: tuple[tuple[int, int], ...] = permanence.BINS
    hidden_share: float = permanence.HIDDEN
    soon: int = permanence.SOON
    lasting: int = coherence.LASTING
    pace: int = coherence.PACE
    paces: tuple[float, float] = coherence.PACES
    reduction: str = (
        "Permanence: events are chosen on the truth (an object seen by visible_share, then less "
        "than hidden_share of it, then seen again in the horizon), by the number of frames hidden, "
        "apart for objects hidden in the last frame shown (context), hidden later (rollout) and "
        "touched while hidden (struck). Success: its hue within its radius of its place, in one of "
        "the first `soon` frames. Error when it reappears; a miss costs the cap. Identity: of those"
        " with something within the match distance of its place, the share where that has their "
        "hue. Flicker: energy of frame differences above the truth's, where no true object or hand "
        "is within a pixel in this frame or the last, light and camera still. Coherence: "
        "Kaplan-Meier on the "
        "first violation: lost (a hue unseen for more than longest_hidden frames), doubled (more "
        "than there are, for `lasting` frames), swapped (hues trade places, or shapes change), "
        "astray (mean speed over `pace` frames outside `paces` times the truth's). Everything is "
        "read off frames by the tracker. Intervals by bootstrap over episodes."
    )

    @property
    def long_length(self) -> int:
        return self.context + self.long_horizon


class Short(NamedTuple):
    """Per event of the short clips (e,), over samples; and flicker by episode and step."""

    events: permanence.Events
    scores: permanence.EventScores
    unit: Int[np.ndarray, " e"]
    flicker: Sums


class Long(NamedTuple):
    """Per rollout (r,), over samples."""

    violations: coherence.Violations
    unit: Int[np.ndarray, " r"]


def truth(context: int) -> Subject:
    """What happened, as a subject."""

    def predict(clips: Clips, _: int) -> Prediction:
        return Prediction(clips.frames[:, context:])

    return Subject("truth", predict)


def measure_short(
    subject: Subject,
    clips: Clips,
    world: World,
    protocol: TemporalProtocol,
    instrument: Instrument,
    progress: Callable[[int], None] = lambda clips: None,
) -> Short:
    """Permanence and flicker. ``clips`` need to say what is ``covered``."""
    assert clips.covered is not None
    events, scores, unit, sums = [], [], [], []
    for index in batches(clips):
        batch = take(clips, index)
        found = permanence.hidden_events(batch.truth, protocol.context, protocol)
        ahead = jax.tree.map(lambda x: x[:, protocol.context :], batch.truth)
        scene = batch.scenes[:, protocol.context - 1]
        zoom = np.exp(world.get(scene, "camera")[:, 2:])
        radius = world.get(scene, "radius") * zoom * protocol.unit
        frames = batch.frames[:, protocol.context :]
        for sample in range(subject.samples):
            predicted = subject.predict(batch, sample).frames
            tracks = instrument.track(predicted)
            scores.append(permanence.score_events(tracks, ahead, radius, found, protocol))
            events.append(found._replace(clip=index[found.clip]))
            unit.append(batch.unit[found.clip])
            assert batch.covered is not None
            covered = batch.covered[:, protocol.context :]
            still = _still(batch, world)[:, protocol.context :]
            parts = flicker(predicted, frames, covered, still)
            units = int(clips.unit.max()) + 1
            each = (np.zeros((units, protocol.horizon)) for _ in parts)
            added = Sums(*each)
            for total, part in zip(added, parts, strict=True):
                np.add.at(total, batch.unit, part)
            sums.append(added)
        progress(int(index[-1]) + 1)
    join = lambda parts: jax.tree.map(lambda *x: np.concatenate(x), *parts)  # noqa: E731
    return Short(
        join(events), join(scores), np.concatenate(unit), jax.tree.map(lambda *x: sum(x), *sums)
    )


def _still(clips: Clips, world: World) -> Bool[np.ndarray, "r t"]:
    """Whether light and camera are as they were in the frame before."""
    told = np.concatenate([world.get(clips.scenes, name) for name in ("light", "camera")], -1)
    moved = np.abs(np.diff(told, axis=1, prepend=told[:, :1])).max(-1) > 1e-6
    return ~moved


def measure_long(
    subject: Subject,
    clips: Clips,
    protocol: TemporalProtocol,
    instrument: Instrument,
    progress: Callable[[int], None] = lambda clips: None,
) -> Long:
    """Coherence."""
    found, unit = [], []
    for index in batches(clips):
        batch = take(clips, index)
        ahead = jax.tree.map(lambda x: x[:, protocol.context :], batch.truth)
        for sample in range(subject.samples):
            tracks = instrument.track(subject.predict(batch, sample).frames)
            found.append(
                coherence.first_violations(tracks, ahead, protocol.longest_hidden, protocol)
            )
            unit.append(batch.unit)
        progress(int(index[-1]) + 1)
    joined = coherence.Violations(*(np.concatenate(x) for x in zip(*found, strict=True)))
    return Long(joined, np.concatenate(unit))


def table(
    short: dict[str, Short],
    long: dict[str, Long],
    protocol: TemporalProtocol, seed: int | None,
    tested: Sequence[str],
) -> list[Row]:  # fmt: skip
    """A row a subject, metric and step. Permanence: ``step`` is the upper end of the bin of frames
    hidden, 0 for all events; ``control`` is the kind of event, None for all."""
    rows: list[Row] = []
    for model in short:
        make = functools.partial(
            make_rows, protocol=protocol, model=model, seed=seed if model in tested else None
        )
        for kind in (None, *permanence.KINDS):
            for metric, estimate in _permanence(short[model], kind, protocol).items():
                steps = [0, *(upper for _, upper in protocol.bins)]
                unit = METRICS[metric][0]
                rows += make(estimate, metric=metric, unit=unit, control=kind, steps=steps)
        whole = Sums(*(x.sum(1, keepdims=True) for x in short[model].flicker))
        estimate = statistics.estimate(whole, protocol.seed)
        rows += make(estimate, metric="flicker", unit=METRICS["flicker"][0], steps=[0])
        rows += _coherence(long[model], protocol, make)
    return rows


def _permanence(short: Short, kind: str | None, protocol: TemporalProtocol) -> dict[str, Estimate]:
    """Estimates over the bins: all, then each."""
    events, scores = short.events, short.scores
    asked = np.ones(len(events.kind), bool)
    if kind is not None:
        asked = events.kind == permanence.KINDS.index(kind)
    binned = np.stack(
        [
            asked & (events.hidden >= low) & (events.hidden <= high)
            for low, high in (ALL, *protocol.bins)
        ],
        -1,
    )
    units = len(short.flicker.total)

    def ratio(value: Float[np.ndarray, " e"], where: np.ndarray) -> Estimate:
        sums = Sums(np.zeros((units, binned.shape[1])), np.zeros((units, binned.shape[1])))
        counted = binned & where[:, None]
        np.add.at(sums.total, short.unit, counted * value[:, None])
        np.add.at(sums.weight, short.unit, counted.astype(np.float64))
        return statistics.estimate(sums, protocol.seed)

    every = np.ones(len(events.kind), bool)
    return {
        "permanence": ratio(scores.success.astype(float), every),
        "permanence_error": ratio(scores.error, every),
        "permanence_identity": ratio(scores.same.astype(float), scores.paired),
    }


def _coherence(long: Long, protocol: TemporalProtocol, make: Callable[..., list[Row]]) -> list[Row]:
    ended = long.violations.kind >= 0
    curve, half = survival.estimates(
        long.violations.step, ended, long.unit, protocol.long_horizon, protocol.seed
    )
    some = np.unique(np.linspace(1, protocol.long_horizon, 61).astype(int))
    thin = Estimate(*(field[some - 1] for field in curve))
    rows = make(thin, metric="coherence", unit="1", steps=some.tolist())
    rows += make(half, metric="coherence_half_life", unit="step", steps=[0])
    units = int(long.unit.max()) + 1
    for number, kind in enumerate(coherence.KINDS):
        sums = Sums(np.zeros((units, 1)), np.zeros((units, 1)))
        np.add.at(sums.total, long.unit, (long.violations.kind == number)[:, None].astype(float))
        np.add.at(sums.weight, long.unit, 1.0)
        estimate = statistics.estimate(sums, protocol.seed)
        rows += make(estimate, metric="first_violation", unit="1", control=kind, steps=[0])
    return rows
