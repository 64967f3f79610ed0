"""The table of chips, and arithmetic at their peak rates against closed forms."""

import math

import pytest

from wm_jax.ahead.chips import CHIPS, GIB, Chip, Topology, topology
from wm_jax.ahead.hlo import Collective
from wm_jax.ahead.roofline import by_kind, links, roofline
from wm_jax.errors import UserError

#: A chip of round numbers: 100 FLOP/s, 10 bytes/s of memory, 2 bytes/s a link and way.
ROUND = Chip(100.0, 1000.0, 10.0, 2.0, 4, ())


def test_the_chips_are_those_that_google_publishes():
    """TFLOP/s, GiB, GB/s of memory and of all links both ways."""
    seen = {
        name: (
            chip.flops / 1e12,
            chip.hbm_bytes / GIB,
            chip.hbm_bandwidth / 1e9,
            chip.link_bandwidth * 4 * len(chip.slices[-1].split("x")) / 1e9,
        )
        for name, chip in CHIPS.items()
    }
    assert seen == {
        "v4": (275, 32, 1200, 600),
        "v5e": (197, 16, 819, 400),
        "v5p": (459, 95, 2765, 1200),
        "v6e": (918, 32, 1638, 800),
    }


@pytest.mark.parametrize(("name", "chips"), [("v5p:4x4x4", 64), ("v6e:16x16", 256)])
def test_a_topology_is_its_sides(name, chips):
    found = topology(name)
    assert found.size == chips == math.prod(found.sides)
    assert found.chip is CHIPS[name[:3]]


@pytest.mark.parametrize(
    ("name", "near"),
    [("v5p:4x4", "v5p:4x4x4"), ("v5e:16x17", "v5e:16x16"), ("v7:2x2", "v6e:2x2")],
)
def test_an_unknown_topology_is_told_the_nearest(name, near):
    with pytest.raises(UserError, match=f"unknown topology '{name}': the nearest are .*{near}"):
        topology(name)


def test_arithmetic_hides_what_is_overlapped_and_nothing_else():
    line = roofline(ROUND, flops=400, model_flops=300, hbm_bytes=20, overlapped_seconds=3.0,
                    blocking_seconds=1.0)  # fmt: skip
    assert (line.compute_seconds, line.memory_seconds) == (4.0, 2.0)
    assert line.exposed_seconds == 1.0 and line.step_seconds == 5.0
    assert line.mfu == pytest.approx(300 / (5 * 100)) and line.exposed_share == 0.2


def test_what_is_left_of_the_overlapped_is_exposed():
    line = roofline(ROUND, 100, 100, 30, overlapped_seconds=5.0, blocking_seconds=0.5)
    assert line.memory_seconds == 3.0  # longer than the arithmetic
    assert line.exposed_seconds == 2.5 and line.step_seconds == 5.5


def test_links_are_those_of_the_dimensions_that_a_group_spans():
    cube = Topology("t", ROUND, (4, 4, 4))
    row = [(i, 0, 0) for i in range(4)]
    assert links(row, cube) == 2  # all the way round
    assert links(row[:2], cube) == 1  # a part of a ring is a line
    assert links([(i, j, 0) for i in range(4) for j in range(2)], cube) == 3
    assert links([(i, j, k) for i in range(4) for j in range(4) for k in range(4)], cube) == 6
    flat = Topology("t", ROUND, (2, 2))
    assert links([(i, j, 0) for i in range(2) for j in range(2)], flat) == 2


def test_collectives_are_summed_by_kind():
    cube = Topology("t", ROUND, (4, 4, 4))
    places = [(i, 0, 0) for i in range(4)]
    gather = Collective("all-gather", 80, (0, 1, 2, 3), 3, True)
    found = by_kind([gather, gather._replace(times=1, overlapped=False)], places, cube)
    assert found == {
        "all-gather": {
            "count": 4,
            "bytes_sent": 240.0,  # 60 each
            "seconds": 60.0,  # at 2 links of 2 bytes/s
            "overlapped_seconds": 45.0,
        }
    }
