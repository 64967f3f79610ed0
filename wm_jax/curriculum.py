"""Short windows first: a run starts on short closed loops and doubles them as it goes.

A batch always holds the same frames; early on each of its windows is cut into several. So an update
costs about the same throughout, and the first ones learn from many short futures, which have small
and useful gradients, rather than from few long ones.
"""

from __future__ import annotations

from typing import Any

import jax

from wm_jax.shapes import Batch


def stages(config: Any) -> list[tuple[float, int]]:
    """``(share of the run from which it holds, frames a window)``, in order, from 0 on."""
    doublings = tuple(config.train.window_doublings)
    begin = config.data.window >> len(doublings)
    return [(share, begin << i) for i, share in enumerate((0.0, *doublings))]


def stage_at(stages: list[tuple[float, int]], step: int, steps: int) -> int:
    """The window of update ``step`` (from 0) of ``steps``."""
    return [window for share, window in stages if step >= share * steps][-1]


def cut(batch: Batch, window: int) -> Batch:
    """(b, t, …) → (b · t / window, window, …)."""
    return jax.tree.map(lambda x: x.reshape(-1, window, *x.shape[2:]), batch)
