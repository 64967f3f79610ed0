"""Charts: round ticks, labels that keep apart, well-formed SVG."""

import xml.etree.ElementTree as xml

import numpy as np
import pytest

from wm_jax.evaluation import dots, plot


@pytest.mark.parametrize(
    "low, high, expected",
    [
        (0, 10, [0, 2, 4, 6, 8, 10]),
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (17.2, 31.9, [20, 25, 30]),
        (-1, 1, [-1, -0.5, 0, 0.5, 1]),
    ],
)
def test_ticks_are_round_and_inside(low, high, expected):
    assert plot.ticks(low, high) == pytest.approx(expected)


def test_labels_keep_apart_and_inside():
    spots = plot.spread([10, 11, 12, 90, 100], gap=8, low=10, high=100)
    assert all(b - a >= 8 - 1e-3 for a, b in zip(spots, spots[1:], strict=False))
    assert spots[0] >= 10
    assert spots[-1] <= 100


def test_a_chart_is_well_formed_and_leaves_gaps_where_nothing_is_known():
    x = np.arange(1, 6, dtype=float)
    y = np.array([1.0, 2.0, np.nan, 4.0, 5.0])
    lines = [
        plot.Line("copy_last", "copy <last>", x, y, y - 1, y + 1),
        plot.Line("default", "default", x, y / 2, y / 2, y / 2, strong=True),
        plot.Line("none", "none", x, y * np.nan, y, y),
    ]
    root = xml.fromstring(plot.chart(lines, x_label="step", title='a "b"'))
    curves = [p for p in root if p.get("class", "").startswith("curve")]
    assert len(curves) == 2, "a line without a number is left out"
    assert [p.get("d").count("M") for p in curves] == [2, 2]
    assert "var(--copy-last" in curves[0].get("style")
    assert "copy <last>" in [text.text.strip() for text in root if text.text]


@pytest.mark.parametrize("name", ["copy_last", "copy last", "Copy (last)"])
def test_a_colour_is_valid_css_whatever_the_name(name):
    assert plot.colour(name) == "var(--copy-last, var(--line))"


def test_a_curve_ends_where_its_number_says():
    """A line from the bottom to the top of a fixed range spans the plot's height."""
    x, y = np.array([0.0, 1.0]), np.array([0.0, 1.0])
    root = xml.fromstring(
        plot.chart([plot.Line("a", "a", x, y, y, y)], x_label="", title="", y_range=(0, 1))
    )
    (curve,) = (p for p in root if p.get("class") == "curve")
    top, bottom, right = plot.TOP, plot.HEIGHT - plot.BOTTOM, plot.WIDTH - plot.RIGHT
    assert curve.get("d") == f"M{plot.LEFT}.0 {bottom}.0L{right}.0 {top}.0"


def test_dots_lie_on_their_scale():
    nan = np.full(2, np.nan)
    one = dots.Series("tested_1", "a < b", np.array([0.5, np.nan]), np.array([0.4, np.nan]), nan)
    svg = dots.chart([one], ["first", "second"], title="t", x_range=(0, 1), form=".0%")
    middle = dots.LEFT + (dots.WIDTH - dots.LEFT - dots.RIGHT) / 2
    assert svg.count("<circle") == 2  # one dot, one in the legend
    assert f'cx="{middle:.1f}"' in svg and "a &lt; b" in svg
    assert "60%" in svg and svg.count('class="curve"') == 0  # no interval without both ends
