"""Scenes from captions: does the picture show what the words say, at once and later?

    python experiments/benchmarks/imagine.py --model runs/small --data data/small --json

The captions are those of the data set's test episodes, hands aside, which no edit can put into a
scene. Of each --samples scenes are drawn (`wm_jax.captions`), and the instrument of the evaluation
reads hues and shapes off the decoded frames. A scene adheres where it shows every hue that is
named, in its shape, and no other; after the first frame an object may be hidden, so there what is
asked is that nothing is shown that was not named. Control: the same scenes beside the caption of
the next episode.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from typing import Any

import numpy as np

import wm_jax
from data_pipelines.twins import open_source
from data_pipelines.twins.world import HUES, SHAPES
from wm_jax import captions
from wm_jax.errors import UserError
from wm_jax.evaluation.statistics import estimate, sums_by_unit
from wm_jax.evaluation.tracker import Instrument
from wm_jax.evaluation.twins_world import PALETTE

STEPS = (0, 5, 10, 20, 40)


def told(caption: str) -> set[tuple[int, int]]:
    """Hue and shape of what a caption names, as indices."""
    words = (thing.split() for thing in captions.parse(caption).things)
    return {(HUES.index(hue), SHAPES.index(shape)) for hue, shape in words}


def shown(world: Any, instrument: Any, text: str, samples: int, seed: int) -> list[list[set]]:
    """What the instrument sees at each of `STEPS` of each sample."""
    scene = captions.imagine(world, text, samples, seed)
    clip = world.rollout(scene, max(STEPS))
    frames = np.concatenate([world.decode(scene)[:, None], clip.frames], 1)[:, list(STEPS)]
    tracks = instrument.track(frames)
    return [
        [
            {(int(h), int(tracks.shape[i, t, h])) for h in np.flatnonzero(tracks.present[i, t])}
            for t in range(len(STEPS))
        ]
        for i in range(samples)
    ]


def measure(model: str, data: str, episodes: int, samples: int) -> list[dict[str, Any]]:
    """Rows: share of scenes that adhere, over captions, with a 95 % interval."""
    world = wm_jax.load(model)
    source = open_source(data, "test", ("text",))
    texts = []
    for index in range(min(episodes, len(source))):
        text = re.sub(r"; a hand pushes", "", str(source[index]["text"]))
        if "gravity" in world.edits or "gravity" not in text:
            texts.append(text)
    instrument = Instrument(PALETTE, world.resolution)
    wanted = [told(text) for text in texts]
    seen = [shown(world, instrument, t, samples, seed) for seed, t in enumerate(texts)]
    rows, steps = [], list(enumerate(STEPS))
    for name, shift in (("adherence", 0), ("another caption", 1)):
        asked = np.roll(np.arange(len(texts)), -shift)
        fits = [
            [np.mean([_fits(s[at], wanted[asked[i]], step) for s in each]) for at, step in steps]
            for i, each in enumerate(seen)
        ]
        found = estimate(sums_by_unit(np.array(fits), np.arange(len(texts))))
        for at, step in steps:
            value, low, high = (round(float(x[at]), 4) for x in found[:3])
            row = {"metric": name, "step": step, "value": value, "low": low, "high": high}
            rows.append(row | {"n": len(texts)})
    return rows


def _fits(there: set, named: set, step: int) -> bool:
    if step == 0:
        return there == named
    return {hue for hue, _ in there} <= {hue for hue, _ in named} and bool(there)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--episodes", type=int, default=64)
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    try:
        rows = measure(args.model, args.data, args.episodes, args.samples)
    except UserError as error:
        print(f"imagine: {error}", file=sys.stderr)
        return 2
    if args.json:
        print(json.dumps(rows, indent=1))
        return 0
    for row in rows:
        spread = f"({row['low']:.2f}–{row['high']:.2f})"
        print(f"{row['metric']:<18} {row['step']:>3}  {row['value']:.2f} {spread}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
