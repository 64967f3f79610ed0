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
from wm_jax.evaluation import calibration, causal, causal_page, counterfactual, suite, temporal
from wm_jax.evaluation.causal_page import CausalReport
from wm_jax.evaluation.protocol import CausalProtocol, Protocol, TemporalProtocol, split_hash
from wm_jax.evaluation.suite import Scores, Subject
from wm_jax.evaluation.summary import CEILING, Film, Report
from wm_jax.evaluation.temporal_page import TemporalReport
from wm_jax.evaluation.tracker import Instrument
from wm_jax.evaluation.world import Clips, World
from wm_jax.models.baselines import CopyLast
from wm_jax.progress import Progress


@dataclasses.dataclass(frozen=True)
class Run:
    """A trained model, restored."""

    workdir: Path
    model: Any
    params: Any
    config: Any
    updates: int

    @property
    def seed(self) -> int | None:
        return self.config.seed

    def subject(self, name: str, protocol: Protocol) -> Subject:
        return suite.model_subject(name, self.model, self.params, protocol)

    def causal_subject(self, name: str, protocol: CausalProtocol) -> causal.Subject:
        return causal.ModelSubject(name, self.model, self.params, protocol)

    def settings(self) -> Mapping[str, Any]:
        return self.config.to_dict()

    def about(self, samples: int) -> dict[str, Any]:
        return {
            "workdir": str(self.workdir),
            "backbone": self.config.model.name,
            "parameters": sum(leaf.size for leaf in jax.tree.leaves(self.params)),
            "updates": self.updates,
            "samples": samples,
        }


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

    def causal_subject(self, name: str, protocol: CausalProtocol) -> causal.Subject: ...


def restore(workdirs: Sequence[Path]) -> dict[str, Run]:
    """The runs, by the names their rows will have. Raises `UserError` where sizes differ."""
    runs: dict[str, Run] = {}
    for workdir in workdirs:
        params, config, updates = checkpoint.restore_params(workdir)
        name = config.model.name
        name = "default" if name == base_config().model.name else name
        if name in runs:
            name = f"{name} ({workdir.name})"
        runs[name] = Run(workdir, models.build(config.model), params, config, updates)
        first = next(iter(runs.values()))
        if config.model.resolution != first.config.model.resolution:
            raise UserError(
                f"{workdir} is a model of {config.model.resolution} px and {first.workdir} one of "
                f"{first.config.model.resolution} px; evaluate them one by one."
            )
    return runs


def judge(
    runs: Mapping[str, Tested], world: World, protocol: Protocol, command: str
) -> tuple[Report, dict[str, Any]]:
    """Scores the runs and every baseline on the same clips: the report, and the result as JSON."""
    clips = world.clips(protocol.split, protocol.length, protocol.starts, protocol.episodes)
    protocol = dataclasses.replace(protocol, split_hash=split_hash(clips.frames))
    instrument = Instrument(world.palette, world.resolution)
    calibrated, holds = calibration.calibrate(clips, world.mean_image(), protocol, instrument)
    tested = [run.subject(name, protocol) for name, run in runs.items()]
    tested = [suite.with_samples(subject, clips, protocol) for subject in tested]
    subjects = [*tested, *suite.baselines(world, instrument, protocol)]
    scores, errors = _measure(subjects, clips, protocol, instrument)
    first, run = tested[0], runs[tested[0].name]
    rows = suite.table(scores, protocol, run.seed, list(runs)) + calibrated
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
    rows = temporal.table(shorts, longs, protocol, seed, list(runs))
    result = {
        "protocol": protocol.to_dict(),
        "models": {name: run.about(samples[name]) for name, run in runs.items()},
        "command": command,
        "rows": rows,
    }
    return TemporalReport(rows, protocol, list(runs), shorts, longs, far[0], long), result


