"""Scores side by side as SVG text: a row for each name, a dot and its interval for each series."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from wm_jax.evaluation.plot import colour, ticks

WIDTH, LEFT, RIGHT = 720, 96, 16
STEP, BETWEEN = 9, 10  # px from dot to dot in a row, and between rows
LEGEND = 16  # px from line to line of the legend


class Series(NamedTuple):
    """Dots of one colour, see `wm_jax.evaluation.plot`. NaN leaves a dot, or its interval, out."""

    name: str
    label: str
    value: Float[np.ndarray, " k"]
    low: Float[np.ndarray, " k"]
    high: Float[np.ndarray, " k"]


def chart(
    series: Sequence[Series],
    names: Sequence[str],
    *,
    title: str,
    x_range: tuple[float, float],
    form: str = "g",
) -> str:
    """An ``<svg>`` with a legend above and ``names`` from top to bottom. ``form`` writes the
    marks; ``title`` is what a screen reader says."""
    tall = len(series) * STEP + BETWEEN
    top = LEGEND * len(series) + 6
    floor = top + tall * len(names)
    low, high = x_range

    def place(x: float) -> float:
        return LEFT + (min(max(x, low), high) - low) / (high - low) * (WIDTH - LEFT - RIGHT)

    parts = [
        f'<svg class="chart" viewBox="0 0 {WIDTH} {floor + 22}" role="img" '
        f'aria-label="{escape(title, quote=True)}">'
    ]
    for mark in ticks(low, high):
        x = place(mark)
        parts.append(f'<path class="grid" d="M{x:.1f} {top}V{floor}"/>')
        parts.append(f'<text class="tick" x="{x:.1f}" y="{floor + 15}" text-anchor="middle">')
        parts.append(f"{format(mark, form)}</text>")
    for row, name in enumerate(names):
        middle = top + tall * (row + 0.5)
        parts.append(f'<text class="tick" x="{LEFT - 8}" y="{middle + 4:.1f}" text-anchor="end">')
        parts.append(f"{escape(name)}</text>")
        for number, one in enumerate(series):
            y = middle + (number - (len(series) - 1) / 2) * STEP
            parts.append(_dot(one, row, y, place))
    for number, one in enumerate(series):
        y = LEGEND * (number + 0.75)
        parts.append(f'<circle cx="{LEFT}" cy="{y - 4}" r="3.5" style="fill:{colour(one.name)}"/>')
        parts.append(f'<text class="name" x="{LEFT + 10}" y="{y}">{escape(one.label)}</text>')
    return "\n".join([*parts, "</svg>"])


def _dot(one: Series, row: int, y: float, place) -> str:
    value, low, high = (float(x[row]) for x in one[2:])
    out = ""
    if np.isfinite(value):
        fill = f'style="fill:{colour(one.name)}"'
        out = f'<circle cx="{place(value):.1f}" cy="{y:.1f}" r="3.5" {fill}/>'
    if np.isfinite(low) and np.isfinite(high):
        stroke = f'style="stroke:{colour(one.name)}"'
        out += f'<path class="curve" {stroke} d="M{place(low):.1f} {y:.1f}H{place(high):.1f}"/>'
    return out
