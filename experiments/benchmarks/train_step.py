"""How fast an update is, against the matmul rate of the same machine in the same minute.

    python experiments/benchmarks/train_step.py --json
    python experiments/benchmarks/train_step.py --config default --xla-defaults --json
    python experiments/benchmarks/train_step.py --config default --size 12m --rounds 5 --json

64×64 px, batch 8×32 frames of noise, whole windows, weights from `seed` 0. Rounds of one chunk a
config are interleaved with chunks of a float32 matrix product (1024³), so that a machine that slows
down slows everything in a round. ``frames_per_second`` and ``share_of_matmul`` are medians over
rounds, ``low`` and ``high`` a 95 % bootstrap interval of the former. ``megaflops_per_frame`` counts
matrix products and convolutions, forward and backward; ``megabytes_per_frame`` their operands and
results. With ``--parts``, ``forward``, ``backward`` and ``optimiser`` are shares of the time.

The allocator settings of ``launch/quickstart`` change the result by 1.2–1.45 times on glibc.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from contender import BATCH, RESOLUTION, WINDOW, frames, median, per_second

from wm_jax import mesh as meshes
from wm_jax import optim, shapes, train_step
from wm_jax.config import change, load
from wm_jax.models import build

COMMON = {
    "model.resolution": RESOLUTION,
    "data.window": WINDOW,
    "train.batch_size": BATCH,
    "train.window_doublings": (),
}
EXPERIMENTS = Path(__file__).parent.parent / "configs" / "twins.py"
CONFIGS = {"default": "small", "rssm": "small_rssm"}  # to variants of `EXPERIMENTS`


class Case:
    """One config with ``changes``: compiled programs and a state that its updates carry on. With
    ``defaults`` XLA is told nothing of how to compile them."""

    def __init__(
        self, name: str, changes: Mapping[str, Any] | None = None, *, defaults: bool = False
    ):
        config = change(load(f"{EXPERIMENTS}:{CONFIGS[name]}"), COMMON | dict(changes or {}))
        self.name = f"{name}, XLA's defaults" if defaults else name
        model, optimizer = build(config.model), optim.make_optimizer(config.optim)
        mesh = meshes.make_mesh(config.mesh)
        self._batch = meshes.shard_batch(noise(), mesh)
        self._state = train_step.init_state(model, optimizer, self._batch, 0, mesh)
        function = train_step.make_train_step(model, optimizer)
        options = {} if defaults else train_step.compiler_options(model, mesh)
        self._update, self.cost = train_step.compile_train_step(
            function, self._state, self._batch, mesh, options=options
        )
        key = jax.random.PRNGKey(0)

        def loss(params, batch):
            return model.loss(params, batch, key, 0)[0]

        self._loss = jax.jit(loss)
        self._gradient = jax.jit(jax.value_and_grad(loss))

    def update(self) -> Any:
        self._state, metrics = self._update(self._state, self._batch, np.float32(1e-4))
        return metrics

    def parts(self) -> dict[str, Callable[[], Any]]:
        """What an update consists of, each to be run alone."""
        return {
            "loss": lambda: self._loss(self._state.params, self._batch),
            "gradient": lambda: self._gradient(self._state.params, self._batch),
        }


def noise() -> dict[str, np.ndarray]:
    lead = (BATCH, WINDOW)
    return {
        "frames": frames(),
        "is_first": np.broadcast_to(np.arange(WINDOW) == 0, lead).copy(),
        "mask": np.ones(lead, bool),
    }


def rollout(name: str, batch: int, steps: int) -> tuple[Callable[[], Any], int]:
    """A future of ``steps`` decoded frames from a fresh state, and the number of parameters."""
    config = change(load(f"{EXPERIMENTS}:{CONFIGS[name]}"), COMMON)
    model, mesh = build(config.model), meshes.make_mesh(config.mesh)
    params = jax.jit(model.init)(jax.random.PRNGKey(0), meshes.shard_batch(noise(), mesh))
    state = jax.jit(lambda params: model.initial(params, batch))(params)
    run = jax.jit(lambda params, state: shapes.rollout(model, params, state, steps))
    return lambda: run(params, state), sum(x.size for x in jax.tree.leaves(params))


def matmul() -> Callable[[], Any]:
    a = jax.random.normal(jax.random.PRNGKey(0), (1024, 1024), jnp.float32)
    product = jax.jit(jnp.matmul)
    return lambda: product(a, a)


def measure(
    names: list[str],
    rounds: int,
    seconds: float,
    parts: bool,
    changes: Mapping[str, Any],
    defaults: bool,
) -> list[dict[str, Any]]:
    """One row a config."""
    cases = [Case(name, changes) for name in names]
    if defaults:
        cases += [Case(name, changes, defaults=True) for name in names]
    runs = {
        case.name: {"matmul": matmul(), "update": case.update} | (case.parts() if parts else {})
        for case in cases
    }
    for run in (run for of_case in runs.values() for run in of_case.values()):
        per_second(run, 0.0, jax.block_until_ready)  # warm
    rates: dict[str, list[dict[str, float]]] = {name: [] for name in runs}
    for done in range(rounds):
        for name, of_case in runs.items():
            rates[name].append({})
            for part, run in of_case.items():
                chunk = seconds / 4 if part == "matmul" else seconds
                rates[name][-1][part] = per_second(run, chunk, jax.block_until_ready)
        print(f"round {done + 1}/{rounds}", file=sys.stderr, flush=True)
    return [row(case, rates[case.name]) for case in cases]


def row(case: Case, rounds: list[dict[str, float]]) -> dict[str, Any]:
    each, product = BATCH * WINDOW, 2 * 1024**3
    rates = {part: np.array([r[part] for r in rounds]) for part in rounds[0]}
    speed = each * rates["update"]
    middle, low, high = median(speed)
    share = case.cost.flops * rates["update"] / (product * rates["matmul"])
    out = {
        "config": case.name,
        "parameters": case.cost.parameters,
        "megaflops_per_frame": round(case.cost.flops / each / 1e6, 2),
        "frames_per_second": round(middle, 1),
        "low": round(low, 1),
        "high": round(high, 1),
        "share_of_matmul": round(float(np.median(share)), 3),
        "compile_seconds": case.cost.compile_seconds,
        "megabytes_per_frame": round(case.cost.operand_bytes / each / 1e6, 2),
        "matmul_gigaflops": round(float(np.median(product * rates["matmul"])) / 1e9, 1),
    }
    if "loss" in rates:
        forward = float(np.median(rates["update"] / rates["loss"]))
        both = float(np.median(rates["update"] / rates["gradient"]))
        shares = {"forward": forward, "backward": both - forward, "optimiser": 1 - both}
        out |= {name: round(value, 3) for name, value in shares.items()}
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--config", action="append", choices=list(CONFIGS), help="default: all")
    parser.add_argument("--size", help="of the models, as of config.model.size; default: their own")
    parser.add_argument(
        "--xla-defaults", action="store_true", help="also as XLA compiles by itself"
    )
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=3.0, help="a chunk of updates")
    parser.add_argument("--parts", action="store_true", help="also time loss and gradient alone")
    parser.add_argument("--json", action="store_true", help="print one JSON list of rows")
    options = parser.parse_args()
    if "MALLOC_MMAP_MAX_" not in os.environ:
        print("the allocator settings of launch/quickstart are not in force", file=sys.stderr)
    names, changes = options.config or list(CONFIGS), {}
    if options.size:
        changes = {"model.size": options.size}
    rows = measure(
        names, options.rounds, options.seconds, options.parts, changes, options.xla_defaults
    )
    if options.json:
        print(json.dumps(rows))
        return
    for name in rows[0]:
        print(f"{name:>20}  " + "  ".join(f"{r[name]!s:>10}" for r in rows))


if __name__ == "__main__":
    main()
