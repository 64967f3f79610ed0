"""How long a step takes at the chips' peak rates: arithmetic, memory, links, and what is hidden.

  busy     = max(FLOPs / peak, bytes of HBM / bandwidth)
  exposed  = seconds of collectives that nothing runs beside
           + what is left of the overlapped ones when ``busy`` is over
  step     = busy + exposed

It is an estimate, not a simulation. Matrix units that are not filled, memory that waits for
arithmetic, and contention between collectives are not in it: a step takes longer for those. Bytes
are those of `wm_jax.ahead.hlo`, not XLA's, in which what stays in on-chip memory counts as well. A
collective moves its bytes (`wm_jax.ahead.hlo.Collective.sent`) at the bandwidth of the links of all
dimensions that its chips span: two links where the dimension is a ring that it goes all the way
round, else one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from wm_jax.ahead.chips import Chip, Topology
from wm_jax.ahead.hlo import Collective


class Roofline(NamedTuple):
    """Seconds of a step by what takes them, and shares. mfu: model FLOPs (nothing computed twice)
    over what the chips could do in ``step_seconds``."""

    compute_seconds: float
    memory_seconds: float
    overlapped_seconds: float
    blocking_seconds: float
    exposed_seconds: float
    step_seconds: float
    mfu: float
    exposed_share: float


def roofline(
    chip: Chip,
    flops: float,
    model_flops: float,
    hbm_bytes: float,
    overlapped_seconds: float,
    blocking_seconds: float,
) -> Roofline:
    """All of one chip's share: ``flops`` as the program does them, ``model_flops`` without what is
    computed anew for the gradient, ``hbm_bytes`` read and written."""
    compute, memory = flops / chip.flops, hbm_bytes / chip.hbm_bandwidth
    busy = max(compute, memory)
    exposed = blocking_seconds + max(0.0, overlapped_seconds - busy)
    step = busy + exposed
    return Roofline(
        compute,
        memory,
        overlapped_seconds,
        blocking_seconds,
        exposed,
        step,
        model_flops / (chip.flops * step) if step else 0.0,
        exposed / step if step else 0.0,
    )


def links(coordinates: Sequence[Sequence[int]], topology: Topology) -> int:
    """Links into a chip that a collective over chips at these ``coordinates`` can use at once."""
    total = 0
    for side, places in zip(topology.sides, zip(*coordinates, strict=True), strict=False):
        spanned = len(set(places))
        ring = spanned == side > 2 and side % topology.chip.wraps == 0
        total += 2 if ring else int(spanned > 1)
    return max(total, 1)


def seconds(collective: Collective, places: Sequence[Sequence[int]], topology: Topology) -> float:
    """Of all runs of a collective; ``places`` are the coordinates of all chips of the mesh."""
    group = [places[i] for i in collective.group]
    bandwidth = topology.chip.link_bandwidth * links(group, topology)
    return collective.times * collective.sent / bandwidth


def by_kind(
    collectives: Sequence[Collective], places: Sequence[Sequence[int]], topology: Topology
) -> dict[str, dict[str, Any]]:
    """For each kind: how many run, bytes that a chip sends, seconds, and those of the seconds that
    the compiler overlaps with other work."""
    out: dict[str, dict[str, Any]] = {}
    for one in collectives:
        row = out.setdefault(
            one.kind, {"count": 0, "bytes_sent": 0.0, "seconds": 0.0, "overlapped_seconds": 0.0}
        )
        took = seconds(one, places, topology)
        row["count"] += one.times
        row["bytes_sent"] += one.times * one.sent
        row["seconds"] += took
        row["overlapped_seconds"] += took * one.overlapped
    return out
