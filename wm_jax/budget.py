"""A number of updates for a number of minutes, fixed before the first one.

The learning rate needs to know the end of the run, and a resumed run must end where the first would
have: so the time is measured once, and from then on only updates count.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from wm_jax import mesh as meshes
from wm_jax.errors import UserError
from wm_jax.train_step import TrainState

#: Share of the time that is left free for what a short measurement cannot foresee.
SPARE = 0.03


def measure(update: Any, state: TrainState, loader: Any, mesh: Mesh, seconds: float = 3.0) -> float:
    """Mean seconds of an update and its batch, over about ``seconds`` and at least three updates.

    ``state`` and the loader's position are as before afterwards.
    """
    position, copy = loader.position(), jax.tree.map(jnp.copy, state)
    times: list[float] = []
    while len(times) < 5 or (sum(times) < seconds and len(times) < 200):
        begin = time.monotonic()
        copy, metrics = update(copy, meshes.shard_batch(next(loader), mesh), np.float32(0))
        jax.block_until_ready(metrics)
        times.append(time.monotonic() - begin)
    loader.seek(position)
    return float(np.mean(times[2:]))


def mean(stages: Sequence[tuple[float, int]], measured: Callable[[int], float]) -> float:
    """Mean seconds of an update over a curriculum: of (share of the run at which it begins, frames
    of a window) stages, of which ``measured`` tells the seconds."""
    ends = [share for share, _ in stages[1:]] + [1.0]
    stretches = zip(stages, ends, strict=True)
    return sum((end - begin) * measured(frames) for (begin, frames), end in stretches)


def seconds_of(function: Callable[[], object]) -> float:
    """Of the second call: the first one compiles."""
    function()
    begin = time.monotonic()
    function()
    return time.monotonic() - begin


def updates_in(left: float, seconds: float, config: Any) -> int:
    """Updates of ``seconds`` each in ``left`` seconds; the same number on every process.

    Raises `UserError` where there is room for none.
    """
    steps = max(0, int(left * (1 - SPARE) / seconds))
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        steps = int(multihost_utils.broadcast_one_to_all(np.int32(steps)))
    if steps < 1:
        raise UserError(
            f"config.train.minutes={config.train.minutes} leaves no room for an update of "
            f"{seconds:.2f} s after compilation; give more minutes."
        )
    return steps
