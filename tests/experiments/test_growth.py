"""The growth benchmark: what it fits, what it asks for, and what it draws."""

import json
import sys

import chart
import numpy as np
import pytest

from experiments.benchmarks import growth
from wm_jax.models.dynamics import DYNAMICS


def rows(name, axis, sizes, power, state_power=0.0):
    return [
        {
            "backbone": name,
            "axis": axis,
            "size": size,
            "milliseconds_per_frame": 0.3 * size**power,
            "state_bytes": 64 * size**state_power,
        }
        for size in sizes
    ]


def test_exponents_are_those_of_a_power_law():
    some = rows("a", "time", growth.LENGTHS, 0.25) + rows("a", "cells", (4, 16, 64), 1.0, 1.0)
    some += rows("b", "time", growth.LENGTHS, 0.0) + rows("b", "width", (16,), 0.0)
    got = [(fit["backbone"], fit["axis"], fit["time"], fit["state"]) for fit in growth.fits(some)]
    assert got == [  # one point has no slope
        ("a", "time", 0.25, 0.0),
        ("a", "cells", 1.0, 1.0),
        ("b", "time", 0.0, 0.0),
    ]


def test_every_length_has_the_same_frames_and_one_thing_changes_on_an_axis():
    points = growth.settings(list(growth.LENGTHS), 1024)
    assert {p.batch * p.length for p in points if p.axis == "time"} == {1024}
    for axis, varies in (("time", {"length", "batch"}), ("cells", {"side"}), ("width", {"width"})):
        on = [point._asdict() for point in points if point.axis == axis]
        for key in ("batch", "length", "side", "width"):
            assert (len({point[key] for point in on}) > 1) == (key in varies), (axis, key)


@pytest.mark.parametrize("name", sorted(DYNAMICS))
def test_backbones_grow_as_asked(name):
    """A state of constant size in time, larger with width; one layer where layers are counted."""
    sizes = [
        sum(np.prod(x.shape) for x in growth.jax.tree.leaves(growth.module(name, 4, w).initial(1)))
        for w in (16, 64)
    ]
    assert sizes[0] < sizes[1]
    assert getattr(growth.module(name, 4, 16), "layers", 1) == 1


def test_logarithmic_axes():
    assert chart.place(10, 1, 100, 0, 50) == pytest.approx(25)
    assert chart.place(1, 1, 100, 90, 10) == pytest.approx(90)


def test_the_picture_has_a_line_a_backbone_that_rises_as_it_should():
    flat, steep = rows("flat", "time", (16, 64, 256), 0), rows("steep", "time", (16, 64, 256), 1)
    page = np.asarray(growth.plot(flat + steep))
    assert page.shape == (300, 400, 3)  # a panel an axis
    heights = []
    for colour in chart.COLOURS[:2]:
        y, x = np.nonzero((page[:, : chart.PANEL[0] - chart.MARGIN[1]] == colour).all(-1))
        heights.append(y[x == x.min()].mean() - y[x == x.max()].mean())
    assert abs(heights[0]) < 2 and heights[1] > 50


def test_lengths_beyond_the_frames_are_refused(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["growth.py", "--lengths", "64", "--frames", "32"])
    with pytest.raises(SystemExit):
        growth.main()
    assert "--lengths must lie between 1 and --frames (32)" in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_prints_rows_and_fits(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(growth, "WIDTH", 16)
    picture = tmp_path / "growth.png"
    argv = ["growth.py", "--backbone", "s5", "--axis", "time", "--lengths", "2", "4"]
    argv += ["--frames", "4", "--rounds", "1", "--json", "--plot", str(picture)]
    monkeypatch.setattr(sys, "argv", argv)
    growth.main()
    out = json.loads(capsys.readouterr().out)
    assert [row["batch"] for row in out["rows"]] == [2, 1]
    assert all(row["milliseconds_per_frame"] > 0 for row in out["rows"])
    assert [fit["axis"] for fit in out["fits"]] == ["time"] and out["fits"][0]["state"] == 0
    assert picture.stat().st_size > 0
