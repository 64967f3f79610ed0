"""How the cost of a backbone grows: with time, with cells, with width.

    python experiments/benchmarks/growth.py --json --plot growth.png
    python experiments/benchmarks/growth.py --backbone s5 --axis time --lengths 16 256  # a minute

A row is the time a frame of one gradient of a scan (forward and backward, every frame seen, weights
and inputs drawn at random), the median of interleaved rounds, on three axes:

  time    lengths 16 … 1,024 at ``--frames`` frames in all: the batch shrinks as the window grows
  cells   4, 16, 64 and 256 cells, 8 streams of 16 frames
  width   16 … 128 features, 8 streams of 16 frames

at 16 cells and 64 features where an axis does not say otherwise, with one layer. A fit is the
exponent p of milliseconds a frame ∝ sizeᵖ by least squares in logarithms: 0 on the axis of time
is a cost linear in time, 1 on that of cells linear in cells. ``state_bytes`` is the carry of one
stream. ``--clock processor`` counts the time that all threads spent computing instead of that which
passed: on a machine that others use too, the growth is seen in that.

Width is the RSSM's ``hidden`` (``deter`` is eight times it) and four times `grid_slots`' ``width``,
whose cells are those of its stage.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from chart import charts
from PIL import Image

from wm_jax.models.dynamics import DYNAMICS
from wm_jax.models.dynamics.parallel import Parallel

LENGTHS = (16, 32, 64, 128, 256, 512, 1024)
SIDES = (2, 4, 8, 16)  # of a square of cells
WIDTHS = (16, 32, 64, 128)
SIDE, WIDTH, STREAMS, LENGTH = 4, 64, 8, 16
TOLD = 4
AXES = ("time", "cells", "width")
CLOCKS = {"wall": time.perf_counter, "processor": time.process_time}
Clock = Callable[[], float]


class Setting(NamedTuple):
    """One point: which axis it is on and where, and the sizes of the scan."""

    axis: str
    size: int
    batch: int
    length: int
    side: int
    width: int


def settings(lengths: list[int], frames: int) -> list[Setting]:
    """Every point of the three axes; every length with ``frames`` frames in all."""
    points = [Setting("time", t, frames // t, t, SIDE, WIDTH) for t in lengths]
    points += [Setting("cells", s * s, STREAMS, LENGTH, s, WIDTH) for s in SIDES]
    return points + [Setting("width", w, STREAMS, LENGTH, SIDE, w) for w in WIDTHS]


def module(name: str, side: int, width: int) -> Any:
    """The backbone ``name`` at these sizes."""
    kind = DYNAMICS[name]
    if name == "rssm":
        return kind(cells=(side, side), deter=8 * width, hidden=width)
    if name == "grid_slots":
        size = {"width": width // 4, "hidden": width // 2, "told_size": TOLD}
        return kind(cells=(4 * side, 4 * side), pool=4, **size)
    fields = {"width": width, "hidden": width}
    fields |= {"layers": 1} if issubclass(kind, Parallel) else {}
    fields |= {"state": width} if name == "s5" else {}
    return kind(cells=(side, side), **fields)


class Case:
    """A backbone at a setting, compiled."""

    def __init__(self, name: str, setting: Setting):
        self.name, self.setting = name, setting
        backbone = module(name, setting.side, setting.width)
        embed = backbone.channels if name == "grid_slots" else setting.width
        cells, lead = math.prod(backbone.cells), (setting.batch, setting.length)
        random = np.random.default_rng(0)
        start = backbone.initial(setting.batch)
        window = (
            jnp.asarray(random.normal(size=(*lead, cells, embed)), jnp.float32),
            None,
            jnp.asarray(random.normal(size=(*lead, TOLD)), jnp.float32),
            jnp.zeros(lead, bool),
            jax.random.split(jax.random.key(0), setting.length),
        )
        init = functools.partial(backbone.init, jax.random.key(0), method="scan")
        variables = jax.tree.map(
            lambda x: jnp.asarray(random.normal(size=x.shape) / math.prod(x.shape[:-1]) ** 0.5),
            jax.eval_shape(init, start, *window),
        )

        def loss(variables):
            _, out = backbone.apply(variables, start, *window, method="scan")
            return jnp.square(out.tokens - out.prior).mean() + sum(
                term.mean() for term in out.terms.values()
            )

        self._gradient = jax.jit(jax.grad(loss)).lower(variables).compile()
        self._variables = variables
        self.state_bytes = sum(x.nbytes for x in jax.tree.leaves(start)) // setting.batch

    def milliseconds(self, clock: Clock) -> float:
        """Of one frame in one gradient."""
        begin = clock()
        jax.block_until_ready(self._gradient(self._variables))
        return 1e3 * (clock() - begin) / (self.setting.batch * self.setting.length)


def measure(
    names: list[str], points: list[Setting], rounds: int, clock: Clock
) -> list[dict[str, Any]]:
    """One row a backbone and point. Rounds go through one axis of one backbone at a time."""
    rows = []
    for name in names:
        for axis in dict.fromkeys(point.axis for point in points):
            cases = [Case(name, point) for point in points if point.axis == axis]
            for case in cases:
                case.milliseconds(clock)  # warm
            seen = np.array([[case.milliseconds(clock) for case in cases] for _ in range(rounds)])
            rows += [row(case, times) for case, times in zip(cases, seen.T, strict=True)]
            print(f"{name}: {axis}", file=sys.stderr, flush=True)
    return rows


def row(case: Case, times: np.ndarray) -> dict[str, Any]:
    low, middle, high = np.percentile(times, [25, 50, 75])
    numbers = {"milliseconds_per_frame": middle, "low": low, "high": high}
    return {
        "backbone": case.name,
        **case.setting._asdict(),
        **{key: round(float(value), 5) for key, value in numbers.items()},
        "state_bytes": case.state_bytes,
    }


def exponent(sizes: np.ndarray, values: np.ndarray) -> float:
    """The slope of log value over log size, by least squares."""
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


def fits(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The exponents of time a frame and of the state, one a backbone and axis of two or more."""
    out = []
    for name in dict.fromkeys(row["backbone"] for row in rows):
        for axis in AXES:
            on = [row for row in rows if (row["backbone"], row["axis"]) == (name, axis)]
            if len(on) < 2:
                continue
            sizes = np.array([row["size"] for row in on])
            fit = {
                key: round(exponent(sizes, np.array([row[of] for row in on])), 3)
                for key, of in (("time", "milliseconds_per_frame"), ("state", "state_bytes"))
            }
            out.append({"backbone": name, "axis": axis, "points": len(on), **fit})
    return out