def judge_causal(
    runs: Mapping[str, Editable], world: World, protocol: CausalProtocol, command: str
) -> tuple[CausalReport, dict[str, Any]]:
    """The causal suite: what its section of the page is made of, and the result as JSON."""
    protocol = dataclasses.replace(protocol, kinds=world.interventions)
    clips = world.clips(protocol.split, protocol.length, protocol.starts, protocol.episodes)
    protocol = dataclasses.replace(protocol, split_hash=split_hash(clips.frames))
    instrument = Instrument(world.palette, world.resolution)
    scenarios = counterfactual.scenarios(protocol)
    facts = counterfactual.factual(clips, world, protocol)
    error = counterfactual.seen_by(instrument, facts, protocol)
    twins = []
    with Progress(len(scenarios), "twins", "scenarios") as progress:
        for number, scenario in enumerate(scenarios, 1):
            twins.append(counterfactual.make(scenario, facts, world, protocol, error))
            progress.update(number, scenario=scenario.name)
    tested = [run.causal_subject(name, protocol) for name, run in runs.items()]
    subjects: list[causal.Subject] = [
        *tested,
        causal.ModelSubject("copy_last", CopyLast((world.resolution,) * 2), {}, protocol),
        causal.Simulated(CEILING, world, protocol, instrument),
        causal.Simulated("truth", world, protocol, None),
    ]
    measured: dict[str, causal.Measured] = {}
    samples = dict.fromkeys(runs, 1)
    count = len(facts.frames)
    with Progress(len(subjects) * count, "causal", "clips") as progress:
        for number, subject in enumerate(subjects):

            def done(clips: int, before: int = number * count, name: str = subject.name) -> None:
                progress.update(before + clips, model=name)

            if subject.name in runs:
                samples[subject.name] = causal.samples_of(subject, facts, protocol)
            measured[subject.name] = causal.measure(
                subject, facts, twins, protocol, instrument, samples.get(subject.name, 1), done
            )
    seed = next(iter(runs.values())).seed
    rows = causal.table(measured, facts, twins, world, protocol, seed, list(runs))
    result = {
        "protocol": protocol.to_dict(),
        "models": {name: run.about(samples[name]) for name, run in runs.items()},
        "command": command,
        "rows": rows,
    }
    films = causal_films(tested[0], measured[tested[0].name], facts, twins, protocol)
    spans = {twin.name: float(twin.span.mean()) for twin in twins}
    names = [twin.name for twin in twins]
    return CausalReport(rows, protocol, list(runs), names, spans, films), result


def causal_films(
    subject: causal.Subject,
    measured: causal.Measured,
    facts: Clips,
    twins: Sequence[counterfactual.Twins],
    protocol: CausalProtocol,
) -> list[causal_page.Film]:
    """Of every kind that the subject takes, the clip whose success is the median, imagined again in
    the batch that it was scored in."""
    films = []
    for twin in twins:
        if (twin.name, None) not in measured.edited or twin.name not in (
            *protocol.kinds,
            "sequence",
        ):
            continue
        counted = causal.scored(twin, protocol)
        far, base = (
            (x * counted).sum(1)
            for x in (measured.edited[twin.name, None].objects, measured.plain[twin.name].objects)
        )
        some = np.flatnonzero(base > 0)
        if not len(some):
            continue
        success = 1 - far[some] / base[some]
        clip = some[np.argsort(success, kind="stable")[len(some) // 2]]
        index = next(b for b in suite.batches(facts) if clip in b)
        unedited, edited = causal.both_futures(subject, facts, twin, index)
        ahead, at = slice(protocol.context, None), clip - index[0]
        films.append(
            causal_page.Film(
                twin.name,
                float(1 - far[clip] / base[clip]),
                facts.frames[clip, ahead],
                twin.clips.frames[clip, ahead],
                unedited[at],
                edited[at],
            )
        )
    return films


def _measure(
    subjects: Sequence[Subject], clips: Clips, protocol: Protocol, instrument: Instrument
) -> tuple[dict[str, Scores], dict[str, np.ndarray]]:
    """Scores and errors of each clip, by subject, with a progress bar."""
    scores: dict[str, Scores] = {}
    errors: dict[str, np.ndarray] = {}
    whole = len(clips.frames) * protocol.horizon
    with Progress(len(subjects) * whole, "evaluate", "frames") as progress:
        for number, subject in enumerate(subjects):

            def done(clip_count: int, before: int = number * whole, name: str = subject.name):
                progress.update(before + clip_count * protocol.horizon, model=name)

            measured = suite.measure(subject, clips, protocol, instrument, done)
            scores[subject.name], errors[subject.name] = measured
    return scores, errors


def _films(subject: Subject, clips: Clips, errors: np.ndarray) -> list[Film]:
    """The best, a median and the worst clip, predicted again in the batches they were scored in."""
    order = np.argsort(errors, kind="stable")
    films = []
    for title, index in (
        ("Best clip", order[0]),
        ("Median clip", order[len(order) // 2]),
        ("Worst clip", order[-1]),
    ):
        batch = next(b for b in suite.batches(clips) if index in b)
        predicted = subject.predict(suite.take(clips, batch), 0).frames[index - batch[0]]
        films.append(Film(title, clips.frames[index], predicted, float(errors[index])))
    return films
