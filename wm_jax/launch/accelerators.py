"""Accelerators by the names that each place has for them."""

from __future__ import annotations

import math
from typing import NamedTuple

from wm_jax.errors import UserError


class Gpu(NamedTuple):
    """GKE's node label ``cloud.google.com/gke-accelerator``, and SkyPilot's name."""

    gke: str
    skypilot: str


class Tpu(NamedTuple):
    """GKE's node label ``cloud.google.com/gke-tpu-accelerator``; the start of Cloud TPU's
    accelerator type, of which a chip counts ``cores``; the VM's software; dimensions of a slice."""

    gke: str
    cloud: str
    cores: int
    runtime: str
    dimensions: int


GPUS = {
    "a100": Gpu("nvidia-tesla-a100", "A100"),
    "a100-80gb": Gpu("nvidia-a100-80gb", "A100-80GB"),
    "b200": Gpu("nvidia-b200", "B200"),
    "h100": Gpu("nvidia-h100-80gb", "H100"),
    "h200": Gpu("nvidia-h200-141gb", "H200"),
    "l4": Gpu("nvidia-l4", "L4"),
}
TPUS = {
    "v4": Tpu("tpu-v4-podslice", "v4", 2, "tpu-ubuntu2204-base", 3),
    "v5e": Tpu("tpu-v5-lite-podslice", "v5litepod", 1, "v2-alpha-tpuv5-lite", 2),
    "v5p": Tpu("tpu-v5p-slice", "v5p", 2, "v2-alpha-tpuv5", 3),
    "v6e": Tpu("tpu-v6e-slice", "v6e", 1, "v2-alpha-tpuv6e", 2),
}
NAMES = ("cpu", *GPUS, *TPUS)


def chips(tpu: str, topology: str) -> int:
    """Chips of a slice such as ``4x4x4``; raises `UserError` where it is none of that TPU."""
    sides = topology.split("x")
    wanted = TPUS[tpu].dimensions
    if len(sides) != wanted or not all(side.isdecimal() and int(side) for side in sides):
        example = "x".join("4" * wanted)
        raise UserError(
            f"topology '{topology}' is no slice of a {tpu}; it has {wanted} sides, as {example}."
        )
    return math.prod(int(side) for side in sides)
