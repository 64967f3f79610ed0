"""Public peak numbers of TPU chips, and the names of the slices that they are lent in.

Source: Google Cloud's pages of system architecture, https://docs.cloud.google.com/tpu/docs/v4,
…/v5e, …/v5p and …/v6e, read in November 2026: peak bf16 compute, HBM capacity and bandwidth, and
ICI bandwidth of a chip, which they give for both ways together. The page of v4 has none: 50 GB/s a
link and way is Jouppi et al. 2023, arXiv 2304.01433, table 4.
"""

from __future__ import annotations

import difflib
import math
from typing import NamedTuple

from wm_jax.errors import UserError

GB = 1e9
GIB = 2**30


class Chip(NamedTuple):
    """flops: a second, bfloat16. hbm_bytes: capacity. hbm_bandwidth: bytes a second.
    link_bandwidth: bytes a second of one ICI link, one way; a chip has two links a dimension.
    wraps: a dimension of a slice is a ring if its length is a multiple of this; else a line
    """

    flops: float
    hbm_bytes: float
    hbm_bandwidth: float
    link_bandwidth: float
    wraps: int
    slices: tuple[str, ...]


#: v5e and v6e: a whole pod's side is a ring. v4 and v5p: cubes of 4×4×4 are joined to rings.
_FLAT = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
_DEEP = (
    *("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8", "8x8x16"),
    *("8x16x16", "16x16x16"),
)
CHIPS = {
    "v4": Chip(275e12, 32 * GIB, 1200 * GB, 50 * GB, 4, _DEEP),
    "v5e": Chip(197e12, 16 * GIB, 819 * GB, 400 / 2 / 4 * GB, 16, _FLAT),
    "v5p": Chip(459e12, 95 * GIB, 2765 * GB, 1200 / 2 / 6 * GB, 4, (*_DEEP, "16x16x24")),
    "v6e": Chip(918e12, 32 * GIB, 1638 * GB, 800 / 2 / 4 * GB, 16, _FLAT),
}


class Topology(NamedTuple):
    """A slice of chips of one kind, ``sides`` chips long in each dimension."""

    name: str
    chip: Chip
    sides: tuple[int, ...]

    @property
    def size(self) -> int:
        return math.prod(self.sides)


def topology(name: str) -> Topology:
    """The slice named ``kind:AxB`` or ``kind:AxBxC``. Raises `UserError` with the nearest names."""
    known = [f"{kind}:{sides}" for kind, chip in CHIPS.items() for sides in chip.slices]
    if name not in known:
        kind = name.partition(":")[0]
        if kind in CHIPS:
            known = [other for other in known if other.startswith(f"{kind}:")]
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.0)
        raise UserError(f"unknown topology '{name}': the nearest are {', '.join(near)}.")
    kind, sides = name.split(":")
    return Topology(name, CHIPS[kind], tuple(int(side) for side in sides.split("x")))