def plot(rows: list[dict[str, Any]]) -> Image.Image:
    """Milliseconds a frame over size, a panel an axis."""
    panels: dict[str, dict[str, list]] = {}
    for row in rows:
        lines = panels.setdefault(f"milliseconds a frame over {row['axis']}", {})
        point = row["size"], row["milliseconds_per_frame"]
        lines.setdefault(row["backbone"], []).append(point)
    return charts(panels)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").split("\n\n")[0],
        epilog="example: python experiments/benchmarks/growth.py --backbone s5 --axis time",
    )
    parser.add_argument("--backbone", action="append", choices=list(DYNAMICS), help="default: all")
    parser.add_argument("--axis", action="append", choices=AXES, help="default: all")
    parser.add_argument("--lengths", type=int, nargs="+", default=list(LENGTHS), metavar="T")
    parser.add_argument("--frames", type=int, default=1024, help="in all, on the axis of time")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall", help="default: wall")
    parser.add_argument("--plot", metavar="PNG", help="write a picture there")
    parser.add_argument(
        "--json", action="store_true", help="print rows and fits as one JSON object"
    )
    options = parser.parse_args()
    if max(options.lengths) > options.frames or min(options.lengths) < 1:
        parser.error(
            f"--lengths must lie between 1 and --frames ({options.frames}); change either."
        )
    if options.rounds < 1:
        parser.error("--rounds must be at least 1.")
    points = settings(options.lengths, options.frames)
    points = [point for point in points if point.axis in (options.axis or AXES)]
    names, clock = options.backbone or list(DYNAMICS), CLOCKS[options.clock]
    rows = [row | {"clock": options.clock} for row in measure(names, points, options.rounds, clock)]
    if options.plot:
        plot(rows).save(options.plot)
    if options.json:
        print(json.dumps({"rows": rows, "fits": fits(rows)}))
        return
    print(f"{'backbone':>14} {'axis':>6} {'time':>7} {'state':>7}   exponents")
    for fit in fits(rows):
        print(f"{fit['backbone']:>14} {fit['axis']:>6} {fit['time']:>7} {fit['state']:>7}")


if __name__ == "__main__":
    main()
