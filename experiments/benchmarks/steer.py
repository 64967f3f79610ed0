"""How fast a scene is steered: a frame of a future, an edit, a sentence, a constraint met.

    python experiments/benchmarks/steer.py --model exported/a --data data/motion --json
    python experiments/benchmarks/steer.py --config experiments/configs/twins.py:told_full \\
        --config.model.size=1m --json

One scene, one stream. Every row is a median of --repeats with the smallest and the largest; the
first call, which compiles, is in it as ``first``. The constraint is a place for the first object
that the scene has, 30 frames ahead (see `wm_jax.constraints`). A config is measured with random
weights, in a frame of a future in which it is told all that there is to be told.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import wm_jax
from data_pipelines.twins import open_source
from wm_jax import config as configs
from wm_jax import models, shapes
from wm_jax.constraints import At, solve
from wm_jax.edit import Push
from wm_jax.errors import UserError
from wm_jax.shapes import CONDITION_SIZES, Batch, Conditions, Signal
from wm_jax.world import World


def timed(name: str, run: Callable[[], Any], repeats: int) -> dict[str, Any]:
    """A row, in milliseconds."""
    taken = []
    for _ in range(repeats + 1):
        begin = time.perf_counter()
        jax.block_until_ready(run())
        taken.append(1000 * (time.perf_counter() - begin))
    first, *rest = taken
    row = {"what": name, "unit": "ms", "first": round(first, 2), "n": repeats}
    return row | {
        "value": round(float(np.median(rest)), 3),
        "low": round(min(rest), 3),
        "high": round(max(rest), 3),
    }


def measure(model: str, data: str, episode: int, repeats: int) -> list[dict[str, Any]]:
    """The rows."""
    world = wm_jax.load(model)
    frames = open_source(data, "test", ("frames",))[episode]["frames"][: world.context]
    scene = world.encode(frames)
    there = world.things(scene)
    if not there:
        raise UserError(f"episode {episode} of {data} shows no object; choose another --episode.")
    who = there[0]
    side = world.resolution
    aim = (side - who.place[0], side - who.place[1])
    return [
        timed(f"encode {world.context} frames", lambda: world.encode(frames), repeats),
        timed("a frame of a future", lambda: world.advance(scene)[:2], 10 * repeats),
        timed("push", lambda: world.edit(scene, Push(who.slot, (1.0, 0.0))), repeats),
        timed("sentence", lambda: world.edit(scene, f"the {who.name} is pushed left"), repeats),
        timed("constraint", lambda: solve(world, scene, [At(who.slot, 30, aim)]).scene, repeats),
    ]


def measure_config(path: str, overrides: list[str], repeats: int) -> list[dict[str, Any]]:
    """The row of a frame of a future, told everything, of a model of this config."""
    every = f"--config.model.modalities={tuple(CONDITION_SIZES)}"
    config = configs.load(path, [*overrides, every])
    model, side = models.build(config.model), config.model.resolution
    given = {
        name: Signal(jnp.ones((1, 2, size)), jnp.ones((1, 2), bool))
        for name, size in CONDITION_SIZES.items()
    }
    told = Conditions(**given)
    frames = jnp.zeros((1, 2, side, side, 3), jnp.uint8)
    first = jnp.asarray([[True, False]])
    params = model.init(jax.random.key(0), Batch(frames, first, jnp.ones((1, 2), bool), told))
    count = sum(x.size for x in jax.tree.leaves(params))
    world = World(model, params, side, tuple(config.model.modalities))
    scene, once = world.encode(np.asarray(frames)), shapes.at_time(told, 0)
    what = f"a frame of a future, told {', '.join(CONDITION_SIZES)}; {count / 1e6:.2f} M parameters"
    return [timed(what, lambda: world.advance(scene, once)[:2], 10 * repeats)]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    subject = parser.add_mutually_exclusive_group(required=True)
    subject.add_argument("--model", help="folder of a run or of an export")
    subject.add_argument("--config", metavar="FILE.py:VARIANT", help="random weights")
    parser.add_argument("--data", help="a data set of twins, for --model")
    parser.add_argument("--episode", type=int, default=0, help="of the test split")
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--json", action="store_true", help="print the rows as JSON")
    args, overrides = parser.parse_known_args()
    if args.model and (overrides or not args.data):
        parser.error(f"{overrides[0]} is no option." if overrides else "--model needs --data.")
    try:
        if args.config:
            rows = measure_config(args.config, overrides, args.repeats)
        else:
            rows = measure(args.model, args.data, args.episode, args.repeats)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    if args.json:
        print(json.dumps(rows))
        return 0
    for row in rows:
        print(f"{row['what']:<24}{row['value']:>10.2f} ms  first {row['first']:.0f} ms")
    return 0


if __name__ == "__main__":
    sys.exit(main())
