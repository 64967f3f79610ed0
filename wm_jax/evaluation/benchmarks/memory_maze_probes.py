"""Memory Maze: read-outs of walls and objects fitted on training trajectories, scored on others."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from wm_jax.errors import UserError
from wm_jax.evaluation import readouts, statistics
from wm_jax.evaluation.benchmarks import memory_maze
from wm_jax.evaluation.benchmarks.memory_maze import Trajectories
from wm_jax.evaluation.benchmarks.readout_spec import Column, Judged, ReadOutBenchmark
from wm_jax.evaluation.benchmarks.readout_states import (
    Gathered,
    Key,
    clips_of,
    readers,
    untold,
)
from wm_jax.evaluation.benchmarks.scoring import told_of
from wm_jax.evaluation.judge import Readable
from wm_jax.evaluation.probe_states import Reader
from wm_jax.evaluation.protocol import ProbeProtocol, split_hash
from wm_jax.evaluation.readouts import Examples, Features, Tuning
from wm_jax.evaluation.rows import Row, make_rows
from wm_jax.evaluation.statistics import Estimate, Sums
from wm_jax.evaluation.world import Clips
from wm_jax.progress import Progress

BATCH = 8  # trajectories in memory at once: a thousand frames each
AT_ONCE = 512  # states read out at once: an mlp for each cell is much
LEAST = 5  # training trajectories of which a fifth is one
#: Not read off any state: the mean of the training trajectories; nothing but the agent's pose.
CONSTANT: Key = ("constant", None)
POSE: Key = ("pose_alone", None)


@dataclasses.dataclass(frozen=True)
class MazeProtocol(ProbeProtocol):
    """Which moments are looked at, and from which on they count."""

    suite: str = "memory_maze"
    split: str = "eval"
    starts: tuple[int, ...] = (0,)
    context: int = 1000
    horizon: int = 0
    train_starts: tuple[int, ...] = (0,)
    train_share: int = 8  # training trajectories for each that is scored
    looks: tuple[int, ...] = (100, 200, 300, 400, 500, 600, 700, 800, 900, 1000)
    ahead: tuple[int, ...] = ()
    probes: tuple[str, ...] = ("linear", "mlp")
    warm_up: int = 500  # frames seen before a moment counts in step 0
    reduction: str = (
        "States after `looks` frames of training trajectories are standardised, projected by one "
        "fixed random matrix and read out by least squares: the walls (0 or 1 for each cell, with "
        "the agent's place and direction beside the state; above a half counts as 1) and the "
        "objects in cells, as the agent sees them (the state alone). walls_accuracy: share of "
        "cells that are right. objects_mse: squared distance, mean over objects; objects_rmse its "
        "root. Of held-out trajectories; step 0: all moments from warm_up on, others: after so "
        "many frames. Controls: the same network with random weights; only the last frame shown; "
        "labels of other examples; the last frame's pixels; the pose alone; the training mean. "
        "Intervals by bootstrap over trajectories. Of a stochastic model one sample."
    )


@dataclasses.dataclass
class Split:
    """States of some trajectories, what is true of them, and the first frame of each."""

    states: dict[Key, Float[np.ndarray, "r s w"]]
    layout: Float[np.ndarray, "r s c"]
    objects: Float[np.ndarray, "r s o 2"]
    pose: Float[np.ndarray, "r s 4"]
    first: np.ndarray


def judge(
    runs: Mapping[str, Readable], folder: Path, episodes: int, rules: MazeProtocol | None = None
) -> Judged:
    """Rows of every model and control; see `memory_maze` for the folder."""
    rules = rules or MazeProtocol()
    most = {"train": rules.train_share * episodes, "eval": episodes}
    files = {split: memory_maze.files_of(folder, split, n) for split, n in most.items()}
    if len(files["train"]) < LEAST:
        raise UserError(
            f"{folder}/train has {len(files['train'])} trajectories; read-outs learn from at least "
            f"{LEAST}."
        )
    one = next(memory_maze.batches(files["eval"][:1], rules.context, rules.looks, 1))
    size = _check_size(runs, one, folder)
    rules = dataclasses.replace(
        rules, resolution=size, episodes=episodes, train_episodes=most["train"],
        world=f"Memory Maze, {one.layout.shape[-1]} cells, {one.objects.shape[-2]} objects",
    )  # fmt: skip
    told, each = _readers(runs, one, rules)
    gather = Gathered(each, rules)
    total = len(gather.readers) * sum(map(len, files.values()))
    with Progress(total, "memory_maze", "trajectories") as progress:
        done = 0

        def tell(count: int, model: str) -> None:
            nonlocal done
            done += count
            progress.update(done, model=model)

        splits = []
        for paths in files.values():
            some = memory_maze.batches(paths, rules.context, rules.looks, BATCH)
            splits.append(_split(some, gather, tell, rules))
    train, test = splits
    if train.layout.shape[2:] != test.layout.shape[2:]:
        raise UserError(f"{folder} has mazes of one size in 'train' and of another in 'eval'.")
    rules = dataclasses.replace(rules, split_hash=split_hash(test.first))
    return Judged(rules, _score(train, test, runs, rules), told)


def _check_size(runs: Mapping[str, Readable], some: Trajectories, folder: Path) -> int:
    size = some.frames.shape[2]
    for run in runs.values():
        config = getattr(run, "config", None)
        if config is not None and config.model.resolution != size:
            raise UserError(
                f"{getattr(run, 'workdir', '')} is a model of {config.model.resolution} px and the "
                f"images of {folder} have {size} px; train one with "
                f"--config.model.resolution={size}."
            )
    return size


def _readers(
    runs: Mapping[str, Readable], one: Trajectories, rules: MazeProtocol
) -> tuple[list[str], dict[Key, Reader]]:
    """The models that can be told the actions, and readers of all that tell the others none."""
    clips = clips_of(one.frames, rules.context, one.actions)
    told = [name for name, run in runs.items() if told_of(run, clips)]
    made = readers(runs, rules)
    return told, {key: x if key[0] in told else untold(x) for key, x in made.items()}


def _split(each: Iterable[Trajectories], gather: Gathered, tell, rules: MazeProtocol) -> Split:
    kept: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []

    def clips() -> Iterable[Clips]:
        for some in each:
            kept.append((some.layout, some.objects, some.pose))
            yield clips_of(some.frames, rules.context, some.actions)

    states, first = gather(clips(), tell)
    layout, objects, pose = (np.concatenate(x) for x in zip(*kept, strict=True))
    return Split(states, layout, objects, pose, first)


def _score(
    train: Split, test: Split, runs: Mapping[str, Readable], rules: MazeProtocol
) -> list[Row]:
    """Rows of all that was gathered, also with labels shuffled, and of what reads no state."""
    walls, objects = train.layout[:, :, None], train.objects
    flat = train.pose.reshape(-1, train.pose.shape[-1])
    mean, scale = flat.mean(0), np.maximum(flat.std(0), 1e-6)
    pose, posed = ((split.pose - mean) / scale for split in (train, test))
    order = np.random.default_rng(rules.seed).permutation(train.layout.shape[0] * len(rules.looks))
    rows: list[Row] = []
    for key in [*train.states, *((name, "shuffled_labels") for name in runs)]:
        name, control = key
        shuffled = order if control == "shuffled_labels" else None
        of = (name, None) if control == "shuffled_labels" else key
        seed = runs[name].seed if name in runs else None
        each, other = train.states[of], test.states[of]
        pair = np.concatenate([each, pose], -1), np.concatenate([other, posed], -1)
        for probe in rules.probes:
            layout = _learn(probe, pair, walls, rules, shuffled)[:, :, 0]
            places = _learn(probe, (each, other), objects, rules, shuffled)
            rows += _rows(key, f"_{probe}", layout, places, test, rules, seed)
    for probe in rules.probes:
        layout = _learn(probe, (pose, posed), walls, rules, None)[:, :, 0]
        rows += _rows(POSE, f"_{probe}", layout, None, test, rules, None)
    layout, places = (x.mean((0, 1)) for x in (train.layout, train.objects))
    return rows + _rows(CONSTANT, "", layout, places, test, rules, None)


def _learn(
    probe: str,
    states: tuple[np.ndarray, np.ndarray],
    value: Float[np.ndarray, "r s h f"],
    rules: MazeProtocol,
    order: np.ndarray | None,
) -> Float[np.ndarray, "q s h f"]:
    """What a read-out, trained on the first states, says of the second ones. ``order``: whose
    labels each example has in place of its own."""
    count, moments = value.shape[:2]
    label = value.reshape(-1, *value.shape[2:])
    label = label if order is None else label[order]
    group = np.repeat(np.arange(count), moments)
    asked = np.ones(label.shape, bool)
    examples = Examples(_features(states[0]), label.astype(np.float64), asked, group)
    tuning = Tuning(rules.hidden, rules.updates, rules.batch, rules.learning_rates)
    read = readouts.fit(probe, examples, tuning, rules.seed)
    flat = states[1].reshape(-1, states[1].shape[-1])
    parts = [read(_features(flat[i : i + AT_ONCE])) for i in range(0, len(flat), AT_ONCE)]
    return np.concatenate(parts).reshape(*states[1].shape[:2], *value.shape[2:])


def _features(states: Float[np.ndarray, "*lead w"]) -> Features:
    whole = jnp.asarray(states.reshape(-1, states.shape[-1]), jnp.float32)
    return Features(whole, jnp.zeros((len(whole), 1, 1)))


def _rows(
    key: Key,
    variant: str,
    walls: Float[np.ndarray, "*r s c"],
    objects: Float[np.ndarray, "*r s o 2"] | None,
    test: Split,
    rules: MazeProtocol,
    seed: int | None,
) -> list[Row]:
    """Step 0: the moments after the warm-up; then each moment, by the frames seen before it."""
    right = ((walls > 0.5) == (test.layout > 0.5)).mean(-1)
    scores = {"walls_accuracy": ("1", right)}
    if objects is not None:
        far = np.square(objects - test.objects).sum(-1).mean(-1)
        scores |= {"objects_mse": ("cell^2", far), "objects_rmse": ("cell", far)}
    counts = np.array(rules.looks) >= rules.warm_up
    rows: list[Row] = []
    for metric, (unit, value) in scores.items():
        late = value[:, counts].mean(1, keepdims=True)
        value = np.concatenate([late, value], 1).astype(np.float64)
        estimate = statistics.estimate(Sums(value, np.ones_like(value)), rules.seed)
        if metric == "objects_rmse":
            mean, low, high = (np.sqrt(x) for x in estimate[:3])
            estimate = Estimate(mean, low, high, estimate.n)
        rows += make_rows(
            estimate, rules, model=key[0], metric=metric + variant, unit=unit, control=key[1],
            seed=seed, steps=[0, *rules.looks],
        )  # fmt: skip
    return rows


MEMORY_MAZE = ReadOutBenchmark(
    name="memory_maze",
    about=(
        "Memory Maze, offline probing (Pasukonis et al. 2022, arXiv 2210.13383): the maze's walls "
        "and where its objects are, read off frozen states."
    ),
    files="train/**/*.npz and eval/**/*.npz, trajectories of 1,001 frames",
    judge=judge,
    variants={probe: f"By the {probe} read-out" for probe in MazeProtocol.probes},
    columns=(
        Column("walls_accuracy", "cells of the layout that are right", ".1%"),
        Column("objects_mse", "objects, squared distance (cells²)", ".2f"),
        Column("objects_rmse", "its root (cells)", ".2f"),
    ),
    curves={
        "walls_accuracy_mlp": "Walls: share of cells, mlp read-out",
        "objects_rmse_mlp": "Objects: root of the squared distance in cells, mlp read-out",
    },
    differs=(
        "The authors train a probe of four layers of 1,024 units, by cross-entropy for the walls, "
        "beside the model and on all 29,000 trajectories; ours are the read-outs of the probes "
        "suite (least squares and a small mlp, on states projected to 256 numbers), fitted "
        "afterwards on eight training trajectories for each that is scored.",
        "Moments are every hundredth frame, not every one; those from frame 500 on count.",
        "A linear read-out can't turn a map that a state holds into another frame of reference by "
        "the pose beside it; the mlp can.",
    ),
    source=(
        "Figures of the paper are left out: none could be checked at its source. Compare with the "
        "controls."
    ),
)
