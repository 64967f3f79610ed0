"""Checkpoints that are whole or not there: Orbax writes them, a manifest of digests proves them.

``workdir/checkpoints/<step>/`` holds four named items (``weights``, ``optimizer``, ``data``,
``config``) and ``manifest.json`` (see `wm_jax.manifest`), which is written last. A step without one
was never finished, one whose files differ from it is damaged. Neither is restored: the newest whole
step is.
"""

from __future__ import annotations

import errno
import json
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import orbax.checkpoint.experimental.v1 as ocp
from jaxtyping import PyTree
from ml_collections import ConfigDict

from wm_jax import config as configs
from wm_jax import manifest
from wm_jax.errors import UserError
from wm_jax.manifest import damage, folder, steps
from wm_jax.remote import Mirror, fetched
from wm_jax.train_step import TrainState

_PARTIAL = "orbax-checkpoint-tmp"


class Restored(NamedTuple):
    state: TrainState
    position: dict[str, Any]
    step: int


class Keep(NamedTuple):
    """Which checkpoints stay: the newest ``last``; those of every ``every``-th update (0: none);
    the one whose clip scored highest in the metric ``best`` ('': none)."""

    last: int = 2
    every: int = 0
    best: str = ""

    def drop(self, there: list[int], scores_of: Callable[[int], dict[str, float]]) -> list[int]:
        """Which of the steps ``there`` (ascending) may go; ``scores_of`` a step are its clip's."""
        stay = set(there[-self.last :])
        if self.every:
            stay |= {step for step in there if step % self.every == 0}
        if self.best:
            scores = {step: scores_of(step) for step in there}
            judged = [step for step in there if self.best in scores[step]]
            stay |= {max(judged, key=lambda step: scores[step][self.best])} if judged else set()
        return [step for step in there if step not in stay]


class Checkpoints:
    """The checkpoints of one run, for the process that trains: it saves, cleans up and restores.

    ``notes`` collects sentences about what was found damaged; the caller shows them. Whole steps
    are copied to ``mirror`` as well, if there is one.
    """

    def __init__(self, workdir: str | Path, keep: Keep | None = None, mirror: Mirror | None = None):
        self.directory = folder(workdir)
        self.directory.mkdir(parents=True, exist_ok=True)
        self.notes: list[str] = []
        self._keep, self._mirror = keep or Keep(), mirror
        self._writer: threading.Thread | None = None
        self._error: BaseException | None = None
        if jax.process_index() == 0:
            _remove_partial(self.directory)

    def save(
        self,
        state: TrainState,
        position: dict[str, Any],
        config: ConfigDict,
        scores: dict[str, float] | None = None,
    ) -> Path:
        """Starts writing; the files are whole once `wait` returns. Arrays are copied before this
        returns, so ``state`` may be donated at once. ``scores`` are those of this update's clip. A
        failure of the save before this one is raised here."""
        self.wait()
        path = self.directory / str(int(state.step))
        items = _items(state)
        arrays = {name: _describe(item) for name, item in items.items()}
        items |= {"data": position, "config": json.loads(configs.to_json(config))}
        try:
            with _context():
                response = ocp.save_checkpointables_async(path, items, overwrite=True)
        except (OSError, ValueError) as error:
            raise self._explain(error, path) from error
        self._writer = threading.Thread(target=self._finish, args=(response, path, arrays, scores))
        self._writer.start()
        return path

    def wait(self) -> None:
        """Until the save in progress is on disk. Raises what went wrong with it."""
        if self._writer is not None:
            self._writer.join()
            self._writer = None
        error, self._error = self._error, None
        if error is not None:
            raise error

    def copy(self) -> None:
        """To the mirror, what it lacks: of a run that is being written, by its writer alone."""
        if self._mirror is not None:
            self._mirror.push(self._keep.drop)

    def newest(self) -> int | None:
        """The newest whole step. Damaged steps are set aside as ``<step>.damaged`` and noted."""
        for step in reversed(steps(self.directory)):
            problem = damage(self.directory / str(step))
            if problem is None:
                return step
            self.notes.append(f"checkpoint {self.directory / str(step)} {problem}; it is set aside")
            if jax.process_index() == 0:
                aside = self.directory / f"{step}.damaged"
                shutil.rmtree(aside, ignore_errors=True)
                (self.directory / str(step)).rename(aside)
        return None

    def restore(self, step: int, like: TrainState) -> Restored:
        """The state at ``step``, on the shardings of ``like`` (arrays or ShapeDtypeStructs).

        Raises `UserError` where a name, shape or dtype differs: Orbax would cast silently.
        """
        path = self.directory / str(step)
        wanted = _items(like)
        there = manifest.read(path)["arrays"]
        _compare(path, there, {name: _describe(item) for name, item in wanted.items()})
        abstract = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), wanted
        )
        with _context():
            loaded = ocp.load_checkpointables(path, abstract | {"data": None})
        weights, rest = loaded["weights"], loaded["optimizer"]
        state = TrainState(**rest, params=weights["params"], ema=weights.get("ema"))
        return Restored(state, loaded["data"], step)

    def _scores(self, step: int) -> dict[str, float]:
        return manifest.scores(self.directory / str(step))

    def _finish(
        self,
        response: Any,
        path: Path,
        arrays: dict[str, dict[str, str]],
        scores: dict[str, float] | None,
    ) -> None:
        """In the writer's thread: wait for Orbax, prove the files, drop what is old."""
        try:
            response.result()
            if jax.process_index() == 0:
                manifest.write(path, arrays, scores or {})
                for step in self._keep.drop(steps(self.directory), self._scores):
                    shutil.rmtree(self.directory / str(step))
                self.copy()
        except BaseException as error:  # noqa: BLE001, handed to the caller by `wait`
            self._error = self._explain(error, path)

    def _explain(self, error: BaseException, path: Path) -> BaseException:
        """A full disk as one sentence; anything else as it is. Half a checkpoint is removed."""
        full = "RESOURCE_EXHAUSTED" in str(error) or "No space left" in str(error)
        if not full and getattr(error, "errno", None) != errno.ENOSPC:
            return error
        _remove_partial(self.directory)
        if not (path / manifest.MANIFEST).exists():
            shutil.rmtree(path, ignore_errors=True)
        older = steps(self.directory)
        kept = (
            f"the newest whole one is {self.directory / str(older[-1])}"
            if older
            else ("there is none before it")
        )
        return UserError(
            f"the disk is full: checkpoint {path} could not be written; {kept}. Free some space "
            "and run the same command to go on."
        )


