"""What limits a model of objects: what it sees, or what it thinks happens next?

    python experiments/benchmarks/limits.py --workdir runs/small --skip 64 --json

The same clips as in `wm-jax evaluate`, from test episode --skip on (0 to 95 are those of the
README: choose anything by others, of a data set with more). After the context the slots of a
`grid_slots` model are matched with the true objects (each object's nearest slot within 8 px), and
two futures are compared with the truth:

  own        the model's own
  simulated  the true simulator's, started from the model's places and from its speeds

Objects that no slot is near count as lost. Places are read from the state, not off frames, so the
numbers differ a little from those of the pixel suite. Rows: error (px at 64 px, at most 16) and
share of clips with every visible object within 8 px; and how wrong places and speeds are after the
context, as quantiles, for objects of which all, a part, or nothing can be seen.
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

from wm_jax import checkpoint, models, shapes
from wm_jax.errors import UserError
from wm_jax.evaluation.protocol import Protocol
from wm_jax.evaluation.suite import batches, take
from wm_jax.evaluation.twins_world import TwinsWorld, open_world
from wm_jax.evaluation.world import Clips

STEPS = (1, 5, 10, 20, 40, 60)


def imagine(model: shapes.WorldModel, params: Any, clips: Clips, protocol: Protocol):
    """(r, k, 2) places and speeds and (r, k) presence after the context, (r, h, k, 2) places after
    it, all in 64ths of the frame."""

    @jax.jit
    def forward(frames, conditions):
        seen = jax.tree.map(lambda x: x[:, : protocol.context], conditions)
        told = shapes.conditions_for_steps(conditions)
        ahead = jax.tree.map(lambda x: jnp.moveaxis(x[:, protocol.context :], 1, 0), told)
        start = shapes.encode(model, params, frames[:, : protocol.context], seen)

        def step(state, conditions):
            state = model.step(params, state, conditions)
            return state, state.carry.place

        future = jax.lax.scan(step, start, ahead)[1]
        carry = start.carry
        return carry.place, carry.speed, carry.present[..., 0], jnp.moveaxis(future, 0, 1)

    parts = [forward(*take(clips, i)[:2]) for i in batches(clips)]
    place, speed, present, future = (np.concatenate(x) for x in zip(*parts, strict=True))
    return 64 * place, 64 * speed, present, 64 * future


def match(
    place: np.ndarray, present: np.ndarray, truth: np.ndarray, there: np.ndarray, reach: float
) -> np.ndarray:
    """The slot of each object (r, n) within ``reach``, -1 for none; no slot twice."""
    slots = np.full(truth.shape[:2], -1)
    for clip in range(len(truth)):
        for thing in np.flatnonzero(there[clip]):
            off = np.linalg.norm(place[clip] - truth[clip, thing], axis=-1)
            off[(present[clip] < 0.5) | np.isin(np.arange(len(off)), slots[clip])] = np.inf
            if off.min() < reach:
                slots[clip, thing] = off.argmin()
    return slots


def measure(model: shapes.WorldModel, params: Any, world: TwinsWorld, clips: Clips, protocol):
    """The rows."""
    context, horizon = protocol.context, protocol.horizon
    start, truth = clips.scenes[:, context - 1], clips.scenes[:, context:]
    scale = world.resolution / 64  # px, of a 64th of the frame
    at, moving = world.get(start, "position"), world.get(start, "velocity")
    hue = world.get(start, "hue")
    place, speed, present, future = imagine(model, params, clips, protocol)
    cap, near = protocol.cap_at_64, protocol.match_at_64
    slots = match(place, present, world.to_pixels(at, start) / scale, hue >= 0, near)
    found, index = slots >= 0, np.maximum(slots, 0)[..., None]
    # Into the world, whatever the camera; a slot's speed is what is left of it beside the camera's.
    place = np.take_along_axis(place, index, 1)
    ahead = world.to_world(scale * (place + np.take_along_axis(speed, index, 1)), start)
    place = world.to_world(scale * place, start)
    seen_at = np.where(found[..., None], place, at)
    seen_moving = np.where(found[..., None], ahead - place, moving)

    scenes = world.put(start, position=seen_at, velocity=seen_moving, hue=np.where(found, hue, -1))
    simulated = []
    for step in range(horizon):
        scenes = world.advance(scenes, clips.actions[:, context + step - 1])
        simulated.append(world.get(scenes, "position"))
    futures = {
        "own": np.take_along_axis(future, index[:, None], 2),
        "simulated": world.to_pixels(np.stack(simulated, 1), truth) / scale,
    }
    places = world.to_pixels(world.get(truth, "position"), truth) / scale
    asked = clips.truth.present[:, context:] & (
        clips.truth.visible[:, context:] >= protocol.visible_share
    )
    rows: list[dict[str, Any]] = []
    for name, predicted in futures.items():
        off = np.linalg.norm(predicted - places, axis=-1)
        off = np.where(found[:, None], np.minimum(off, cap), cap)
        matched = np.all(~asked | (off <= near), 2)
        for step in (s - 1 for s in STEPS if s <= horizon):
            counted = asked[:, step]
            some = counted.any(1)
            row = {"future": name, "step": step + 1}
            error = {"metric": "place_error", "unit": "px", "n": int(counted.sum())}
            rows.append(row | error | {"value": float(off[:, step][counted].mean())})
            share = {"metric": "matched_share", "unit": "1", "n": int(some.sum())}
            rows.append(row | share | {"value": float(matched[some, step].mean())})
    visible = clips.truth.visible[:, context - 1]
    kinds = {"all": visible > 0.95, "part": (visible > 0.1) & (visible <= 0.95)}
    kinds["nothing"] = visible <= 0.1
    for kind, chosen in kinds.items():
        chosen = chosen & (hue >= 0)
        lost = {"seen": kind, "metric": "lost_share", "unit": "1", "n": int(chosen.sum())}
        if not chosen.any():
            continue
        rows.append(lost | {"value": float((~found[chosen]).mean())})
        for metric, a, b in (("place", seen_at, at), ("speed", seen_moving, moving)):
            off = np.linalg.norm(a - b, axis=-1)[chosen & found]
            for share in (0.5, 0.8, 0.95) if len(off) else ():
                row = {"seen": kind, "metric": f"{metric}_error", "unit": "px", "n": len(off)}
                rows.append(row | {"quantile": share, "value": float(np.quantile(off, share))})
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workdir", required=True, type=Path, help="a run of grid_slots")
    parser.add_argument("--data", help="folder of the data set, if not the run's own")
    parser.add_argument("--skip", type=int, default=0, help="test episodes to leave out first")
    parser.add_argument("--episodes", type=int, default=32, help="at most so many after them")
    parser.add_argument("--json", action="store_true", help="print the rows as JSON")
    args = parser.parse_args()
    try:
        params, config, _ = checkpoint.restore_params(args.workdir)
        if config.model.name != "grid_slots":
            raise UserError(
                f"{args.workdir} is a run of {config.model.name}; its state names no objects."
            )
        protocol = Protocol(episodes=args.skip + args.episodes)
        data = args.data or config.data.directory
        world = open_world(data, config.model.resolution, tuple(config.model.modalities))
        clips = world.clips("test", protocol.length, protocol.starts, protocol.episodes)
        clips = take(clips, np.flatnonzero(clips.unit >= args.skip))
        if not len(clips.frames):
            raise UserError(f"{data} has no test episodes after the first {args.skip}.")
    except UserError as error:
        print(f"limits: {error}", file=sys.stderr)
        return 2
    rows = measure(models.build(config.model), params, world, clips, protocol)
    if args.json:
        print(json.dumps(rows))
        return 0
    for row in rows:
        what = row.get("future") or f"after the context, {row['seen']} seen"
        where = f"step {row['step']}" if "step" in row else f"quantile {row.get('quantile', '-')}"
        print(f"{what:32s} {row['metric']:14s} {where:14s} {row['value']:8.3f} {row['unit']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
