"""Devices as a mesh, parameters by logical rules, batches split over those that see other windows.

Four axes: ``data`` splits the batch; ``fsdp`` splits the batch *and* the weights (each device has
its share and gathers the rest when it needs it); ``tensor`` splits the weights *and* the work that
is done with them, and its devices see the same windows; ``cells`` splits each frame of a window
into bands of rows, and so the cells of a grid, with whole weights on every device. A parameter
names its axes logically; `RULES` says which of those names may be split, and by what.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

from wm_jax import shapes
from wm_jax.config import pick
from wm_jax.errors import UserError
from wm_jax.nn.dense import unfolded

#: Neighbours are a group of ``cells``, then of ``tensor``: these talk in every layer.
AXES = ("data", "fsdp", "tensor", "cells")

#: Logical axis of a parameter -> mesh axes that may split it (none: never split).
RULES: dict[str, tuple[str, ...]] = {
    "inputs": ("tensor", "fsdp"),  # features in
    "outputs": ("tensor", "fsdp"),  # features out
    "hidden": ("tensor", "fsdp"),  # features inside a block
    "features": ("fsdp",),  # of a bias or a scale; whole beside any product that ``tensor`` splits
    "blocks": (),  # blocks of a block-diagonal matrix
    "space": (),  # rows and columns of a kernel
    "cells": (),  # cells of a grid
    "classes": (),  # of a categorical latent
}

#: This order, never the other: see `batch_sharding`.
BATCH_AXES = ("fsdp", "data")


def make_mesh(config: Any, devices: list[jax.Device] | None = None) -> Mesh:
    """A (data, fsdp, tensor, cells) mesh of the sizes in ``config`` (the ``mesh`` section; -1 takes
    what is left). Raises `UserError` where the devices do not make it.

    Axes are `AxisType.Auto`: the compiler chooses how intermediate arrays are split.
    """
    devices = jax.devices() if devices is None else devices
    asked = {axis: getattr(config, axis) for axis in AXES}
    rest = int(np.prod([size for size in asked.values() if size != -1]))
    sizes = [max(1, len(devices) // rest) if size == -1 else size for size in asked.values()]
    if np.prod(sizes) != len(devices):
        told = " × ".join(f"mesh.{axis}={size}" for axis, size in asked.items())
        raise UserError(
            f"config.{told} does not make {len(devices)}, the number of devices; let one of them "
            "be -1 and the others divide it."
        )
    owners = Counter(device.process_index for device in devices)
    if len(set(owners.values())) > 1:  # else it is the first checkpoint that fails, in JAX
        told = ", ".join(f"process {index} has {count}" for index, count in sorted(owners.items()))
        raise UserError(
            f"the processes of a run need as many devices each, and {told}; start each with the "
            "same number."
        )
    grid = np.array(devices).reshape(sizes)
    return Mesh(grid, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def windows_at_once(mesh: Mesh) -> int:
    """Into how many parts a batch is split: devices that see different windows."""
    return mesh.shape["data"] * mesh.shape["fsdp"]


def batch_sharding(mesh: Mesh, *, frames: bool = False) -> NamedSharding:
    """Splits the leading axis over ``fsdp`` and ``data``; of frames (B,T,H,W,3) also the rows, over
    ``cells``. Everything else that is computed from frames the compiler splits as they are.

    The order ('fsdp', 'data') matters: with ('data', 'fsdp') jax 0.10.2 computes wrong gradients on
    some CPU meshes, silently. tests/test_gradients.py compares every mesh with one device.
    """
    if frames and mesh.shape["cells"] > 1:
        return NamedSharding(mesh, PartitionSpec(BATCH_AXES, None, "cells"))
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


@functools.lru_cache(64)
def rows_of_process(mesh: Mesh, batch_size: int, process: int | None = None) -> tuple[int, ...]:
    """The rows of a batch that the devices of a process (None: this one) hold, in increasing order.

    With ``fsdp`` they need not be neighbours, and processes that ``tensor`` or ``cells`` joins hold
    the same.
    Raises `UserError` where there are none.
    """
    process = jax.process_index() if process is None else process
    held: Mapping[Any, Any] = batch_sharding(mesh).devices_indices_map((batch_size,))
    rows: set[int] = set()
    for device, (part,) in held.items():
        if device.process_index == process:
            rows.update(range(batch_size)[part])
    if not rows:
        raise UserError(
            f"process {process} has no device in the mesh {dict(mesh.shape)}, and so no row of a "
            "batch; use the devices of all processes, or start fewer."
        )
    return tuple(sorted(rows))


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec())


def param_shardings(params: PyTree, logical_axes: PyTree, mesh: Mesh) -> PyTree:
    """One `NamedSharding` a parameter: ``tensor`` splits the largest axis that a rule allows and
    its size divides, then ``fsdp`` the last of the others.

    Of a layer that widens and one that narrows again both are split on the wide side by ``tensor``,
    so what lies between them stays where it is made and is summed once, after the second. Any axis
    is as good for ``fsdp``, whose devices gather it; but the first of a 3×3 kernel is nine in one.
    ``logical_axes`` has the structure of ``params``, with a tuple of names (or None) at each leaf.
    """

    def sharding(path, leaf, axes):
        names = (None,) * leaf.ndim if axes is None else axes
        where = jax.tree_util.keystr(path)
        if len(names) != leaf.ndim:
            raise UserError(f"parameter {where} of shape {leaf.shape} has logical axes {names}.")
        rules = [pick(RULES, n, f"logical axis of {where}") if n else () for n in names]
        spec: list[str | None] = [None] * leaf.ndim
        for axis in ("tensor", "fsdp"):
            size = mesh.shape[axis]
            free = [i for i, rule in enumerate(rules) if axis in rule and spec[i] is None]
            fits = [i for i in free if leaf.shape[i] % size == 0]
            if fits and size > 1:
                largest = max(fits, key=lambda i: leaf.shape[i])
                spec[largest if axis == "tensor" else fits[-1]] = axis
        return NamedSharding(mesh, PartitionSpec(*spec))

    return jax.tree_util.tree_map_with_path(sharding, params, logical_axes)


def axes_by_shape(params: PyTree) -> PyTree:
    """Logical axes of Linen's own layers, read off their shapes: kernels end in (inputs, outputs),
    vectors are features. For models that declare none."""

    def axes(leaf: jax.Array) -> tuple[str | None, ...]:
        names = ("inputs", "outputs") if leaf.ndim > 1 else ("features",) * leaf.ndim
        return (None,) * (leaf.ndim - len(names)) + names

    return jax.tree.map(axes, params)


def on_mesh(function: Callable[..., Any], mesh: Mesh) -> Callable[..., Any]:
    """``function`` as it has to be traced for ``mesh``: what ``cells`` splits stays split."""
    if mesh.shape["cells"] == 1:
        return function

    @functools.wraps(function)
    def traced(*arguments):
        with unfolded():
            return function(*arguments)

    return traced


def is_frames(shape: tuple[int, ...]) -> bool:
    """Of the arrays of a batch frames alone have five axes, (B,T,H,W,3)."""
    return len(shape) == 5


def check_batch_size(batch_size: int, mesh: Mesh) -> None:
    """Refuses a batch that the mesh does not divide."""
    parts = windows_at_once(mesh)
    if batch_size % parts:
        below = batch_size // parts * parts
        hint = f"{below} or {below + parts}" if below else str(parts)
        raise UserError(
            f"config.train.batch_size={batch_size} does not divide over {parts} devices "
            f"(mesh.data × mesh.fsdp of {dict(mesh.shape)}); use {hint}."
        )


def to_batch(
    arrays: Mapping[str, np.ndarray], put: Callable[[np.ndarray], jax.Array] = jnp.asarray
) -> shapes.Batch:
    """A batch as loaders yield it, to a `shapes.Batch`; ``put`` brings each array to its device(s).

    ``arrays`` holds frames, is_first, mask and, for every modality that the source has, its value
    and ``<modality>_mask``; targets of heads; ``followed/<name>``, if states are remembered; and
    ``paraphrase/<name>``, if there are any.
    Modalities that it has not are marked absent.
    """
    lead = arrays["mask"].shape

    def signal(name: str, size: int) -> shapes.Signal:
        if name not in arrays:
            return shapes.Signal(
                put(np.zeros((*lead, size), np.float32)), put(np.zeros(lead, bool))
            )
        if arrays[name].shape != (*lead, size):
            raise UserError(
                f"'{name}' of this data set has {arrays[name].shape[-1]} numbers a frame, and the "
                f"model takes {size}; leave it out of config.data.conditions."
            )
        if name == "discrete_actions" and arrays[name].size:
            shapes.check_choices(arrays[name], "of this data set")
        return shapes.Signal(put(arrays[name]), put(arrays[f"{name}_mask"]))

    told = {name: signal(name, size) for name, size in shapes.CONDITION_SIZES.items()}
    frames, is_first, mask = (put(arrays[name]) for name in ("frames", "is_first", "mask"))
    heads = ("reward", "is_terminal", "readout")
    rest: dict[str, Any] = {n: put(arrays[n]) for n in heads if n in arrays}
    prefix = "followed/"
    followed = {n.removeprefix(prefix): put(x) for n, x in arrays.items() if n.startswith(prefix)}
    if followed:
        rest["followed"] = followed
    if "paraphrase/text" in arrays:
        said = (put(arrays[f"paraphrase/{name}"]) for name in shapes.Paraphrases._fields)
        rest["paraphrases"] = shapes.Paraphrases(*said)
    return shapes.Batch(frames, is_first, mask, shapes.Conditions(**told), **rest)


def shard_batch(arrays: Mapping[str, np.ndarray], mesh: Mesh) -> shapes.Batch:
    """The rows of a batch that `rows_of_process` names (see `to_batch`), put where `batch_sharding`
    says."""
    parts, own = windows_at_once(mesh), len(arrays["mask"])
    size = own * parts // len(rows_of_process(mesh, parts))
    check_batch_size(size, mesh)
    places = {row: i for i, row in enumerate(rows_of_process(mesh, size))}

    def put(x: np.ndarray) -> jax.Array:
        def part(index: Any) -> np.ndarray:
            first = places[range(size)[index[0]][0]]
            return x[(slice(first, first + size // parts), *index[1:])]

        sharding = batch_sharding(mesh, frames=is_frames(x.shape))
        return jax.make_array_from_callback((size, *x.shape[1:]), sharding, part)

    return to_batch(arrays, put)
