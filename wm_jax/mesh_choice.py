"""The sizes of a mesh, chosen: of ``config.mesh.auto`` and of ``wm-jax compile --mesh auto``.

First the batch: it is split over as many devices as it divides over, for they talk least. Where
that leaves devices over, groups of them (``tensor``) share the work on the same windows. Then the
weights: as few devices share them (``fsdp``) as leave most of the memory to activations.

A run chooses anew whenever it starts and writes its choice to ``events.jsonl``, never to its
config: its checkpoints restore on any mesh, so it goes on where there are more devices, or fewer.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import jax

from wm_jax.errors import UserError

GIB = 2**30
#: Of a device's memory, for weights, moments and gradients; the rest is for activations.
SHARE = 1 / 4


class Sizes(NamedTuple):
    """Devices along each axis of a mesh, as `wm_jax.mesh.make_mesh` takes them."""

    data: int
    fsdp: int
    tensor: int
    cells: int = 1

    def __str__(self) -> str:
        split = [f"{axis}={size}" for axis, size in self._asdict().items() if size > 1]
        return ", ".join(split) or "data=1"


class Needs(NamedTuple):
    """What does not depend on the mesh.

    parameters:  weights
    state_bytes: of weights, averages, moments and gradients, all devices together
    batch_size:  windows an update, over all processes
    """

    parameters: int
    state_bytes: int
    batch_size: int


class Devices(NamedTuple):
    """number: over all processes. memory: bytes of one, None where nobody knows. together: how many
    one process has"""

    number: int
    memory: float | None
    together: int


def devices_here() -> Devices:
    """Those of this run. Alike on all of its processes, whose devices are of one kind."""
    one = jax.local_devices()[0]
    memory = (one.memory_stats() or {}).get("bytes_limit")  # a CPU has none
    return Devices(jax.device_count(), memory, jax.local_device_count())


def choose(needs: Needs, devices: Devices) -> tuple[Sizes, str]:
    """The sizes, and one line that says why.

    Raises `UserError` where the batch does not divide over enough devices, or the devices together
    have too little memory for the state.
    """
    parts = _parts(needs.batch_size, devices)
    tensor = devices.number // parts
    fsdp, why = _sharing(needs.state_bytes, devices, parts, tensor)
    if tensor > 1:
        why += f"; {needs.batch_size} windows split over {parts}, and {tensor} share each of them"
    sizes = Sizes(parts // fsdp, fsdp, tensor)
    count = f"{devices.number} device{'s' * (devices.number > 1)}"
    return sizes, f"mesh: {count}, {needs.parameters / 1e6:.2f} M parameters: {sizes} ({why})."


def divisors(number: int) -> Iterator[int]:
    """Ascending."""
    return (n for n in range(1, number + 1) if number % n == 0)


def _parts(batch_size: int, devices: Devices) -> int:
    """Over how many devices the batch is split: what is left fits into one process."""
    fits = [
        parts
        for parts in divisors(devices.number)
        if batch_size % parts == 0 and devices.together % (devices.number // parts) == 0
    ]
    if not fits:
        raise UserError(
            f"config.train.batch_size={batch_size} does not divide over the "
            f"{devices.number // devices.together} processes of this run, nor over more devices; "
            f"use {devices.number}."
        )
    return fits[-1]


def _sharing(need: float, devices: Devices, parts: int, tensor: int) -> tuple[int, str]:
    """Over how many of ``parts`` devices ``fsdp`` splits the state, and why."""
    if devices.memory is None:
        return 1, "the memory of a device is not known, so the weights are taken to fit"
    if need > devices.number * devices.memory:
        raise UserError(
            f"weights, moments and gradients are {need / GIB:.1f} GiB, more than {devices.number} "
            f"devices of {devices.memory / GIB:.1f} GiB hold; use more devices, or set the sizes "
            "of config.mesh (of compile: --mesh) to try all the same."
        )
    if devices.number == 1:
        return 1, "there is no other"
    room = SHARE * devices.memory
    if need / tensor <= room:
        split = "so only the batch is split" if tensor == 1 else "so fsdp is not needed"
        return 1, f"the weights fit every device, {split}"
    fsdp = next((n for n in divisors(parts) if need / n / tensor <= room), parts)
    each = need / fsdp / tensor
    than = "of" if each <= room else "more than"
    return fsdp, (
        f"weights, moments and gradients are {need / GIB:.1f} GiB, {each / GIB:.2f} GiB a device, "
        f"{than} a quarter of its memory, {room / GIB:.1f} GiB"
    )
