"""What a checkpoint costs the loop: how long a save blocks it, and how long proving one takes.

    python experiments/benchmarks/save_cost.py --json
    python experiments/benchmarks/save_cost.py --megabytes 1024 --rounds 5

A state of so many megabytes (weights and two moments of AdamW, random numbers) is saved again and
again. ``blocked`` is how long `Checkpoints.save` keeps the loop, which may change the state in
place once it returns; ``written`` is until the manifest is on disk; ``verified`` is reading all of
it and comparing digests, as a restore does, in seconds a gigabyte (the files are in the page cache,
so this is arithmetic, not the disk). Median and spread of all rounds but the first.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from wm_jax import manifest
from wm_jax.checkpoint import Checkpoints
from wm_jax.config import base_config
from wm_jax.optim import make_optimizer
from wm_jax.train_step import TrainState

TENSORS = 24


def make_state(megabytes: int) -> TrainState:
    """Of so many bytes in all, a third of them weights."""
    side = int((megabytes * 1e6 / 4 / 3 / TENSORS) ** 0.5)
    random = np.random.default_rng(0)
    weights = {
        f"kernel_{i}": jnp.asarray(random.normal(size=(side, side)), jnp.float32)
        for i in range(TENSORS)
    }
    optimizer = make_optimizer(base_config().optim)
    return TrainState(jnp.int32(0), jax.random.PRNGKey(0), weights, optimizer.init(weights))


def measure(megabytes: int, rounds: int, folder: Path) -> dict[str, Any]:
    """A row."""
    state, config = make_state(megabytes), base_config()
    size = sum(x.nbytes for x in jax.tree.leaves(state))
    checkpoints = Checkpoints(folder)
    blocked, written, verified = [], [], []
    for step in range(rounds + 1):
        state = state._replace(step=jnp.int32(step))
        jax.block_until_ready(state)
        begin = time.monotonic()
        path = checkpoints.save(state, {}, config)
        blocked.append(time.monotonic() - begin)
        checkpoints.wait()
        written.append(time.monotonic() - begin)
        begin = time.monotonic()
        assert manifest.damage(path) is None
        on_disk = sum(p.stat().st_size for p in path.rglob("*") if p.is_file())
        verified.append((time.monotonic() - begin) / (on_disk / 1e9))
    every = config.train.checkpoint_every
    return {
        "state_megabytes": round(size / 1e6, 1),
        "rounds": rounds,
        "blocked_ms": _spread([1e3 * x for x in blocked[1:]]),
        "written_seconds": _spread(written[1:]),
        "verified_seconds_a_gigabyte": _spread(verified[1:]),
        "checkpoint_every": every,
        "share_of_time_at_updates_of_100_ms": statistics.median(blocked[1:]) / (every * 0.1),
        "machine": f"{platform.machine()}, {jax.local_device_count()} {jax.default_backend()}",
        "versions": {"jax": jax.__version__},
    }


def _spread(values: list[float]) -> dict[str, float]:
    ordered = sorted(values)
    return {
        "median": statistics.median(ordered),
        "least": ordered[0],
        "most": ordered[-1],
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--megabytes", type=int, default=256, help="default %(default)s")
    parser.add_argument("--rounds", type=int, default=15, help="default %(default)s")
    parser.add_argument("--json", action="store_true", help="print the row as JSON")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        row = measure(args.megabytes, args.rounds, Path(folder))
    if args.json:
        print(json.dumps(row))
        return 0
    for name, unit in (("blocked_ms", "ms"), ("written_seconds", "s")):
        print(f"{name.split('_')[0]:<9} {_told(row[name])} {unit}")
    print(f"verified  {_told(row['verified_seconds_a_gigabyte'])} s a GB")
    print(
        f"{100 * row['share_of_time_at_updates_of_100_ms']:.2f} % of the time of a run that saves "
        f"every {row['checkpoint_every']} updates of 100 ms"
    )
    return 0


def _told(spread: dict[str, float]) -> str:
    return f"{spread['median']:.3g} ({spread['least']:.3g} to {spread['most']:.3g})"


if __name__ == "__main__":
    sys.exit(main())
