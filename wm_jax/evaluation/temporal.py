"""The temporal suite: is what is there still there later, and nothing else?

Two sets of clips. Short ones, as in the pixel suite: *permanence* of what was hidden and *flicker*
where nothing moves. Long ones, of twenty training windows, in which no place can be right any more:
*coherence*, for how long a rollout keeps its objects. The truth itself is a subject in both: what
it scores is what the instrument is worth.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

import jax
import numpy as np
from jaxtyping import Bool, Float, Int

from wm_jax.evaluation import coherence, permanence, statistics, survival
from wm_jax.evaluation.flicker import flicker
from wm_jax.evaluation.informed import Prediction
from wm_jax.evaluation.protocol import TemporalProtocol
from wm_jax.evaluation.rows import Row, make_rows
from wm_jax.evaluation.statistics import Estimate, Sums
from wm_jax.evaluation.suite import Subject, batches, take
from wm_jax.evaluation.tracker import Instrument
from wm_jax.evaluation.world import Clips, World

T = TypeVar("T")

#: metric -> (unit, whether more is better)
METRICS = {
    "coherence": ("1", True),
    "coherence_half_life": ("step", True),
    "permanence": ("1", True),
    "permanence_error": ("px", False),
    "permanence_identity": ("1", True),
    "flicker": ("level^2", False),
}


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
    events, scores, unit, flickers = [], [], [], []
    for index in batches(clips):
        batch = take(clips, index)
        assert batch.covered is not None
        found = permanence.hidden_events(batch.truth, protocol)
        ahead = jax.tree.map(lambda x: x[:, protocol.context :], batch.truth)
        scene = batch.scenes[:, protocol.context - 1]
        zoom = np.exp(world.get(scene, "camera")[:, 2:])
        radius = world.get(scene, "radius") * zoom * protocol.unit
        frames, covered, still = (
            x[:, protocol.context :] for x in (batch.frames, batch.covered, _still(batch, world))
        )
        for sample in range(subject.samples):
            predicted = subject.predict(batch, sample).frames
            tracks = instrument.track(predicted)
            scores.append(permanence.score_events(tracks, ahead, radius, found, protocol))
            events.append(found)
            unit.append(batch.unit[found.clip])
            flickers.append((*flicker(predicted, frames, covered, still), batch.unit))
        progress(int(index[-1]) + 1)
    total, count, units = (np.concatenate(x) for x in zip(*flickers, strict=True))
    return Short(
        _joined(events),
        _joined(scores),
        np.concatenate(unit),
        Sums(*(statistics.sums_by_unit(x, units).total for x in (total, count))),
    )


def _joined(parts: Sequence[T]) -> T:
    """Of named tuples of arrays, one with all of them after each other."""
    return jax.tree.map(lambda *x: np.concatenate(x), *parts)


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
            found.append(coherence.first_violations(tracks, ahead, protocol))
            unit.append(batch.unit)
        progress(int(index[-1]) + 1)
    return Long(_joined(found), np.concatenate(unit))


def table(
    short: dict[str, Short],
    long: dict[str, Long],
    protocol: TemporalProtocol,
    seed: int | None,
    tested: Sequence[str],
) -> list[Row]:
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
        over_steps = Sums(*(x.sum(1, keepdims=True) for x in short[model].flicker))
        estimate = statistics.estimate(over_steps, protocol.seed)
        rows += make(estimate, metric="flicker", unit=METRICS["flicker"][0], steps=[0])
        rows += _coherence(long[model], protocol, make)
    return rows


def _permanence(short: Short, kind: str | None, protocol: TemporalProtocol) -> dict[str, Estimate]:
    """Estimates over the bins: all, then each."""
    events, scores = short.events, short.scores
    asked = np.ones(len(events.kind), bool)
    if kind is not None:
        asked = events.kind == permanence.KINDS.index(kind)
    hidden = events.hidden[:, None]
    low, high = np.array([(1, np.inf), *protocol.bins]).T
    binned = asked[:, None] & (low <= hidden) & (hidden <= high)

    def ratio(value: Float[np.ndarray, " e"], where: np.ndarray) -> Estimate:
        each = np.broadcast_to(value[:, None], binned.shape)
        counted = binned & where[:, None]
        number = len(short.flicker.total)
        sums = statistics.sums_by_unit(each, short.unit, counted, number)
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
    for number, kind in enumerate(coherence.KINDS):
        share = statistics.sums_by_unit(long.violations.kind[:, None] == number, long.unit)
        estimate = statistics.estimate(share, protocol.seed)
        rows += make(estimate, metric="first_violation", unit="1", control=kind, steps=[0])
    return rows
