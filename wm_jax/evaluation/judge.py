"""From runs on disk to scores: what `wm-jax evaluate` does between its options and its files."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from typing import Protocol as TypingProtocol

import jax
import numpy as np

from wm_jax import checkpoint, models
from wm_jax.config import base_config
from wm_jax.errors import UserError
from wm_jax.evaluation import calibration, causal_subjects, probe_states, suite, temporal
from wm_jax.evaluation.likeness import Likeness
from wm_jax.evaluation.protocol import (
    CausalProtocol,
    ProbeProtocol,
    Protocol,
    TemporalProtocol,
    split_hash,
)
from wm_jax.evaluation.suite import Scores, Subject
from wm_jax.evaluation.summary import Film, Report
from wm_jax.evaluation.temporal_page import TemporalReport
from wm_jax.evaluation.tracker import Instrument
from wm_jax.evaluation.world import Clips, World
from wm_jax.progress import Progress
from wm_jax.world import World as SteeredWorld


@dataclasses.dataclass(frozen=True)
class Run:
    """A trained model, restored."""

    workdir: Path
    model: Any
    params: Any
    config: Any
    updates: int
    route: str | None = None  # by which it takes edits: see `causal_subjects.ModelSubject`

    @property
    def seed(self) -> int | None:
        return self.config.seed

    def subject(self, name: str, protocol: Protocol) -> Subject:
        return suite.model_subject(name, self.model, self.params, protocol)

    def causal_subject(self, name: str, protocol: CausalProtocol) -> causal_subjects.Subject:
        return causal_subjects.ModelSubject(name, self.model, self.params, protocol, self.route)

    def steered(self) -> SteeredWorld:
        """To plan with."""
        told = tuple(self.config.model.modalities)
        side = self.config.model.resolution
        return SteeredWorld(self.model, self.params, side, told, path=str(self.workdir))

    def readers(self, protocol: ProbeProtocol) -> dict[str | None, probe_states.Reader]:
        out: dict[str | None, probe_states.Reader] = {
            None: probe_states.ModelReader(self.model, self.params, protocol),
            "one_frame": probe_states.ModelReader(self.model, self.params, protocol, glimpse=True),
        }
        if hasattr(self.model, "init"):
            fresh = probe_states.untrained(self.model, protocol)
            out["random_weights"] = probe_states.ModelReader(self.model, fresh, protocol)
        return out

    def settings(self) -> Mapping[str, Any]:
        return self.config.to_dict()

    def about(self, samples: int) -> dict[str, Any]:
        return {
            "workdir": str(self.workdir),
            "backbone": self.config.model.name,
            "parameters": sum(leaf.size for leaf in jax.tree.leaves(self.params)),
            "updates": self.updates,
            "samples": samples,
        } | ({} if self.route is None else {"route": self.route})


class Tested(TypingProtocol):
    """Something under test: a run, a model from outside, a folder of videos."""

    @property
    def seed(self) -> int | None:
        """Of its training, where it is known."""
        ...

    def subject(self, name: str, protocol: Protocol) -> Subject: ...

    def settings(self) -> Mapping[str, Any]:
        """For the page."""
        ...

    def about(self, samples: int) -> dict[str, Any]:
        """For the result."""
        ...


class Editable(Tested, TypingProtocol):
    """One that can be asked what happens if."""

    def causal_subject(self, name: str, protocol: CausalProtocol) -> causal_subjects.Subject: ...


class Readable(Tested, TypingProtocol):
    """One whose states can be read: as it is (None), and under some of `probes.CONTROLS`."""

    def readers(self, protocol: ProbeProtocol) -> Mapping[str | None, probe_states.Reader]: ...


def restore(workdirs: Sequence[Path], route: str | None = None) -> dict[str, Run]:
    """The runs, by the names their rows will have, each taking edits by ``route``, if it has it.
    Raises `UserError` where sizes differ, and where none has the route."""
    runs: dict[str, Run] = {}
    for workdir in workdirs:
        params, config, updates = checkpoint.restore_params(workdir)
        name = config.model.name
        name = "default" if name == base_config().model.name else name
        if name in runs:
            name = f"{name} ({workdir.name})"
        model = models.build(config.model)
        taken = route if route in model.routes else None
        runs[name] = Run(workdir, model, params, config, updates, taken)
        first = next(iter(runs.values()))
        if config.model.resolution != first.config.model.resolution:
            raise UserError(
                f"{workdir} is a model of {config.model.resolution} px and {first.workdir} one of "
                f"{first.config.model.resolution} px; evaluate them one by one."
            )
    if route is not None and route not in {run.route for run in runs.values()}:
        takes = "; ".join(f"{n}: {', '.join(r.model.routes) or 'none'}" for n, r in runs.items())
        raise UserError(f"no run takes edits by the route '{route}' (routes of {takes}).")
    return runs


def judge(
    runs: Mapping[str, Tested],
    world: World,
    protocol: Protocol,
    command: str,
    weights: Path | None = None,
) -> tuple[Report, dict[str, Any]]:
    """Scores the runs and every baseline on the same clips: the report, and the result as JSON.
    ``weights`` is the folder of `wm_jax.evaluation.lpips`."""
    clips = world.clips(protocol.split, protocol.length, protocol.starts, protocol.episodes)
    protocol = dataclasses.replace(protocol, split_hash=split_hash(clips.frames))
    instrument = Instrument(world.palette, world.resolution)
    calibrated, holds = calibration.calibrate(clips, world.mean_image(), protocol, instrument)
    tested = [run.subject(name, protocol) for name, run in runs.items()]
    tested = [suite.with_samples(subject, clips, protocol) for subject in tested]
    subjects = [*tested, *suite.baselines(world, instrument, protocol)]
    likeness = Likeness(clips, protocol, instrument, weights)
    scores, errors = _measure(subjects, clips, protocol, instrument, likeness)
    first, run = tested[0], runs[tested[0].name]
    rows = suite.table(scores, protocol, run.seed, list(runs)) + calibrated
    rows += likeness.rows(run.seed, list(runs))
    about = {
        name: run.about(subject.samples)
        for (name, run), subject in zip(runs.items(), tested, strict=True)
    }
    result = {
        "protocol": protocol.to_dict(),
        "instrument_holds": holds,
        "models": about,
        "command": command,
        "rows": rows,
    }
    films = _films(first, clips, errors[first.name])
    report = Report(rows, protocol, list(runs), films, holds, about, command, run.settings())
    return report, result


def judge_temporal(
    runs: Mapping[str, Tested], world: World, protocol: TemporalProtocol, command: str
) -> tuple[TemporalReport, dict[str, Any]]:
    """The temporal suite: what its section of the page is made of, and the result as JSON."""
    longest = world.longest_hidden(protocol.visible_share)
    protocol = dataclasses.replace(protocol, longest_hidden=longest)
    short = world.clips(
        protocol.split, protocol.length, protocol.starts, protocol.episodes, covered=True
    )
    episodes = min(protocol.episodes, protocol.long_episodes)
    long = world.clips(protocol.split, protocol.long_length, protocol.long_starts, episodes)
    protocol = dataclasses.replace(protocol, split_hash=split_hash(short.frames))
    instrument = Instrument(world.palette, world.resolution)

    def subjects(horizon: int) -> list[Subject]:
        rules = dataclasses.replace(protocol, horizon=horizon)
        tested = [run.subject(name, rules) for name, run in runs.items()]
        return [*tested, *suite.baselines(world, instrument, rules), temporal.truth(rules.context)]

    near, far = subjects(protocol.horizon), subjects(protocol.long_horizon)
    shorts: dict[str, temporal.Short] = {}
    longs: dict[str, temporal.Long] = {}
    samples = dict.fromkeys(runs, 1)
    each, whole = len(short.frames) * protocol.horizon, len(long.frames) * protocol.long_horizon
    with Progress(len(near) * (each + whole), "temporal", "frames") as progress:
        for number, (first, second) in enumerate(zip(near, far, strict=True)):
            begun = number * (each + whole)

            def tell(steps: int, before: int, name: str = first.name) -> Callable[[int], None]:
                return lambda clips: progress.update(before + clips * steps, model=name)

            if first.name in runs:
                first = suite.with_samples(first, short, protocol)
                second = second._replace(samples=first.samples)
                samples[first.name] = first.samples
            told = tell(protocol.horizon, begun)
            shorts[first.name] = temporal.measure_short(
                first, short, world, protocol, instrument, told
            )
            told = tell(protocol.long_horizon, begun + each)
            longs[first.name] = temporal.measure_long(second, long, protocol, instrument, told)
    seed = next(iter(runs.values())).seed
    calibrated, holds = calibration.calibrate(short, world.mean_image(), protocol, instrument)
    rows = temporal.table(shorts, longs, protocol, seed, list(runs)) + calibrated
    result = {
        "protocol": protocol.to_dict(),
        "instrument_holds": holds,
        "models": {name: run.about(samples[name]) for name, run in runs.items()},
        "command": command,
        "rows": rows,
    }
    report = TemporalReport(rows, protocol, list(runs), shorts, longs, far[0], long, holds)
    return report, result


def _measure(
    subjects: Sequence[Subject],
    clips: Clips,
    protocol: Protocol,
    instrument: Instrument,
    likeness: Likeness,
) -> tuple[dict[str, Scores], dict[str, np.ndarray]]:
    """Scores and errors of each clip, by subject, with a progress bar."""
    scores: dict[str, Scores] = {}
    errors: dict[str, np.ndarray] = {}
    whole = len(clips.frames) * protocol.horizon
    with Progress(len(subjects) * whole, "evaluate", "frames") as progress:
        for number, subject in enumerate(subjects):

            def done(clip_count: int, before: int = number * whole, name: str = subject.name):
                progress.update(before + clip_count * protocol.horizon, model=name)

            watch = likeness.watch(subject.name)
            measured = suite.measure(subject, clips, protocol, instrument, done, watch)
            scores[subject.name], errors[subject.name] = measured
    return scores, errors


def _films(subject: Subject, clips: Clips, errors: np.ndarray) -> list[Film]:
    """The best, a median and the worst clip of those with objects in sight, predicted again in the
    batches they were scored in."""
    order = np.argsort(errors, kind="stable")
    order = order[: np.isfinite(errors).sum()]  # NaN comes last
    films: list[Film] = []
    if not len(order):
        return films
    for title, index in (
        ("Best clip", order[0]),
        ("Median clip", order[len(order) // 2]),
        ("Worst clip", order[-1]),
    ):
        batch = next(b for b in suite.batches(clips) if index in b)
        predicted = subject.predict(suite.take(clips, batch), 0).frames[index - batch[0]]
        films.append(Film(title, clips.frames[index], predicted, float(errors[index])))
    return films
