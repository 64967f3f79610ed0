"""Does a model of objects know where the hand is?

    python experiments/benchmarks/hand.py --workdir runs/small_full --data data/full_test --json

The hand is grey, and so are the bars: where it passes beside one of nearly its own grey, a slot may
take both for one thing. Test scenes of twins:full are watched for 16 frames; then the model is told
what the hand does and imagines 20 more. Compared with the true hand is the nearest slot that has no
hue (a saturation below 0.3).

Rows, with 95 % bootstrap over scenes: the share of scenes in which that slot is within 4 px (of
64), at the end of the context (step 0) and later, where the hand is seen at that end (more than 10
px of it), and where it was seen and is hidden then; and how many slots have no hue (truth: one).
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from data_pipelines.twins import open_source, project
from data_pipelines.twins.render import HAND_LABEL
from wm_jax import checkpoint, models, shapes
from wm_jax.errors import UserError
from wm_jax.evaluation.statistics import estimate, sums_by_unit
from wm_jax.evaluation.suite import batches, take
from wm_jax.evaluation.twins_world import open_world
from wm_jax.models.dynamics.pixels import saturation
from wm_jax.progress import Progress

CONTEXT, AHEAD, STEPS = 16, 20, (0, 5, 10, 20)
NEAR, GREY, THERE = 4.0, 0.3, 0.5
#: px of the hand from which on it is seen, and that it once had to show.
SEEN, SHOWN = 10, 30


def imagine(model: shapes.WorldModel, params: Any, clips: Any) -> tuple[np.ndarray, np.ndarray]:
    """Places of slots in px of 64 (r, h, k, 2), and whether there is one without a hue, (r, h, k),
    at the end of the context and after each step."""

    def slots(state):
        carry = state.carry
        grey = (carry.present[..., 0] > THERE) & (saturation(carry.colour)[..., 0] < GREY)
        return 64 * carry.place, grey

    @jax.jit
    def forward(frames, conditions):
        seen = jax.tree.map(lambda x: x[:, :CONTEXT], conditions)
        told = shapes.conditions_for_steps(conditions)
        ahead = jax.tree.map(lambda x: jnp.moveaxis(x[:, CONTEXT:], 1, 0), told)
        start = shapes.encode(model, params, frames[:, :CONTEXT], seen)

        def step(state, conditions):
            state = model.step(params, state, conditions)
            return state, slots(state)

        return slots(start), jax.lax.scan(step, start, ahead)[1]

    places, greys, parts = [], [], batches(clips)
    with Progress(len(clips.unit), "imagining", "scenes") as bar:
        for index in parts:
            start, future = forward(*take(clips, index)[:2])
            both = (np.concatenate([a[None], b]) for a, b in zip(start, future, strict=True))
            place, grey = (np.moveaxis(x, 0, 1) for x in both)
            places.append(place)
            greys.append(grey)
            bar.update(sum(map(len, places)))
    return np.concatenate(places), np.concatenate(greys)


def measure(run: Path, data: str, scenes: int) -> list[dict[str, Any]]:
    params, config, _ = checkpoint.restore_params(run)
    if config.model.name != "grid_slots" or "actions" not in config.model.modalities:
        raise UserError(f"{run} is no grid_slots that is told what a hand does.")
    told = tuple(config.model.modalities)
    clips = open_world(data, 64, told).clips("test", CONTEXT + AHEAD, (0,), scenes)
    source = open_source(data, "test", ("branch", "camera", "truth/hand", "truth/segmentation"))
    first = [episode for episode in source if int(episode["branch"]) == 0][: len(clips.unit)]
    part = slice(CONTEXT - 1, CONTEXT + AHEAD)
    hand, camera = (np.stack([e[name][part] for e in first]) for name in ("truth/hand", "camera"))
    labels = np.stack([e["truth/segmentation"][:CONTEXT] for e in first]) == HAND_LABEL
    seen, shown = labels[:, -1].sum((1, 2)) > SEEN, labels.sum((1, 2, 3)) > SHOWN
    place, grey = imagine(models.build(config.model), params, clips)
    off = np.linalg.norm(place - project(hand[..., :2], camera, 64)[:, :, None], axis=-1)
    near = np.where(grey, off, np.inf).min(-1) < NEAR
    rows = []
    for when, chosen in (("seen", seen), ("hidden", shown & ~seen)):
        chosen, unit = chosen & (hand[:, 0, 2] > 0), np.arange(len(seen))
        if not chosen.any():
            continue
        values = np.concatenate([near[:, STEPS], grey[:, :1].sum(-1)], 1)[chosen].astype(float)
        value, low, high = estimate(sums_by_unit(values, unit[chosen]))[:3]
        names = [*(f"within {NEAR:g} px at {step}" for step in STEPS), "slots without a hue"]
        for at, metric in enumerate(names):
            numbers = {"value": value[at], "low": low[at], "high": high[at]}
            rounded = {name: round(float(x), 4) for name, x in numbers.items()}
            rows.append({"metric": metric, "hand": when, **rounded, "n": int(chosen.sum())})
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workdir", required=True, type=Path, help="a run of twins:full")
    parser.add_argument("--data", required=True, help="a data set of twins:full, of 64 px")
    parser.add_argument("--scenes", type=int, default=96)
    parser.add_argument("--json", action="store_true", help="print the rows as JSON")
    args = parser.parse_args()
    try:
        rows = measure(args.workdir, args.data, args.scenes)
    except UserError as error:
        print(f"hand: {error}", file=sys.stderr)
        return 2
    if args.json:
        print(json.dumps(rows, indent=1))
        return 0
    for row in rows:
        spread = f"({row['low']:.2f} to {row['high']:.2f}, n = {row['n']})"
        print(f"{row['hand']:<7} {row['metric']:<20} {row['value']:.2f} {spread}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
