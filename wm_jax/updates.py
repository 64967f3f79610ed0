"""The update as compiled programs, one for each window of the curriculum: made, or found.

To start a run again, nearly all the time goes into tracing a model that was traced before. So a
start leaves behind which programs it needed (`wm_jax.kept` has them), and one like it (`key_of`)
loads those: nothing is traced, neither the update nor the state it takes. One process alone does
so; those of a run on several hosts trace.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import sys
import sysconfig
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh, NamedSharding

from wm_jax import config as configs
from wm_jax import kept, train_step
from wm_jax.shapes import Batch
from wm_jax.train_step import Cost, TrainState

START = "start"
#: Knobs that no program depends on.
OUTSIDE = (
    *("seed", "data.directory", "data.loader", "data.workers", "data.corrupt_budget", "eval."),
    *("train.steps", "train.minutes", "train.log_", "train.checkpoint_", "train.keep"),
    *("train.clip_", "train.recover_", "train.spike_", "train.hang_", "train.init_"),
)


class Updates(NamedTuple):
    """Programs ``(state, batch, rate) -> (state, metrics)`` by the frames of their windows, the
    shapes and shardings of ``state``, what an update costs, and whether they were found."""

    programs: dict[int, Any]
    state: TrainState
    cost: Cost
    loaded: bool = False


class _Leaf(NamedTuple):
    """An array of the state, without the devices it lies on."""

    shape: tuple[int, ...]
    dtype: Any
    spec: Any


def make(
    model: Any,
    optimizer: Any,
    ema: float,
    windows: Sequence[int],
    state: TrainState,
    batch: Batch,
    mesh: Mesh,
    key: str | None = None,
    only: tuple[str, ...] = (),
) -> Updates:
    """The programs, compiled; left for a start of the same ``key``, if there is one."""
    programs, names, seconds = {}, [], 0.0
    options = train_step.compiler_options(model, mesh)

    def compiled(lowered: Any) -> Any:
        if key is None:
            return lowered.compile()
        program, name = kept.compiled(lowered, mesh, options)
        names.append(name)
        return program

    for frames in windows:
        step = train_step.make_train_step(model, optimizer, ema, frames, only)
        programs[frames], cost = train_step.compile_train_step(
            step, state, batch, mesh, compiled, options
        )
        seconds += cost.compile_seconds
    cost = cost._replace(compile_seconds=round(seconds, 2))
    if names and all(kept.path_of(kept.PROGRAM, name).exists() for name in names):
        leaves = jax.tree.map(lambda x: _Leaf(x.shape, x.dtype, x.sharding.spec), state)
        kept.write(START, str(key), (dict(zip(windows, names, strict=True)), leaves, cost))
    like = lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding)  # noqa: E731
    return Updates(programs, jax.tree.map(like, state), cost)


def find(key: str | None, mesh: Mesh) -> Updates | None:
    """What a start of this ``key`` left, or None."""
    begin = time.monotonic()
    start = None if key is None else kept.read(START, key)
    if start is None:
        return None
    names, leaves, cost = start
    programs = {frames: kept.load(name, mesh) for frames, name in names.items()}
    if None in programs.values():
        return None

    def like(leaf: _Leaf) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=NamedSharding(mesh, leaf.spec))

    state = jax.tree.map(like, leaves, is_leaf=lambda x: isinstance(x, _Leaf))
    seconds = round(time.monotonic() - begin, 2)
    return Updates(programs, state, cost._replace(compile_seconds=seconds), loaded=True)


def key_of(config: Any, mesh: Mesh) -> str | None:
    """A digest of all that a start depends on: the config, the code, and what is around them.
    None where nothing can be kept: without a cache on a disk, and on several processes."""
    if kept.folder() is None or jax.process_count() > 1:
        return None
    told = {k: v for k, v in configs.flat(config).items() if not k.startswith(OUTSIDE)}
    text = json.dumps(told, sort_keys=True, default=repr)
    return kept.digest(text, _code(config.model.name), kept.surroundings(mesh))


def _code(backbone: str) -> str:
    """A digest of this package, and of every loaded module that is no installed one: a backbone
    may come from anywhere. Installed ones are known by their versions."""
    from wm_jax.models.dynamics import DYNAMICS

    own = Path(__file__).parent
    places = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    known = (*places, str(own), str(own.parent / "data_pipelines"))
    files: list[str | None] = [getattr(m, "__file__", None) for m in list(sys.modules.values())]
    files.append(inspect.getfile(DYNAMICS[backbone]))
    others = {f for f in files if f and f.endswith(".py") and not f.startswith(known)}
    digest = hashlib.sha256()
    for path in sorted({str(p) for p in own.rglob("*.py")} | others):
        digest.update(hashlib.sha256(Path(path).read_bytes()).digest())
    return digest.hexdigest()