def restore_params(workdir: str | Path, step: int | None = None) -> tuple[PyTree, ConfigDict, int]:
    """(weights, config, step) of the newest whole checkpoint, or of ``step``, on one device.

    The averaged weights where the run kept them. Reads only, so a run may be going on meanwhile. Of
    a workdir that is a URL, its newest step and ``step`` are here afterwards.
    """
    directory = folder(fetched(workdir, step))
    found = [s for s in reversed(steps(directory)) if step in (None, s)]
    whole = next((s for s in found if damage(directory / str(s)) is None), None)
    if whole is None:
        which = "whole checkpoint" if step is None else f"whole checkpoint of step {step}"
        raise UserError(
            f"{workdir} holds no {which}; train there first: "
            f"wm-jax train --config experiments/configs/twins.py:small --workdir {workdir}"
        )
    path = directory / str(whole)
    arrays = manifest.read(path)["arrays"]["weights"]
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    abstract: dict[str, Any] = {}
    for name, text in arrays.items():
        *parents, last = name.split("/")
        node = abstract
        for parent in parents:
            node = node.setdefault(parent, {})
        dtype, _, shape = text.partition(" ")
        node[last] = jax.ShapeDtypeStruct(tuple(json.loads(shape)), dtype, sharding=device)
    with _context():
        loaded = ocp.load_checkpointables(path, {"weights": abstract, "config": None})
    weights = loaded["weights"]
    config = configs.from_json(json.dumps(loaded["config"]))
    return weights.get("ema", weights["params"]), config, whole


def name_of(path: Any) -> str:
    """An array's name in checkpoints, of its path in a tree: 'decoder/kernel'."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _context() -> ocp.Context:
    """Orbax with our two JSON items as JSON; by itself it would store each number as an array."""
    registry = ocp.handlers.local_registry()
    for name in ("data", "config"):
        registry.add(ocp.handlers.JsonHandler, checkpointable_name=name)
    context = ocp.Context()
    context.checkpointables.registry = registry
    return context


def _items(state: TrainState) -> dict[str, Any]:
    weights = {"params": state.params}
    if state.ema is not None:
        weights["ema"] = state.ema
    rest = {"step": state.step, "key": state.key, "opt_state": state.opt_state}
    if state.handover is not None:
        rest["handover"] = state.handover
    return {"weights": weights, "optimizer": rest}


def _describe(tree: PyTree) -> dict[str, str]:
    """Path of every array -> 'float32 [3, 4]'."""

    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {name_of(path): f"{leaf.dtype} {list(leaf.shape)}" for path, leaf in leaves}


def _compare(path: Path, there: dict[str, Any], here: dict[str, Any]) -> None:
    for item in here:
        for name in sorted(here[item].keys() | there[item].keys()):
            old, new = there[item].get(name, "absent"), here[item].get(name, "absent")
            if old != new:
                raise UserError(
                    f"checkpoint {path} does not fit this model: {name} is {old} there and {new} "
                    "here; use the config it was made with, or a new workdir."
                )


def _remove_partial(directory: Path) -> None:
    for path in directory.glob(f"*{_PARTIAL}*"):
        shutil.rmtree(path, ignore_errors=True)
