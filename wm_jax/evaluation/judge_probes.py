"""The probes suite from runs to rows: states of every model and control, read and scored."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from wm_jax.errors import UserError
from wm_jax.evaluation import probe_states, probes
from wm_jax.evaluation.judge import Readable
from wm_jax.evaluation.probes_page import ProbesReport
from wm_jax.evaluation.protocol import ProbeProtocol, split_hash
from wm_jax.evaluation.suite import take
from wm_jax.evaluation.tracker import Instrument
from wm_jax.evaluation.world import World
from wm_jax.models.baselines import CopyLast
from wm_jax.progress import Progress

SHOWN = 3  # clips on the page
LEAST = 5  # episodes of which a fifth is one


def judge_probes(
    runs: Mapping[str, Readable], world: World, protocol: ProbeProtocol, command: str
) -> tuple[ProbesReport, dict[str, Any]]:
    """What the suite's section of the page is made of, and the result as JSON."""
    starts, episodes = protocol.train_starts, protocol.train_episodes
    train = world.clips("train", protocol.length, starts, episodes)
    if len(np.unique(train.unit)) < LEAST:
        raise UserError(
            f"the probes suite learns from at least {LEAST} training episodes and {world.name} has "
            f"{len(np.unique(train.unit))} here; build more with --train."
        )
    test = world.clips(protocol.split, protocol.length, protocol.starts, protocol.episodes)
    protocol = dataclasses.replace(protocol, split_hash=split_hash(test.frames))
    told = probes.targets(train, world, protocol), probes.targets(test, world, protocol)
    instrument = Instrument(world.palette, world.resolution)
    straight = probes.straight_on(test, told[1], world, instrument, protocol)
    readers: dict[tuple[str, str | None], probe_states.Reader] = {
        (name, control): reader
        for name, run in runs.items()
        for control, reader in run.readers(protocol).items()
    }
    frame = CopyLast((world.resolution,) * 2)
    readers["copy_last", None] = probe_states.ModelReader(frame, {}, protocol)
    readers["truth", None] = probes.truth_reader(world, protocol)
    measured: dict[tuple[str, str | None], probes.Measured] = {}
    each = len(train.frames) + len(test.frames)
    units = train.unit, test.unit
    with Progress(len(readers) * each, "probes", "clips") as progress:
        for number, ((name, control), reader) in enumerate(readers.items()):

            def done(clips: int, before: int = number * each, name: str = name) -> None:
                progress.update(before + clips, model=name)

            both = probe_states.features(reader, train, test, protocol, done)
            measured[name, control] = probes.measure(both, told, units, protocol)
            if name in runs and control is None:
                measured[name, "shuffled_labels"] = probes.measure(
                    both, told, units, protocol, shuffled=True
                )
    seed = next(iter(runs.values())).seed
    scores = {key: one.scores for key, one in measured.items()}
    rows = probes.table(scores, straight, protocol, seed, list(runs))
    result = {
        "protocol": protocol.to_dict(),
        "models": {name: run.about(1) for name, run in runs.items()},
        "command": command,
        "rows": rows,
    }
    first = next(iter(runs))
    probe = probes.best_probe(rows, first, protocol)
    shown = np.arange(min(SHOWN, len(test.frames)))
    guess = measured[first, None].guesses[probe][: len(shown)]
    few, truth = jax.tree.map(lambda x: x[: len(shown)], (take(test, shown), told[1]))
    films = probes.films(few, truth, guess, world, protocol)
    return ProbesReport(rows, protocol, list(runs), probe, films), result
