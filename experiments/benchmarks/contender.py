"""What every contender of a benchmark shares, whatever it is written in: needs NumPy alone.

A contender of `peers.py` is a process. It writes one line of JSON that says what it is, then reads
lines, each a number of seconds, and answers each with the frames a second that it made meanwhile.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

BATCH, WINDOW, RESOLUTION = 8, 32, 64


def frames() -> np.ndarray:
    """(b, t, h, w, 3) uint8, the same noise for all."""
    shape = (BATCH, WINDOW, RESOLUTION, RESOLUTION, 3)
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def per_second(
    run: Callable[[], Any], seconds: float, wait: Callable[[Any], Any] = lambda result: result
) -> float:
    """Calls a second, over about ``seconds`` and at least two; ``wait`` blocks on a result."""
    count, begin = 0, time.perf_counter()
    while count < 2 or time.perf_counter() - begin < seconds:
        wait(run())
        count += 1
    return count / (time.perf_counter() - begin)


def median(values: np.ndarray) -> tuple[float, float, float]:
    """The median of (rounds,) and its 95 % bootstrap interval."""
    draws = np.random.default_rng(0).integers(len(values), size=(2000, len(values)))
    low, high = np.percentile(np.median(values[draws], 1), [2.5, 97.5])
    return float(np.median(values)), float(low), float(high)


def serve(run: Callable[[], Any], frames_a_call: int, about: dict[str, Any]) -> None:
    """Speaks as the module's docstring says, until its input ends. ``run`` must block."""
    per_second(run, 0.0)  # warm
    print(json.dumps(about), flush=True)
    for line in sys.stdin:
        print(frames_a_call * per_second(run, float(line)), flush=True)
