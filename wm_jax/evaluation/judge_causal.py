"""The causal suite from runs to rows: twins of every scenario, all subjects asked about them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from wm_jax.edit import KINDS
from wm_jax.evaluation import (
    adherence,
    calibration,
    causal,
    causal_page,
    causal_rows,
    causal_subjects,
    counterfactual,
    sound,
    suite,
)
from wm_jax.evaluation.causal_page import CausalReport
from wm_jax.evaluation.judge import Editable
from wm_jax.evaluation.protocol import CausalProtocol, split_hash
from wm_jax.evaluation.summary import CEILING, TYPICAL
from wm_jax.evaluation.tracker import Instrument
from wm_jax.evaluation.world import Clips, World
from wm_jax.models.baselines import CopyLast
from wm_jax.progress import Progress


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
    otherwise = counterfactual.acted_otherwise(facts, world, protocol)
    sounds = sound.heard_otherwise(clips, protocol)
    error = counterfactual.seen_by(instrument, facts, protocol)
    plain = adherence.look(facts, protocol, instrument)
    start = facts.scenes[:, protocol.context - 1]
    ahead = counterfactual.span(start, (), facts, facts, world, protocol, error)
    twins = []
    with Progress(len(scenarios), "twins", "scenarios") as progress:
        for number, scenario in enumerate(scenarios, 1):
            twin = counterfactual.make(scenario, facts, world, protocol, error, ahead)
            if twin.name in KINDS:
                asked = adherence.ask(twin, facts, plain, protocol, instrument)
                twin = dataclasses.replace(twin, asked=asked)
            twins.append(twin)
            progress.update(number, scenario=scenario.name)
    tested = [run.causal_subject(name, protocol) for name, run in runs.items()]
    subjects: list[causal_subjects.Subject] = [
        *tested,
        causal_subjects.ModelSubject("copy_last", CopyLast((world.resolution,) * 2), {}, protocol),
        causal_subjects.Simulated(CEILING, world, protocol, instrument),
        causal_subjects.Simulated("truth", world, protocol, None),
    ]
    # A world whose objects differ in what no frame shows has it (see `TwinsWorld.typical`).
    typical = getattr(world, "typical", None)
    if typical is not None and typical(clips.scenes[:1]) is not None:
        told = causal_subjects.Simulated(TYPICAL, world, protocol, instrument, typical)
        subjects.insert(-1, told)
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
                subject, facts, twins, protocol, instrument, samples.get(subject.name, 1), done,
                otherwise, sounds,
            )  # fmt: skip
    calibrated, holds = calibration.calibrate(facts, world.mean_image(), protocol, instrument)
    for twin in twins:
        more, good = calibration.calibrate_true(
            f"twin_{twin.name}", twin.clips, protocol, instrument
        )
        calibrated, holds = calibrated + more, holds and good
    seed = next(iter(runs.values())).seed
    rows = calibrated + causal_rows.table(
        measured, facts, twins, world, protocol, seed, list(runs), otherwise, sounds
    )
    result = {
        "protocol": protocol.to_dict(),
        "instrument_holds": holds,
        "models": {name: run.about(samples[name]) for name, run in runs.items()},
        "command": command,
        "rows": rows,
    }
    films = causal_films(tested[0], measured[tested[0].name], facts, twins, protocol)
    spans = {twin.name: float(twin.span.mean()) for twin in twins}
    names = [twin.name for twin in twins]
    return CausalReport(rows, protocol, list(runs), names, spans, films, holds), result


def causal_films(
    subject: causal_subjects.Subject,
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
        counted = causal_rows.scored(twin, protocol)
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
