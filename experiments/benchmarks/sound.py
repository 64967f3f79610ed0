"""What is there to gain from sound? The simulator from what is seen, told of blows or not.

    wm-jax data build twins:full --resolution 64 --train 2 --test 1000 --test-length 60 --twins 0 \\
        --out data/sound
    python experiments/benchmarks/sound.py --data data/sound --json

The row `sound_gain` of the causal suite asks for objects that something touched while they could
not be seen, as soon as they are seen again: few clips have one. Here thousand clips are looked
through for those that do. See-then-simulate, told every body's mass, friction and bounce or the
middle of what the world draws (`typical`), imagines them without sound and told when, and by what
impulse, something was struck out of sight (`wm_jax.evaluation.sound`). That difference is the most
that a model could be asked to make of sound.

Rows, with 95 % bootstrap over clips: error of what was struck (px), silent and told, and the gain.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from typing import Any

import numpy as np

from wm_jax.errors import UserError
from wm_jax.evaluation import causal, causal_subjects, sound
from wm_jax.evaluation.protocol import CausalProtocol
from wm_jax.evaluation.statistics import Sums, estimate
from wm_jax.evaluation.suite import batches, take
from wm_jax.evaluation.summary import CEILING, TYPICAL
from wm_jax.evaluation.tracker import Instrument
from wm_jax.evaluation.twins_world import open_world, resolution_of
from wm_jax.evaluation.world import Clips
from wm_jax.progress import Progress


def measure(data: str, episodes: int) -> list[dict[str, Any]]:
    world = open_world(data, resolution_of(data), ("audio",))
    rules = CausalProtocol(resolution=world.resolution, episodes=episodes, starts=(0,))
    rules = dataclasses.replace(rules, world=world.name, kinds=world.interventions)
    clips = world.clips("test", rules.length, rules.starts, rules.episodes)
    asked = sound.struck(clips, rules).asked.any((1, 2))
    if asked.sum() < 2:
        raise UserError(
            f"{data} has {asked.sum()} clips in which something is struck unseen; build more test "
            "scenes (--test)."
        )
    some = take(clips, np.flatnonzero(asked))
    some = some._replace(unit=np.arange(len(some.frames)))
    instrument = Instrument(world.palette, world.resolution)
    beliefs: dict[str, Any] = {CEILING: np.asarray}
    if world.typical(some.scenes[:1]) is not None:
        beliefs[TYPICAL] = world.typical
    rows = []
    for name, believed in beliefs.items():
        subject = causal_subjects.Simulated(name, world, rules, instrument, believed)
        for (metric, control), sums in sound.measure(
            _heard(subject, some, rules, instrument), some, rules
        ).items():
            every = Sums(*(x.sum(1, keepdims=True) for x in sums))
            found = estimate(every, rules.seed)
            value, low, high = (round(float(x[0]), 3) for x in found[:3])
            row = {"model": name, "metric": metric, "control": control, "value": value}
            n = {"clips": len(asked), "n": int(asked.sum())}
            rows.append(row | {"low": low, "high": high, "unit": "px"} | n)
    return rows


def _heard(subject: Any, clips: Clips, rules: CausalProtocol, instrument: Instrument):
    """Whereabouts by what is heard, as `sound.measure` takes them."""
    parts: dict[str | None, list[causal.Whereabouts]] = {None: [], "silent": []}
    with Progress(len(clips.frames), subject.name, "clips") as bar:
        for index in batches(clips):
            batch = take(clips, index)
            state = subject.encode(batch, 0)
            for heard, places in parts.items():
                frames = subject.hear(state, batch, heard, 0)
                places.append(causal.places(instrument.track(frames), batch, rules))
            bar.update(int(index[-1]) + 1)
    return {
        heard: tuple(np.concatenate(x) for x in zip(*places, strict=True))
        for heard, places in parts.items()
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True, help="a data set of twins:full or twins:motion")
    parser.add_argument("--episodes", type=int, default=1000)
    parser.add_argument("--json", action="store_true", help="print the rows as JSON")
    args = parser.parse_args()
    try:
        rows = measure(args.data, args.episodes)
    except UserError as error:
        print(f"sound: {error}", file=sys.stderr)
        return 2
    if args.json:
        print("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]")
    else:
        for row in rows:
            heard = row["control"] or "told of blows"
            numbers = f"{row['value']} px ({row['low']} to {row['high']})"
            print(f"{row['model']}, {row['metric']}, {heard}: {numbers}, n = {row['n']}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
