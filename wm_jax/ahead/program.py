"""The real training step, compiled for chips that are not here, and what it needs of them.

The step, the optimiser, the shardings and the batch are those of `wm_jax.train`; of arrays there
are only shapes. libtpu holds the compiler; without a TPU it compiles for a described topology.
"""

from __future__ import annotations

import contextlib
import importlib.util
import math
import os
import re
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from data_pipelines import window
from wm_jax import flops, optim, train_step
from wm_jax import mesh as meshes
from wm_jax.ahead.chips import Topology
from wm_jax.errors import MissingExtra, UserError
from wm_jax.mesh_choice import Needs
from wm_jax.nn.compute import made_for
from wm_jax.shapes import HEAD_FIELDS, Batch
from wm_jax.train_step import state_size


class Program(NamedTuple):
    """A compiled step.

    parameters:  how many weights
    memory:      bytes on one chip by kind: arguments, outputs, shared (outputs in the place of
                 arguments), temporaries, code; of a step that does not fit only some, and 'total'
    limit:       bytes that the compiler has on one chip; None where it did not say so
    flops, model_flops: of matrix products, all chips; with and without what is computed anew
    xla_flops, xla_bytes: XLA's own count on one chip, where the body of a loop counts once
    text:        HLO; empty where the step does not fit
    """

    parameters: int
    memory: dict[str, int]
    limit: int | None
    flops: float
    model_flops: float
    xla_flops: float
    xla_bytes: float
    text: str
    compile_seconds: float

    @property
    def fits(self) -> bool:
        return bool(self.text)

    @property
    def hbm_bytes(self) -> int:
        """On one chip, at the step's dearest moment."""
        return self.memory["total"]


def devices(topology: Topology) -> list[Any]:
    """The chips of a topology as JAX's devices, of which none is here."""
    if importlib.util.find_spec("libtpu") is None:
        raise MissingExtra("libtpu", "libtpu")
    # libtpu would ask a cloud what machine this is, and keep others from compiling beside it.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    from jax.experimental import topologies

    try:
        with _quiet():
            found = topologies.get_topology_desc(platform="tpu", topology_name=topology.name)
    except Exception as error:  # whatever libtpu throws
        raise UserError(
            f"libtpu does not describe {topology.name} ({_first_line(error)}); choose another "
            "--topology, or install the libtpu that goes with jax: pip install 'wm_jax[libtpu]'."
        ) from None
    return list(found.devices)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """What libtpu logs as it starts (that it is on no TPU) goes nowhere."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def compile_step(config: Any, mesh: Mesh, batch_size: int) -> Program:
    """The step of ``config`` at ``batch_size`` windows an update, compiled for ``mesh``."""
    meshes.check_batch_size(batch_size, mesh)
    with made_for("tpu"):
        return _compile(config, mesh, batch_size)


def _compile(config: Any, mesh: Mesh, batch_size: int) -> Program:
    step, state, batch = _step(config, config.model.remat, mesh, batch_size)
    plain = step if config.model.remat == "none" else _step(config, "none", mesh, batch_size)[0]
    model_flops = _flops(plain, state, batch)
    parameters = sum(x.size for x in jax.tree.leaves(state.params))
    try:
        compiled, cost = train_step.compile_train_step(step, state, batch, mesh)
    except jax.errors.JaxRuntimeError as error:
        refusal = out_of_memory(str(error))
        if refusal is None:
            raise
        memory, limit = refusal
        if "total" not in memory:
            memory["arguments"] = _bytes_on_one_chip((state, batch))
            memory["total"] = sum(memory.values())
        counts = _flops(step, state, batch), model_flops
        return Program(parameters, memory, limit, *counts, 0.0, 0.0, "", 0.0)
    analysis = compiled.cost_analysis() or {}
    return Program(
        parameters,
        _memory(compiled.memory_analysis()),
        None,
        cost.flops,
        model_flops,
        analysis.get("flops", 0.0),
        analysis.get("bytes accessed", 0.0),
        compiled.as_text(),
        cost.compile_seconds,
    )


def needs(config: Any, batch_size: int) -> Needs:
    """What a mesh for ``config`` is chosen by; no weight is made."""
    from wm_jax.models import build

    model = config.model
    targets = tuple(HEAD_FIELDS[name] for name in model.heads)
    first = meshes.to_batch(window.blank(1, 2, model.resolution, targets, model.readout))
    optimizer = optim.make_optimizer(config.optim)
    return Needs(*state_size(build(model), optimizer, first, config.train.ema), batch_size)


def _step(config: Any, remat: str, mesh: Mesh, batch_size: int) -> tuple[Any, Any, Batch]:
    """The function, its state and its batch, as `wm_jax.train` makes them but without arrays."""
    from wm_jax.models import build

    section = config.model.copy_and_resolve_references()
    section.remat = remat
    model, train = build(section), config.train
    optimizer = optim.make_optimizer(config.optim)
    targets = tuple(HEAD_FIELDS[name] for name in section.heads)
    shape = section.resolution, targets, section.readout, bool(config.data.paraphrases)
    streams = batch_size if train.carry_state else 0
    first = meshes.to_batch(window.blank(1, 2, *shape))
    state = train_step.abstract_state(
        model, optimizer, first, config.seed, mesh, train.ema, streams
    )

    def described(x: np.ndarray) -> Any:
        sharding = meshes.batch_sharding(mesh, frames=meshes.is_frames(x.shape))
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)

    batch = meshes.to_batch(window.blank(batch_size, config.data.window, *shape), described)
    only = tuple(config.optim.only)
    function = train_step.make_train_step(model, optimizer, train.ema, config.data.window, only)
    return function, state, batch


def _flops(step: Any, state: Any, batch: Batch) -> float:
    traced = jax.jit(step).trace(state, batch, np.float32(0))
    return flops.matmul_cost(traced.jaxpr.jaxpr)[0]


def _memory(stats: Any) -> dict[str, int]:
    kinds = {
        "arguments": stats.argument_size_in_bytes,
        "outputs": stats.output_size_in_bytes,
        "shared": stats.alias_size_in_bytes,
        "temporaries": stats.temp_size_in_bytes,
        "code": stats.generated_code_size_in_bytes,
    }
    return kinds | {"total": sum(kinds.values()) - 2 * kinds["shared"]}


def _bytes_on_one_chip(tree: Any) -> int:
    """Of described arrays, as they are split."""
    leaves = jax.tree.leaves(tree)
    return sum(math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in leaves)


def out_of_memory(message: str) -> tuple[dict[str, int], int] | None:
    """Bytes that a step would need on one chip, and bytes that there are, off the compiler's
    refusal: either of all it holds ('total') or, where those alone are too many, of 'temporaries'.
    None where it refused for another reason."""
    size = r"([\d.]+)([KMGT])"
    forms = {
        "total": rf"Used {size} of {size} hbm",
        "temporaries": rf"HLO temporaries \({size}\) exceeds available HBM \({size}\)",
    }
    unit = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
    for kind, form in forms.items():
        match = re.search(form, message)
        if match:
            used, there = float(match[1]) * unit[match[2]], float(match[3]) * unit[match[4]]
            return {kind: int(used)}, int(there)
    return None


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
