"""How fast an update is, against the matmul rate of the same machine in the same minute.

    python experiments/benchmarks/train_step.py --json

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
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from wm_jax import mesh as meshes
from wm_jax import optim, train_step
from wm_jax.config import change, load
from wm_jax.models import build

BATCH, WINDOW, RESOLUTION = 8, 32, 64
COMMON = {
    "model.resolution": RESOLUTION,
    "data.window": WINDOW,
    "train.batch_size": BATCH,
    "train.window_doublings": (),
}
EXPERIMENTS = Path(__file__).parent.parent / "configs" / "twins.py"
CONFIGS = {"default": "small", "rssm": "small_rssm"}  # to variants of `EXPERIMENTS`


class Case:
    """One config: compiled programs and a state that its updates carry on."""

    def __init__(self, name: str):
        config = change(load(f"{EXPERIMENTS}:{CONFIGS[name]}"), COMMON)
        self.name = name
        model, optimizer = build(config.model), optim.make_optimizer(config.optim)
        mesh = meshes.make_mesh(config.mesh)
        self._batch = meshes.shard_batch(noise(), mesh)
        self._state = train_step.init_state(model, optimizer, self._batch, 0, mesh)
        function = train_step.make_train_step(model, optimizer)
        self._update, self.cost = train_step.compile_train_step(
            function, self._state, self._batch, mesh
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
    rng = np.random.default_rng(0)
    lead = (BATCH, WINDOW)
    return {
        "frames": rng.integers(0, 256, (*lead, RESOLUTION, RESOLUTION, 3), np.uint8),
        "is_first": np.broadcast_to(np.arange(WINDOW) == 0, lead).copy(),
        "mask": np.ones(lead, bool),
    }


def per_second(run: Callable[[], Any], seconds: float) -> float:
    """Calls a second, over about ``seconds``."""
    count, begin = 0, time.perf_counter()
    while count < 2 or time.perf_counter() - begin < seconds:
        jax.block_until_ready(run())
        count += 1
    return count / (time.perf_counter() - begin)


def matmul() -> Callable[[], Any]:
    a = jax.random.normal(jax.random.PRNGKey(0), (1024, 1024), jnp.float32)
    product = jax.jit(jnp.matmul)
    return lambda: product(a, a)


def measure(names: list[str], rounds: int, seconds: float, parts: bool) -> list[dict[str, Any]]:
    """One row a config."""
    cases = [Case(name) for name in names]
    runs = {
        case.name: {"matmul": matmul(), "update": case.update} | (case.parts() if parts else {})
        for case in cases
    }
    for run in (run for of_case in runs.values() for run in of_case.values()):
        per_second(run, 0.0)  # warm
    rates: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for done in range(rounds):
        for name, of_case in runs.items():
            rates[name].append(
                {
                    part: per_second(run, seconds / 4 if part == "matmul" else seconds)
                    for part, run in of_case.items()
                }
            )
        print(f"round {done + 1}/{rounds}", file=sys.stderr, flush=True)
    return [row(case, rates[case.name]) for case in cases]


def row(case: Case, rounds: list[dict[str, float]]) -> dict[str, Any]:
    frames, product = BATCH * WINDOW, 2 * 1024**3
    rates = {part: np.array([r[part] for r in rounds]) for part in rounds[0]}
    speed = frames * rates["update"]
    draws = np.random.default_rng(0).integers(len(speed), size=(2000, len(speed)))
    low, high = np.percentile(np.median(speed[draws], 1), [2.5, 97.5])
    share = case.cost.flops * rates["update"] / (product * rates["matmul"])
    out = {
        "config": case.name,
        "parameters": case.cost.parameters,
        "megaflops_per_frame": round(case.cost.flops / frames / 1e6, 2),
        "frames_per_second": round(float(np.median(speed)), 1),
        "low": round(float(low), 1),
        "high": round(float(high), 1),
        "share_of_matmul": round(float(np.median(share)), 3),
        "compile_seconds": case.cost.compile_seconds,
        "megabytes_per_frame": round(case.cost.operand_bytes / frames / 1e6, 2),
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
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=3.0, help="a chunk of updates")
    parser.add_argument("--parts", action="store_true", help="also time loss and gradient alone")
    parser.add_argument("--json", action="store_true", help="print one JSON list of rows")
    options = parser.parse_args()
    if "MALLOC_MMAP_MAX_" not in os.environ:
        print("the allocator settings of launch/quickstart are not in force", file=sys.stderr)
    rows = measure(options.config or list(CONFIGS), options.rounds, options.seconds, options.parts)
    if options.json:
        print(json.dumps(rows))
        return
    for name in rows[0]:
        print(f"{name:>20}  " + "  ".join(f"{r[name]!s:>10}" for r in rows))


if __name__ == "__main__":
    main()
