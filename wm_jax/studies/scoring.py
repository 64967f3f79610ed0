"""What is kept of a run's scores: sums per episode where claims are decided, curves elsewhere."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from wm_jax import checkpoint, models
from wm_jax.evaluation import calibration, statistics, suite
from wm_jax.evaluation.protocol import Protocol, split_hash
from wm_jax.evaluation.statistics import Sums
from wm_jax.evaluation.suite import Scores, Subject
from wm_jax.evaluation.tracker import Instrument
from wm_jax.evaluation.twins_world import open_world
from wm_jax.evaluation.world import Clips

CURVE_EPISODES = 64  # validation episodes by which a rate is chosen and progress is drawn
BASELINES = ("copy_last", "constant_velocity", "see_then_simulate")

Stored = dict[str, Any]


class Judge:
    """One split of a built data set, and the protocol by which it is judged."""

    def __init__(self, data: str, protocol: Protocol, conditions: Sequence[str]):
        world = open_world(data, protocol.resolution, tuple(sorted(conditions)))
        self.world, self.instrument = world, Instrument(world.palette, world.resolution)
        self.clips: Clips = world.clips(
            protocol.split, protocol.length, protocol.starts, protocol.episodes
        )
        self.protocol = dataclasses.replace(
            protocol, world=world.name, split_hash=split_hash(self.clips.frames)
        )

    def scores(self, subject: Subject) -> Scores:
        return suite.measure(subject, self.clips, self.protocol, self.instrument)[0]

    def model(self, workdir: str, step: int | None = None) -> Scores:
        """Of a run's newest whole checkpoint, or of the one of ``step``."""
        params, config, _ = checkpoint.restore_params(workdir, step)
        subject = suite.model_subject("model", models.build(config.model), params, self.protocol)
        return self.scores(suite.with_samples(subject, self.clips, self.protocol))

    def baselines(self) -> dict[str, Scores]:
        subjects = suite.baselines(self.world, self.instrument, self.protocol)
        return {s.name: self.scores(s) for s in subjects if s.name in BASELINES}

    def holds(self) -> bool:
        """Whether the instrument can be trusted on this data."""
        image = self.world.mean_image()
        return calibration.calibrate(self.clips, image, self.protocol, self.instrument)[1]


def stored(scores: Scores, steps: Sequence[int], protocol: Protocol) -> Stored:
    """As JSON: ``sums`` per episode at ``steps`` frames ahead, and ``curves`` of every step with
    their intervals. Numbers that do not exist are None."""
    sums: dict[str, Any] = {}
    curves: dict[str, Any] = {}
    for metric, of in scores.items():
        sums[metric] = {
            str(step): {
                "total": [round(float(x), 6) for x in of.total[:, step - 1]],
                "weight": [round(float(x), 6) for x in of.weight[:, step - 1]],
            }
            for step in steps
        }
        estimate = statistics.estimate(of, protocol.seed)
        curves[metric] = {
            name: [None if np.isnan(x) else round(float(x), 5) for x in getattr(estimate, name)]
            for name in ("value", "low", "high")
        }
    return {"sums": sums, "curves": curves}


def sums_of(stored: Stored, metric: str, step: int) -> Sums:
    """The inverse of `stored`: (episodes, 1)."""
    kept = stored["sums"][metric][str(step)]
    return Sums(*(np.array(kept[name], np.float64)[:, None] for name in ("total", "weight")))


def overall(scores: Scores, metric: str) -> float | None:
    """The mean over all episodes and steps: one number by which rates are chosen."""
    total, weight = (float(x.sum()) for x in scores[metric])
    return total / weight if weight else None
