"""What a model of objects makes of a single contact, started from the true places and speeds.

    python experiments/benchmarks/contacts.py --workdir runs/small --skip 160 --json

Clips are windows of test episodes from --skip on. After the context, the slots of a `grid_slots`
model are matched with the true objects and put where those are, as fast as those are; then the
model imagines `AHEAD` frames. Scored are objects that touch something once in there, alone (the
other one, too, had not touched anything): how wrong their speed is `AFTER` frames later, px a frame
at 64 px. Rows: what was touched (the shapes of both, or a wall), number, quantiles.
"""

from __future__ import annotations

import argparse
import collections
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from limits import match

from wm_jax import checkpoint, models, shapes
from wm_jax.errors import UserError
from wm_jax.evaluation.suite import batches, take
from wm_jax.evaluation.twins_world import open_world
from wm_jax.naming import SHAPE_NAMES

CONTEXT, AHEAD, AFTER = 16, 24, 4
STARTS = tuple(range(0, 560, 56))
QUANTILES = (0.5, 0.8, 0.95)
NEAR = 14.0  # world units between the middles of two that touch, at most


def programs(model: Any, params: Any) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Context frames to a state, and a state to the places of its slots in the frames ahead."""

    def ahead(state):
        told = jax.tree.map(lambda x: x[:, 0], shapes.no_conditions(len(state.step), 1))

        def step(state, _):
            state = model.step(params, state, told)
            return state, state.carry.place

        return jax.lax.scan(step, state, None, AHEAD)[1]

    return jax.jit(lambda frames: shapes.encode(model, params, frames)), jax.jit(ahead)


def imagine(encode, ahead, frames: np.ndarray, place, speed, there) -> np.ndarray:
    """Places (r, t, n, 2) in 64ths of the frame of the true objects' slots, NaN without a slot."""
    state = encode(jnp.asarray(frames))
    carry = state.carry
    seen, present = 64 * np.asarray(carry.place), np.asarray(carry.present[..., 0])
    slots = match(seen, present, place, there, 8.0)
    rows, things = np.nonzero(slots >= 0)
    at = rows, slots[rows, things]
    put = {name: np.zeros(carry.place.shape, np.float32) for name in ("place", "speed")}
    put["place"][at], put["speed"][at] = place[rows, things] / 64, speed[rows, things] / 64
    only = np.zeros(carry.present.shape, np.float32)
    only[at] = 1
    state = state._replace(carry=carry._replace(present=jnp.asarray(only), **put))
    future = 64 * np.moveaxis(np.asarray(ahead(state)), 0, 1)
    future = np.take_along_axis(future, np.maximum(slots, 0)[:, None, :, None], 2)
    return np.where((slots >= 0)[:, None, :, None], future, np.nan)


def measure(run: Path, data: str | None, skip: int) -> list[dict[str, Any]]:
    params, config, updates = checkpoint.restore_params(run)
    if config.model.name != "grid_slots" or config.model.modalities:
        raise UserError(f"{run} is no grid_slots of a world that it is told nothing of.")
    encode, ahead = programs(models.build(config.model), params)
    world = open_world(data or config.data.directory, config.model.resolution, ())
    clips = world.clips("test", CONTEXT + AHEAD, STARTS, 10_000)
    clips = take(clips, np.flatnonzero(clips.unit >= skip))
    errors: dict[str, list[float]] = collections.defaultdict(list)
    for index in batches(clips):
        batch = take(clips, index)
        start = batch.scenes[:, CONTEXT - 1]
        hue, shape = world.get(start, "hue"), world.get(start, "shape")
        truth = world.get(batch.scenes[:, CONTEXT:], "position")
        given = world.get(start, "position"), world.get(start, "velocity"), hue >= 0
        future = imagine(encode, ahead, batch.frames[:, :CONTEXT], *given)
        for clip, thing, step, other in contacts(batch.truth.touching[:, CONTEXT:], truth, hue):
            moved = [x[clip, step + AFTER] - x[clip, step + AFTER - 1] for x in (future, truth)]
            error = float(np.linalg.norm(moved[0][thing] - moved[1][thing]))
            if np.isnan(future[clip][:, hue[clip] >= 0]).any():
                continue
            names = [SHAPE_NAMES[shape[clip, thing]], "wall"]
            if other is not None:
                names = sorted([names[0], SHAPE_NAMES[shape[clip, other]]])
            errors[" and ".join(names)].append(error)
    return [
        {"touch": touch, "n": len(found), "unit": "px/frame", "updates": updates}
        | {f"quantile_{q:g}": round(float(np.quantile(found, q)), 4) for q in QUANTILES}
        for touch, found in sorted(errors.items())
    ]


def contacts(touching: np.ndarray, truth: np.ndarray, hue: np.ndarray):
    """(clip, object, step, other object or None for a wall) of contacts that stand alone."""
    for clip, thing in np.argwhere(hue >= 0):
        (steps,) = np.nonzero(touching[clip, :, thing])
        if not len(steps) or steps[0] + AFTER >= touching.shape[1]:
            continue
        step = steps[0]
        if touching[clip, step + 1 : step + AFTER, thing].any():
            continue
        gap = np.linalg.norm(truth[clip, step] - truth[clip, step, thing], axis=-1)
        near = (gap < NEAR) & (hue[clip] >= 0) & (np.arange(len(gap)) != thing)
        others = np.flatnonzero(near & touching[clip, max(step - 1, 0) : step + 1].any(0))
        if len(others) > 1 or touching[clip, : max(step - 1, 0), others].any():
            continue
        yield clip, thing, step, others[0] if len(others) else None


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workdir", required=True, type=Path, help="a run of grid_slots")
    parser.add_argument("--data", help="folder of the data set, if not the run's own")
    parser.add_argument("--skip", type=int, default=0, help="test episodes to leave out first")
    parser.add_argument("--json", action="store_true", help="print the rows as JSON")
    args = parser.parse_args()
    try:
        rows = measure(args.workdir, args.data, args.skip)
    except UserError as error:
        print(f"contacts: {error}", file=sys.stderr)
        return 2
    if args.json:
        print(json.dumps(rows))
        return 0
    for row in rows:
        cells = "".join(f"{row[f'quantile_{q:g}']:9.3f}" for q in QUANTILES)
        print(f"{row['touch']:24s}{row['n']:6d}{cells}  {row['unit']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
