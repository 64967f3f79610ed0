"""Many runs of one config in one program: what it learns at several rates and seeds.

    config=experiments/configs/twins.py:quickstart_rssm
    python experiments/benchmarks/many_runs.py --config $config \\
        --data data/quickstart --rates 3e-4,1e-3,3e-3 --seeds 0,1,2 --minutes 5 --out runs/many

For a GPU that one small model leaves idle: runs are a leading axis of weights, moments and batches,
and the frames lie on the device. An update is that of `wm-jax train`, on windows drawn at random.
The number of updates is fixed from a measurement, so that every run ends its schedule. Under
``--out``: ``losses.json`` (total loss and its terms, means over each hundredth of the run, for each
rate and seed), ``params.npz`` (the last weights by path, runs first, in float16) and ``run.json``.
``--updates`` sets their number in place of the minutes. With ``--judge`` nothing is trained: the
tracked position error at step 5 of every run kept is added to ``run.json``.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from data_pipelines.input import open_split
from wm_jax import mesh as meshes
from wm_jax import optim, train_step
from wm_jax.config import load
from wm_jax.models import build
from wm_jax.shapes import Batch

CHUNK = 100  # updates a call


def frames_of(data: str, config: Any) -> np.ndarray:
    """All training frames, (episodes, time, h, w, 3) uint8."""
    config.data.directory = data
    source = open_split(config.data, "train")
    return np.stack([np.asarray(episode["frames"]) for episode in source])


def program(config: Any, frames: jax.Array, runs: int) -> tuple[Any, Any]:
    """``init(seeds) -> states`` and ``advance(states, key, rates) -> (states, metrics)``, the
    latter over `CHUNK` updates; rates (CHUNK, runs)."""
    model, optimizer = build(config.model), optim.make_optimizer(config.optim)
    step = jax.vmap(train_step.make_train_step(model, optimizer))
    batch, window = config.train.batch_size, config.data.window
    episodes, length = frames.shape[:2]

    blank = meshes.to_batch(
        {
            "frames": np.zeros((batch, window, *frames.shape[2:]), np.uint8),
            "is_first": np.broadcast_to(np.arange(window) == 0, (batch, window)),
            "mask": np.ones((batch, window), bool),
        }
    )

    def windows(key: jax.Array) -> Batch:
        which, begin = jax.random.split(key)
        which = jax.random.randint(which, (runs, batch), 0, episodes)
        begin = jax.random.randint(begin, (runs, batch), 0, length - window + 1)
        at = begin[..., None] + jnp.arange(window)
        images = frames[which[..., None], at]
        rest = jax.tree.map(lambda x: jnp.broadcast_to(x, (runs, *x.shape)), blank)
        return rest._replace(frames=images)

    def create(seed: jax.Array) -> train_step.TrainState:
        key, init = jax.random.split(jax.random.PRNGKey(seed))
        one = jax.tree.map(lambda x: x[0], windows(init))
        params = model.init(init, one)
        return train_step.TrainState(jnp.int32(0), key, params, optimizer.init(params))

    def advance(states, key, rates):
        def body(states, inputs):
            key, rate = inputs
            return step(states, windows(key), rate)

        states, metrics = jax.lax.scan(body, states, (jax.random.split(key, CHUNK), rates))
        return states, jax.tree.map(lambda x: x.mean(0), metrics)

    return jax.jit(jax.vmap(create)), jax.jit(advance, donate_argnums=0)


def judge(config: Any, data: str, out: Path) -> None:
    """Adds ``position_error`` (px, by kept run) and copy-last's half, ``goal_px``, to run.json."""
    from time_to_quality import Judge

    about, arrays = json.loads((out / "run.json").read_text()), np.load(out / "params.npz")
    by, model = Judge(data, config.model.resolution), build(config.model)
    about["goal_px"], about["position_error"] = by.goal, []
    for run in range(len(about["kept"])):
        flat = {tuple(name.split("/")): arrays[name][run].astype(np.float32) for name in arrays}
        about["position_error"].append(by.error(model, traverse_util.unflatten_dict(flat)))
        print(about["kept"][run], about["position_error"][-1], file=sys.stderr, flush=True)
    (out / "run.json").write_text(json.dumps(about))


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", required=True, metavar="FILE.py:VARIANT")
    parser.add_argument("--data", required=True, metavar="DIR")
    parser.add_argument("--rates", type=lambda s: [float(x) for x in s.split(",")], required=True)
    parser.add_argument("--seeds", type=lambda s: [int(x) for x in s.split(",")], default=[0])
    parser.add_argument("--minutes", type=float, default=5.0, help="of updates, after compiling")
    parser.add_argument("--updates", type=int, default=0)
    parser.add_argument("--keep-best", action="store_true", help="only its weights are written")
    parser.add_argument("--judge", action="store_true", help="only judges what is in --out")
    parser.add_argument("--out", required=True, metavar="DIR")
    options, overrides = parser.parse_known_args()
    out = Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    config = load(options.config, overrides)
    if options.judge:
        judge(config, options.data, out)
        return 0
    pairs = [(rate, seed) for rate in options.rates for seed in options.seeds]
    frames = jax.device_put(frames_of(options.data, config))
    create, advance = program(config, frames, len(pairs))
    states = create(jnp.array([seed for _, seed in pairs]))
    scale = np.array([rate for rate, _ in pairs], np.float32)
    key, still = jax.random.PRNGKey(1), np.zeros((CHUNK, len(pairs)), np.float32)

    def call(states, number, rates):
        return advance(states, jax.random.fold_in(key, number), rates)

    begin = time.perf_counter()
    states, metrics = call(states, 0, still)  # compiles; a rate of 0 moves no weight
    jax.block_until_ready(metrics)
    compiled, begin = time.perf_counter() - begin, time.perf_counter()
    states, metrics = call(states, 1, still)
    jax.block_until_ready(metrics)
    each = (time.perf_counter() - begin) / CHUNK
    chunks = options.updates // CHUNK or max(1, int(60 * options.minutes / each / CHUNK))
    config.optim.learning_rate = 1.0
    schedule = optim.learning_rate(config.optim, chunks * CHUNK)
    about = {
        "config": options.config,
        "overrides": overrides,
        "runs": [{"learning_rate": rate, "seed": seed} for rate, seed in pairs],
        "updates": chunks * CHUNK,
        "frames_an_update": config.train.batch_size * config.data.window,
        "parameters": sum(x[0].size for x in jax.tree.leaves(states.params)),
        "device": jax.devices()[0].device_kind,
        "compile_seconds": round(compiled, 1),
        "seconds_an_update_of_all": each,
    }
    print(json.dumps(about), file=sys.stderr, flush=True)
    losses, begin = [], time.perf_counter()
    for chunk in range(chunks):
        rates = np.array([schedule(chunk * CHUNK + i) for i in range(CHUNK)], np.float32)
        states, metrics = call(states, 2 + chunk, rates[:, None] * scale)
        if chunk % max(1, chunks // 100) == 0 or chunk == chunks - 1:
            row = {name: np.asarray(value).tolist() for name, value in metrics.items()}
            losses.append({"update": (chunk + 1) * CHUNK} | row)
            total = " ".join(f"{x:.2f}" for x in row["train/loss/total"])
            print((chunk + 1) * CHUNK, total, file=sys.stderr, flush=True)
    about["seconds"] = time.perf_counter() - begin
    final = np.nan_to_num(metrics["train/loss/total"], nan=np.inf)
    kept = [int(final.argmin())] if options.keep_best else list(range(len(pairs)))
    about["kept"] = [about["runs"][i] for i in kept]
    leaves = jax.tree_util.tree_leaves_with_path(jax.device_get(states.params))
    named = {jax.tree_util.keystr(p, simple=True, separator="/"): x for p, x in leaves}
    np.savez(out / "params.npz", **{n: x[kept].astype(np.float16) for n, x in named.items()})
    (out / "losses.json").write_text(json.dumps(losses))
    (out / "run.json").write_text(json.dumps(about))
    return 0


if __name__ == "__main__":
    sys.exit(main())
