"""Physion's object contact prediction: a logistic read-out of frozen states, by scenario.

Videos have 30 frames a second. A model sees every third of the first 1.5 s (of Collide of the first
0.5 s, which is all that people saw of it), scaled to its own resolution: for a model from outside
its attribute ``resolution``, 64 px without one. Then it imagines 3.5 s. Two read-outs are fitted on
the readout split of each scenario: of states that saw frames (``observed``), and of those and the
imagined ones (``rollout``).

Sources of the rules: README of cogtoolslab/physics-benchmarking-neurips2021 (read-outs of each
scenario by itself); experiments/collision_pilot/js/setup.js there and dataloader_mp4s.py of
neuroailab/physion_evaluator (15 frames of Collide, 45 of the others); train_readout.py of the
latter (standardised states, L2, five stratified folds); rollout_physion_slots.py of
pairlab/SlotFormer (30 frames a second) and its slotformer_physion_params.py (every third).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image

from wm_jax.errors import UserError
from wm_jax.evaluation import logistic, statistics
from wm_jax.evaluation.benchmarks import physion
from wm_jax.evaluation.benchmarks.physion import SCENARIOS, Scenario, Stimulus
from wm_jax.evaluation.benchmarks.readout_spec import Column, Judged, ReadOutBenchmark
from wm_jax.evaluation.benchmarks.readout_states import (
    PIXELS,
    Gathered,
    Key,
    States,
    clips_of,
    readers,
)
from wm_jax.evaluation.benchmarks.video import read_video
from wm_jax.evaluation.judge import Readable
from wm_jax.evaluation.probe_states import Reader
from wm_jax.evaluation.protocol import ProbeProtocol, split_hash
from wm_jax.evaluation.rows import Row, make_rows
from wm_jax.evaluation.statistics import Sums
from wm_jax.evaluation.suite import BATCH
from wm_jax.evaluation.world import Clips
from wm_jax.progress import Progress

OBSERVED, ROLLOUT = "observed", "rollout"
MAJORITY: Key = ("majority", None)
DEFAULT_SIZE = 64  # px


@dataclasses.dataclass(frozen=True)
class PhysionProtocol(ProbeProtocol):
    """What is seen, when states are read, and what a read-out is. Frames are those of the model:
    every ``stride``-th of the video."""

    suite: str = "physion"
    world: str = "Physion"
    starts: tuple[int, ...] = (0,)
    context: int = 15
    horizon: int = 35
    stride: int = 3  # frames of the video for each that is seen
    scenarios: tuple[str, ...] = SCENARIOS
    collide_looks: tuple[int, ...] = (1, 2, 3, 4, 5)
    looks: tuple[int, ...] = (3, 6, 9, 12, 15)
    ahead: tuple[int, ...] = (5, 10, 15, 20, 25, 30, 35)
    train_starts: tuple[int, ...] = (0,)
    train_share: int = 8  # readout stimuli of a scenario for each that is scored
    probes: tuple[str, ...] = ("logistic",)
    penalties: tuple[float, ...] = logistic.PENALTIES
    folds: int = logistic.FOLDS
    reduction: str = (
        "States after `looks` frames (of Collide: collide_looks) and, imagined, `ahead` steps "
        "later are projected by one fixed random matrix and put side by side: observed are the "
        "former, rollout all of them. A logistic regression for each scenario, fitted on its "
        "readout stimuli (L2, its strength by stratified cross-validation on the log-loss), says "
        "whether the red object touches the yellow one at any time. accuracy: share of test "
        "stimuli told right at a chance of a half, of all scenarios together; accuracy_SCENARIO of "
        "one. Stimuli that the authors found faulty are left out. Controls: the same network with "
        "random weights; only the last frame shown at each look; labels of other stimuli of the "
        "scenario; the last seen frame's pixels; the commoner label. Intervals by bootstrap over "
        "stimuli. Of a stochastic model one sample."
    )

    def of(self, scenario: str) -> PhysionProtocol:
        """The rules of one scenario."""
        if scenario != "Collide":
            return self
        looks = self.collide_looks
        return dataclasses.replace(self, looks=looks, context=looks[-1])


#: Whether each test stimulus is told right: by who tells, from which states ("" of none), scenario.
Right = dict[tuple[Key, str], dict[str, Bool[np.ndarray, " r"]]]


def judge(
    runs: Mapping[str, Readable], folder: Path, episodes: int, rules: PhysionProtocol | None = None
) -> Judged:
    """Rows of every model and control; see `physion` for the folder. ``episodes`` is at most so
    many test stimuli of each scenario."""
    rules = rules or PhysionProtocol()
    most = rules.train_share * episodes
    stimuli = physion.scenarios_of(folder, most, episodes)
    rules = dataclasses.replace(
        rules, resolution=size_of(runs), episodes=episodes, train_episodes=most,
        scenarios=tuple(stimuli),
    )  # fmt: skip
    made: dict[PhysionProtocol, dict[Key, Reader]] = {}
    for name in stimuli:
        if rules.of(name) not in made:
            made[rules.of(name)] = readers(runs, rules.of(name))
    each = len(made[rules.of(next(iter(stimuli)))])
    total = each * sum(len(split) for scenario in stimuli.values() for split in scenario)
    right: Right = {}
    first, done = [], 0
    with Progress(total, "physion", "videos") as progress:
        for name, scenario in stimuli.items():

            def tell(count: int, model: str, name: str = name) -> None:
                nonlocal done
                done += count
                progress.update(done, scenario=name, model=model)

            gather = Gathered(made[rules.of(name)], rules.of(name))
            train, _ = gather(_batches(scenario.readout, rules.of(name)), tell)
            test, seen = gather(_batches(scenario.test, rules.of(name)), tell)
            first.append(seen)
            for key, told in _tell(train, test, scenario, list(runs), rules.of(name)).items():
                right.setdefault(key, {})[name] = told
    rules = dataclasses.replace(rules, split_hash=split_hash(np.concatenate(first)))
    return Judged(rules, _rows(right, runs, rules))


def size_of(runs: Mapping[str, Readable]) -> int:
    """The resolution that all models want, in px. Raises `UserError` where they differ."""
    sizes: dict[int, str] = {}
    for name, run in runs.items():
        config, model = getattr(run, "config", None), getattr(run, "model", None)
        size = getattr(model, "resolution", None) if config is None else config.model.resolution
        if size is not None:
            sizes[int(size)] = name
    if len(sizes) > 1:
        (one, a), (two, b), *_ = sizes.items()
        raise UserError(f"{a} is a model of {one} px and {b} of {two} px; score them one by one.")
    return next(iter(sizes), DEFAULT_SIZE)


def _batches(stimuli: Sequence[Stimulus], rules: PhysionProtocol) -> Iterator[Clips]:
    for begin in range(0, len(stimuli), BATCH):
        some = stimuli[begin : begin + BATCH]
        frames = np.stack([_frames(one.path, rules) for one in some])
        yield clips_of(frames, rules.length)


def _frames(path: Path, rules: PhysionProtocol) -> UInt8[np.ndarray, "t h w 3"]:
    numbers = range(0, rules.context * rules.stride, rules.stride)
    size = (rules.resolution,) * 2
    # Pillow's filter widens as it shrinks, so that thin things don't flicker.
    return np.stack(
        [
            np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BILINEAR))
            for frame in read_video(path, numbers)
        ]
    )


def _tell(
    train: States, test: States, scenario: Scenario, tested: Sequence[str], rules: PhysionProtocol
) -> dict[tuple[Key, str], Bool[np.ndarray, " r"]]:
    """Which test stimuli of a scenario each read-out tells right."""
    label, truth = (np.array([one.touch for one in split]) for split in scenario)
    order = np.random.default_rng(rules.seed).permutation(len(label))
    out = {(MAJORITY, ""): (label.mean() >= 0.5) == truth}
    for key in [*train, *((name, "shuffled_labels") for name in tested)]:
        shuffled = key[1] == "shuffled_labels"
        of = (key[0], None) if shuffled else key
        y = label[order] if shuffled else label
        for variant, moments in _moments(key, rules).items():
            x, other = (_side_by_side(states[of], moments) for states in (train, test))
            chances = logistic.fit(x, y, rules.seed, rules.penalties, rules.folds)
            out[key, variant] = (chances(other) > 0.5) == truth
    return out


def _moments(key: Key, rules: PhysionProtocol) -> dict[str, slice]:
    """Which of a reader's states a read-out gets. The last frame's pixels are one state."""
    looks = len(rules.looks)
    if key == PIXELS:
        return {OBSERVED: slice(looks - 1, looks)}
    return {OBSERVED: slice(0, looks), ROLLOUT: slice(0, looks + len(rules.ahead))}


def _side_by_side(states: Float[np.ndarray, "r s w"], moments: slice) -> Float[np.ndarray, "r k"]:
    return states[:, moments].reshape(len(states), -1)


def _rows(right: Right, runs: Mapping[str, Readable], rules: PhysionProtocol) -> list[Row]:
    rows: list[Row] = []
    for ((model, control), variant), told in right.items():
        parts = {"accuracy": np.concatenate(list(told.values()))}
        parts |= {f"accuracy_{name.lower()}": each for name, each in told.items()}
        for metric, each in parts.items():
            value = each[:, None].astype(np.float64)
            estimate = statistics.estimate(Sums(value, np.ones_like(value)), rules.seed)
            rows += make_rows(
                estimate, rules, model=model, metric="_".join([metric, variant]).strip("_"),
                unit="1", control=control, seed=runs[model].seed if model in runs else None,
                steps=[0],
            )  # fmt: skip
    return rows


#: Share of answers that are right; see ``source`` below.
PEOPLE = {
    "accuracy_dominoes": 0.693,
    "accuracy_support": 0.763,
    "accuracy_collide": 0.809,
    "accuracy_contain": 0.767,
    "accuracy_drop": 0.744,
    "accuracy_link": 0.643,
    "accuracy_roll": 0.883,
    "accuracy_drape": 0.678,
}

PHYSION = ReadOutBenchmark(
    name="physion",
    about=(
        "Physion (Bear et al. 2021, arXiv 2106.08261), object contact prediction: will the red "
        "object touch the yellow one?"
    ),
    files=(
        "PhysionTestMP4s/SCENARIO/mp4s-redyellow/*.mp4 and labels.csv, "
        "PhysionTrainMP4s/SCENARIO_readout_MP4s/*.mp4 and readout_labels.csv"
    ),
    judge=judge,
    variants={
        OBSERVED: "Read from the states that saw frames",
        ROLLOUT: "Read from those and the imagined ones",
    },
    columns=(
        Column("accuracy", "all", ".1%"),
        *(Column(f"accuracy_{name.lower()}", name, ".1%") for name in SCENARIOS),
    ),
    dots="Share of test stimuli told right",
    range=(0.3, 1.0),
    differs=(
        "States are those at five moments while it sees and seven while it imagines, each "
        "projected to 256 numbers; the authors give the read-out every state as it is.",
        "The read-out learns from at most eight stimuli of a scenario for each that is scored, so "
        "from all of the 1,000 or so only with --episodes 150 (every test stimulus).",
        "Its penalty is chosen by log-loss in cross-validation, in the authors' train_readout.py "
        "by accuracy.",
        "SlotFormer fits one read-out to all scenarios, shows 45 frames of Collide, too, and "
        "reports the best of several thresholds and weights; ours is one number at a half.",
    ),
    published={
        "people": {"accuracy": 0.747, **PEOPLE},
        "RPIN": {"accuracy_observed": 0.628, "accuracy_rollout": 0.638},
        "pDEIT-lstm": {"accuracy_observed": 0.592, "accuracy_rollout": 0.600},
        "SlotFormer": {"accuracy_observed": 0.652, "accuracy_rollout": 0.671},
    },
    source=(
        "Published: people, results/csv/summary/human_accuracy_by_scenario.csv of "
        "cogtoolslab/physics-benchmarking-neurips2021 (for all the mean of the eight); models, "
        "SlotFormer (Wu et al. 2023, arXiv 2210.05861), table 4, the first two made anew by its "
        "authors. RPIN is told true bounding boxes. Physion's own table of models "
        "(model_human_accuracy_by_scenario.csv) averages over read-outs that saw the whole video, "
        "so it is left out."
    ),
)
