"""The row in which every number of an evaluation is written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from wm_jax.evaluation.protocol import Protocol
from wm_jax.evaluation.statistics import Estimate

Row = dict[str, Any]


def make_rows(
    estimate: Estimate,
    protocol: Protocol,
    *,
    model: str,
    metric: str,
    unit: str,
    control: str | None = None,
    seed: int | None = None,
    steps: Sequence[int] | None = None,
    intervention: str | None = None,
) -> list[Row]:
    """One row a step, from step 1 on, or those of ``steps``; 0 is for what has no horizon.

    ``control`` names what the value is a paired difference from, or what was done to the input;
    ``intervention`` the edit that was made.
    ``n`` counts episodes. Numbers that do not exist are None.
    """

    def number(value: float) -> float | None:
        return None if np.isnan(value) else round(float(value), 6)

    numbers = range(1, len(estimate.value) + 1) if steps is None else steps
    return [
        {
            "suite": protocol.suite,
            "metric": metric,
            "unit": unit,
            "split": protocol.split,
            "step": step,
            "value": number(value),
            "low": number(low),
            "high": number(high),
            "n": int(n),
            "model": model,
            "control": control,
            "seed": seed,
            "intervention": intervention,
        }
        for step, (value, low, high, n) in zip(numbers, zip(*estimate, strict=True), strict=True)
    ]
