"""Devices as a mesh, parameters by logical rules, batches split over all of it.

Two axes: ``data`` splits the batch; ``fsdp`` splits the batch *and* the weights (each device keeps
its share and gathers the rest when it needs it). A parameter names its axes logically; `RULES` says
which of those names may be split.
"""

from __future__ import annotations

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

#: Logical axis of a parameter -> mesh axis that may split it (None: never split).
RULES: dict[str, str | None] = {
    "inputs": "fsdp",  # features in
    "outputs": "fsdp",  # features out
    "hidden": "fsdp",  # features inside a block
    "blocks": None,  # blocks of a block-diagonal matrix
    "space": None,  # rows and columns of a kernel
    "cells": None,  # cells of a grid
    "classes": None,  # of a categorical latent
}

#: This order, never the other: see `batch_sharding`.
BATCH_AXES = ("fsdp", "data")


def make_mesh(config: Any, devices: list[jax.Device] | None = None) -> Mesh:
    """A (data, fsdp) mesh of the sizes in ``config`` (the ``mesh`` section; -1 takes what is left).

    Axes are `AxisType.Auto`: the compiler chooses how intermediate arrays are split.
    """
    devices = jax.devices() if devices is None else devices
    count = len(devices)
    data, fsdp = config.data, config.fsdp
    if data == -1:
        data = max(1, count // fsdp)
    elif fsdp == -1:
        fsdp = max(1, count // data)
    if data * fsdp != count:
        raise UserError(
            f"config.mesh.data={config.data} × mesh.fsdp={config.fsdp} does not make {count}, the "
            "number of devices; set one of them to -1."
        )
    return Mesh(
        np.array(devices).reshape(data, fsdp), ("data", "fsdp"), axis_types=(AxisType.Auto,) * 2
    )


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Splits the leading axis over every device.

    The order ('fsdp', 'data') matters: with ('data', 'fsdp') jax 0.10.2 computes wrong gradients on
    some CPU meshes, silently. tests/test_mesh.py compares every mesh with one device.
    """
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec())


def param_shardings(params: PyTree, logical_axes: PyTree, mesh: Mesh) -> PyTree:
    """One `NamedSharding` a parameter: its largest axis that a rule allows and ``fsdp`` divides.

    ``logical_axes`` has the structure of ``params``, with a tuple of names (or None) at each leaf.
    """
    size = mesh.shape["fsdp"]

    def sharding(path, leaf, axes):
        names = (None,) * leaf.ndim if axes is None else axes
        where = jax.tree_util.keystr(path)
        if len(names) != leaf.ndim:
            raise UserError(f"parameter {where} of shape {leaf.shape} has logical axes {names}.")
        rules = [pick(RULES, n, f"logical axis of {where}") if n else None for n in names]
        fits = [i for i, r in enumerate(rules) if r == "fsdp" and leaf.shape[i] % size == 0]
        spec: list[str | None] = [None] * leaf.ndim
        if fits and size > 1:
            spec[max(fits, key=lambda i: leaf.shape[i])] = "fsdp"
        return NamedSharding(mesh, PartitionSpec(*spec))

    return jax.tree_util.tree_map_with_path(sharding, params, logical_axes)


def axes_by_shape(params: PyTree) -> PyTree:
    """Logical axes of Linen's own layers, read off their shapes: kernels end in (inputs, outputs),
    vectors are outputs. For models that declare none."""

    def axes(leaf: jax.Array) -> tuple[str | None, ...]:
        names = ("inputs", "outputs") if leaf.ndim > 1 else ("outputs",) * leaf.ndim
        return (None,) * (leaf.ndim - len(names)) + names

    return jax.tree.map(axes, params)


def check_batch_size(batch_size: int, mesh: Mesh) -> None:
    """Refuses a batch that the mesh does not divide."""
    if batch_size % mesh.size:
        below = batch_size // mesh.size * mesh.size
        hint = f"{below} or {below + mesh.size}" if below else str(mesh.size)
        raise UserError(
            f"config.train.batch_size={batch_size} does not divide over {mesh.size} devices "
            f"(mesh {dict(mesh.shape)}); use {hint}."
        )


def to_batch(
    arrays: Mapping[str, np.ndarray], put: Callable[[np.ndarray], jax.Array] = jnp.asarray
) -> shapes.Batch:
    """A batch as loaders yield it, to a `shapes.Batch`; ``put`` brings each array to its device(s).

    ``arrays`` holds frames, is_first, mask and, for every modality that the source has, its value
    and ``<modality>_mask``; and targets of heads. Modalities that it has not are marked absent.
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
        return shapes.Signal(put(arrays[name]), put(arrays[f"{name}_mask"]))

    told = {name: signal(name, size) for name, size in shapes.CONDITION_SIZES.items()}
    frames, is_first, mask = (put(arrays[name]) for name in ("frames", "is_first", "mask"))
    targets = {n: put(arrays[n]) for n in ("reward", "is_terminal", "readout") if n in arrays}
    return shapes.Batch(frames, is_first, mask, shapes.Conditions(**told), **targets)


def shard_batch(arrays: Mapping[str, np.ndarray], mesh: Mesh) -> shapes.Batch:
    """This process's share of a batch (see `to_batch`), put where `batch_sharding` says."""
    check_batch_size(len(arrays["mask"]) * jax.process_count(), mesh)
    sharding = batch_sharding(mesh)
    return to_batch(arrays, lambda x: jax.make_array_from_process_local_data(sharding, x))
