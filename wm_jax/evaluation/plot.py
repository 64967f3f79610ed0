"""Line charts as SVG text: no plotting library, and colours that the page's style decides.

A line of name ``x`` is drawn in the CSS variable ``--x`` (``--line`` where the page has none).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

WIDTH, HEIGHT = 460, 280
LEFT, RIGHT, TOP, BOTTOM = 44, 118, 10, 40
LABEL_GAP = 12.5  # least distance of the labels at the lines' ends


class Line(NamedTuple):
    """A curve with its interval. NaN leaves a gap. ``strong`` lines are drawn thicker."""

    name: str
    label: str
    x: Float[np.ndarray, " t"]
    y: Float[np.ndarray, " t"]
    low: Float[np.ndarray, " t"]
    high: Float[np.ndarray, " t"]
    strong: bool = False


def chart(
    lines: Sequence[Line],
    *,
    x_label: str,
    title: str,
    y_range: tuple[float | None, float | None] = (None, None),
) -> str:
    """An ``<svg>`` with axes, a light grid, each line over its interval, and its label at its end.

    ``y_range`` fixes either end of the vertical axis; None leaves it to the data. ``title`` is what
    a screen reader says.
    """
    shown = [line for line in lines if np.isfinite(line.y).any()]
    if not shown:
        return '<p class="empty">Nothing to draw.</p>'
    x_low, x_high = min(line.x.min() for line in shown), max(line.x.max() for line in shown)
    y_low, y_high = _range(shown, y_range)

    def place(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        across = (x - x_low) / max(x_high - x_low, 1e-9) * (WIDTH - LEFT - RIGHT) + LEFT
        up = (np.clip(y, y_low, y_high) - y_low) / (y_high - y_low)
        return across, HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)

    parts = [
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{escape(title, quote=True)}">'
    ]
    parts += _grid(place, (x_low, x_high), (y_low, y_high), x_label)
    order = sorted(shown, key=lambda line: line.strong)
    parts += [_band(line, place) for line in order]
    parts += [_curve(line, place) for line in order]
    parts += _labels(shown, place)
    return "\n".join([*parts, "</svg>"])


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers from ``low`` to ``high``, some ``about`` of them."""
    raw = (high - low) / about
    size = 10 ** np.floor(np.log10(raw))
    step = float(size * next(m for m in (1, 2, 2.5, 5, 10) if m * size >= raw * 0.999))
    first = np.ceil(low / step - 1e-6)
    count = int(np.floor(high / step + 1e-6) - first) + 1
    return [round(float((first + i) * step), 10) for i in range(count)]


def _range(lines: Sequence[Line], fixed: tuple[float | None, float | None]) -> tuple[float, float]:
    """The vertical axis: from the data, to the next round numbers."""
    low = min(np.nanmin(line.y) for line in lines) if fixed[0] is None else fixed[0]
    high = max(np.nanmax(line.y) for line in lines) if fixed[1] is None else fixed[1]
    if high - low < 1e-9:
        high = low + 1
    marks = ticks(low, high)
    step = marks[1] - marks[0] if len(marks) > 1 else high - low
    if fixed[0] is None:
        low = float(np.floor(low / step + 1e-9) * step)
    if fixed[1] is None:
        high = float(np.ceil(high / step - 1e-9) * step)
    return float(low), float(high)


def _grid(place, x_range, y_range, x_label) -> list[str]:
    left, right, floor = LEFT, WIDTH - RIGHT, HEIGHT - BOTTOM
    parts = []
    for value in ticks(*y_range):
        _, (y,) = place(np.array([x_range[0]]), np.array([value]))
        parts.append(f'<path class="grid" d="M{left} {y:.1f}H{right}"/>')
        parts.append(f'<text class="tick" x="{left - 7}" y="{y + 3.5:.1f}" text-anchor="end">')
        parts.append(f"{value:g}</text>")
    marks = ticks(0, x_range[1], 6)[1:]
    for value in [x_range[0], *(mark for mark in marks if mark > x_range[0])]:
        (x,), _ = place(np.array([value]), np.array([y_range[0]]))
        parts.append(f'<path class="axis" d="M{x:.1f} {floor}v4"/>')
        parts.append(f'<text class="tick" x="{x:.1f}" y="{floor + 16}" text-anchor="middle">')
        parts.append(f"{value:g}</text>")
    parts.append(f'<path class="axis" d="M{left} {floor}H{right}"/>')
    middle = (left + right) / 2
    parts.append(f'<text class="tick" x="{middle}" y="{HEIGHT - 6}" text-anchor="middle">')
    parts.append(f"{escape(x_label)}</text>")
    return parts


def colour(name: str) -> str:
    """The CSS value in which the line of that name is drawn."""
    return f"var(--{re.sub('[^a-z0-9]+', '-', name.lower()).strip('-')}, var(--line))"


def _band(line: Line, place) -> str:
    known = np.isfinite(line.low) & np.isfinite(line.high)
    if known.sum() < 2:
        return ""
    x, low = place(line.x[known], line.low[known])
    _, high = place(line.x[known], line.high[known])
    points = [*zip(x, high, strict=True), *zip(x[::-1], low[::-1], strict=True)]
    path = "L".join(f"{a:.1f} {b:.1f}" for a, b in points)
    return f'<path class="band" style="fill:{colour(line.name)}" d="M{path}Z"/>'


def _curve(line: Line, place) -> str:
    x, y = place(line.x, line.y)
    pieces, pen = [], "M"
    for a, b, known in zip(x, y, np.isfinite(line.y), strict=True):
        if known:
            pieces.append(f"{pen}{a:.1f} {b:.1f}")
        pen = "L" if known else "M"
    kind = "curve strong" if line.strong else "curve"
    return f'<path class="{kind}" style="stroke:{colour(line.name)}" d="{"".join(pieces)}"/>'


def _labels(lines: Sequence[Line], place) -> list[str]:
    """Names at the ends of the lines, pushed apart where they would overlap."""
    ends = []
    for line in lines:
        last = np.flatnonzero(np.isfinite(line.y))[-1]
        _, (y,) = place(line.x[last : last + 1], line.y[last : last + 1])
        ends.append((float(y), line))
    ends.sort(key=lambda end: end[0])
    spots = spread([y for y, _ in ends], LABEL_GAP, TOP + 4, HEIGHT - BOTTOM)
    x, parts = WIDTH - RIGHT, []
    for (y, line), spot in zip(ends, spots, strict=True):
        style = f'style="stroke:{colour(line.name)}"'
        parts.append(f'<path class="leader" {style} d="M{x + 3} {y:.1f}L{x + 12} {spot:.1f}"/>')
        kind = "name strong" if line.strong else "name"
        style = f'style="fill:{colour(line.name)}"'
        parts.append(f'<text class="{kind}" {style} x="{x + 16}" y="{spot + 3.5:.1f}">')
        parts.append(f"{escape(line.label)}</text>")
    return parts


def spread(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Places in order, at least ``gap`` apart and inside [low, high], near the ``wanted`` ones."""
    spots = list(wanted)
    for _ in range(100):
        moved = False
        for i in range(len(spots) - 1):
            lack = gap - (spots[i + 1] - spots[i])
            if lack > 1e-6:
                spots[i] -= lack / 2
                spots[i + 1] += lack / 2
                moved = True
        spots = [min(max(spot, low), high) for spot in spots]
        if not moved:
            break
    return spots
