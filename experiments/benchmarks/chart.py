"""Line charts for the benchmarks' tables: a panel, both axes logarithmic, a line a name."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from PIL import Image, ImageDraw

INK, GRID = (40, 40, 40), (220, 220, 220)
COLOURS = [
    (31, 119, 180), (255, 127, 14), (44, 160, 44), (214, 39, 40), (148, 103, 189),
    (140, 86, 75), (227, 119, 194), (23, 190, 207), (127, 127, 127), (188, 189, 34),
]  # fmt: skip
PANEL, MARGIN = (400, 300), (56, 130, 28, 40)  # a panel's size; left, right, top, bottom of it

Lines = Mapping[str, Sequence[tuple[float, float]]]


def charts(panels: Mapping[str, Lines], scale: int = 1) -> Image.Image:
    """A panel a title, side by side; a name has one colour in all of them. ``scale`` enlarges the
    panels, not the letters."""
    width, height = PANEL[0] * scale, PANEL[1] * scale
    page = Image.new("RGB", (width * len(panels), height), (255, 255, 255))
    pen = ImageDraw.Draw(page)
    names = list(dict.fromkeys(name for lines in panels.values() for name in lines))
    colours = {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(names)}
    for index, (title, lines) in enumerate(panels.items()):
        if lines:
            _panel(pen, (width * index, width, height), title, lines, colours)
    return page


def place(value: float, low: float, high: float, begin: float, end: float) -> float:
    """Where on the page ``value`` lies, on a logarithmic axis from ``low`` to ``high``."""
    share = (math.log(value) - math.log(low)) / max(math.log(high) - math.log(low), 1e-9)
    return begin + share * (end - begin)


def _panel(pen, box: tuple[int, int, int], title: str, lines: Lines, colours) -> None:
    x, width, height = box
    left, right = x + MARGIN[0], x + width - MARGIN[1]
    top, bottom = MARGIN[2], height - MARGIN[3]
    points = [point for line in lines.values() for point in line]
    across, up = [p[0] for p in points], [p[1] for p in points]
    low = 10.0 ** math.floor(math.log10(min(up)))
    high = 10.0 ** max(math.ceil(math.log10(max(up))), math.log10(low) + 1)
    begin, end = min(across), max(across)
    pen.text((left, 8), title, INK)
    for value in _ticks(low, high, set()):
        y = place(value, low, high, bottom, top)
        pen.line([(left, y), (right, y)], GRID)
        pen.text((x + 6, y - 6), f"{value:g}", INK)
    for value in _ticks(begin, end, set(across)):
        at = place(value, begin, end, left, right)
        pen.line([(at, top), (at, bottom)], GRID)
        millions = f"{value / 1e6:.2g}M" if value >= 1e6 else f"{value:g}"
        pen.text((at - 8, bottom + 6), millions, INK)
    for index, (name, line) in enumerate(lines.items()):
        spots = [
            (place(a, begin, end, left, right), place(b, low, high, bottom, top)) for a, b in line
        ]
        pen.line(spots, colours[name], width=2)
        if len(spots) < 8:  # few enough to be told apart, and one alone is no line
            for x_, y_ in spots:
                pen.ellipse((x_ - 3, y_ - 3, x_ + 3, y_ + 3), colours[name])
        pen.text((right + 12, top + 14 * index), name, colours[name])


def _ticks(low: float, high: float, values: set[float]) -> list[float]:
    """``values`` where they are few; else 1, 2 and 5 of every decade, of many decades only 1."""
    if 2 < len(values) <= 8:
        return sorted(values)
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = (1, 2, 5) if len(decades) < 5 else (1,)
    return [v * 10.0**d for d in decades for v in steps if low <= v * 10.0**d <= high]
