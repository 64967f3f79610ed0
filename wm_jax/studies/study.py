"""What a study is: a claim, the arms that test it, and how much is spent on each.

A study is a file ``experiments/studies/<name>.py`` that defines ``STUDY``. It holds no logic; what
is wrong with it is told in a sentence before anything runs.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from wm_jax import config as configs
from wm_jax.errors import UserError

STUDIES = Path("experiments/studies")
SCALES = ("smoke", "small", "paper")
TUNING_SEED = 1000  # of the runs that choose a learning rate: no seed of a result

#: What the runner sets, so that no arm gets more than another.
SET_BY_RUNNER = (
    *("seed", "optim.learning_rate", "train.steps", "train.minutes", "train.checkpoint_every"),
    *("train.keep", "train.clip_every", "data.directory", "model.resolution"),
)


@dataclasses.dataclass(frozen=True)
class Claim:
    """What is expected of ``arm`` beside ``against``, written down before it is measured.

    sentence: what is claimed; source: who claims it
    metric:   a key of `wm_jax.evaluation.suite.METRICS`, at ``step`` frames ahead
    expected: 'lower' or 'higher'
    smallest: effect that would matter, in the metric's unit
    """

    sentence: str
    source: str
    arm: str
    against: str
    metric: str
    step: int
    expected: str
    smallest: float


def nearer(arm: str, against: str, step: int, smallest: float, sentence: str, source: str) -> Claim:
    """That ``arm`` misplaces objects less, by more than ``smallest`` px, so many steps ahead."""
    return Claim(sentence, source, arm, against, "position_error", step, "lower", smallest)


@dataclasses.dataclass(frozen=True)
class Arm:
    """Changes to the base config, and the peak learning rates that are tried for them: the same
    number for every arm, the first one where nothing is tuned."""

    changes: Mapping[str, Any]
    rates: tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class Data:
    """A built-in data set, by the arguments of ``wm-jax data build``."""

    world: str
    resolution: int
    train: int
    validation: int
    test: int
    length: int = 64
    test_length: int = 640
    shifted: int = 0
    twins: int | None = None
    seed: int = 0

    def directory(self) -> Path:
        """Where it is kept: a name that tells it from every other."""
        twins = "" if self.twins is None else f"-twins{self.twins}"
        return Path("data/studies") / (
            f"{self.world.replace(':', '-')}-{self.resolution}px-{self.train}x{self.length}"
            f"-{self.validation}-{self.test}x{self.test_length}-{self.shifted}{twins}-{self.seed}"
        )


@dataclasses.dataclass(frozen=True)
class Budget:
    """What every run gets: so many minutes (compiling included), or so many frames. One of them."""

    minutes: float = 0.0
    frames: int = 0

    def changes(self, config: ConfigDict) -> dict[str, Any]:
        """As keys of the config. Frames are those of whole windows."""
        if self.minutes:
            return {"train.minutes": self.minutes, "train.steps": 0}
        an_update = config.train.batch_size * config.data.window
        return {"train.minutes": 0.0, "train.steps": math.ceil(self.frames / an_update)}

    def __str__(self) -> str:
        return f"{self.minutes:g} min" if self.minutes else f"{self.frames:,} frames"


@dataclasses.dataclass(frozen=True)
class Scale:
    """How large a study is run.

    budget:   of every run; tuning: of each of the runs that choose a rate, None: not tuned
    steps:    frames ahead that the table shows and claims speak of
    episodes: of the test split that are judged; starts: frames at which clips begin
    changes:  to every arm, after its own; arms: further ones to single arms
    jobs:     runs at a time, each on its own share of the cores
    quick:    compile without optimising; for a smoke test only
    """

    budget: Budget
    seeds: tuple[int, ...]
    data: Data
    steps: tuple[int, ...]
    horizon: int
    tuning: Budget | None = None
    episodes: int = 32
    starts: tuple[int, ...] = (0, 160, 320, 480)
    context: int = 16
    samples: int = 8
    changes: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    arms: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    jobs: int = 1
    quick: bool = False


@dataclasses.dataclass(frozen=True)
class Study:
    """Claims (the first is the study's own), arms by name, scales by name.

    base:    config that all arms start from, ``path/to/file.py:variant``
    metrics: what the table shows, keys of `wm_jax.evaluation.suite.METRICS`
    name:    of the file, filled in by `load`
    """

    claims: tuple[Claim, ...]
    base: str
    arms: Mapping[str, Arm]
    scales: Mapping[str, Scale]
    metrics: tuple[str, ...] = ("position_error", "identity", "ssim")
    name: str = ""

    def changes(self, scale: Scale, arm: str) -> dict[str, Any]:
        """What the study itself changes for an arm."""
        return {**self.arms[arm].changes, **scale.changes, **scale.arms.get(arm, {})}

    def config(
        self, scale: Scale, arm: str, seed: int, rate: float, budget: Budget | None = None
    ) -> ConfigDict:
        """The whole config of one run. Raises `UserError` that names the arm and the key."""
        fixed = {
            "seed": seed,
            "optim.learning_rate": rate,
            "data.directory": str(scale.data.directory()),
            "model.resolution": scale.data.resolution,
            "train.clip_every": 0,  # clips cost training time
            "eval.context": scale.context,
            "eval.horizon": min(scale.horizon, scale.data.length - scale.context),
        }
        try:
            config = configs.change(configs.load(self.base), {**self.changes(scale, arm), **fixed})
            configs.change(config, (budget or scale.budget).changes(config))
            return configs.validate(config)
        except UserError as error:
            raise UserError(f"study {self.name}, arm {arm}: {error}") from None


def load(name: str) -> Study:
    """The study of a path, or of a bare name under ``experiments/studies``."""
    path = Path(name) if name.endswith(".py") else STUDIES / f"{name}.py"
    if not path.is_file():
        found = ", ".join(names()) or f"none under {STUDIES} in this folder"
        raise UserError(f"there is no study {name}; there are: {found}.")
    spec = importlib.util.spec_from_file_location("study", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    study = getattr(module, "STUDY", None)
    if not isinstance(study, Study):
        raise UserError(f"{path} is not a study: it must define STUDY = Study(…).")
    return dataclasses.replace(study, name=path.stem)


def names() -> list[str]:
    """Of the studies that are there."""
    return sorted(path.stem for path in STUDIES.glob("*.py") if not path.name.startswith("_"))


def check(study: Study, scale_name: str) -> Scale:
    """The scale, or a `UserError`: every arm is a config that builds, and all get the same."""
    from wm_jax import models

    scale: Scale = configs.pick(study.scales, scale_name, f"scale of study {study.name}")
    where = f"study {study.name}, scale {scale_name}"
    _check_claims(study, scale, where)
    _check_scale(study, scale, where)
    for name, arm in study.arms.items():
        for key in SET_BY_RUNNER:
            if key in study.changes(scale, name):
                raise UserError(f"{where}, arm {name}: {key} is set by the study; leave it out.")
        config = study.config(scale, name, scale.seeds[0], arm.rates[0])
        if scale.budget.frames and config.train.window_doublings:
            raise UserError(
                f"{where}, arm {name}: with a budget of frames, train.window_doublings must be (): "
                "short windows would show it fewer."
            )
        try:
            models.build(config.model)
        except UserError as error:
            raise UserError(f"{where}, arm {name}: {error}") from None
    return scale


def _check_claims(study: Study, scale: Scale, where: str) -> None:
    from wm_jax.evaluation.suite import METRICS

    if not study.claims:
        raise UserError(f"{where}: there is no claim; write one.")
    for metric in study.metrics:
        configs.pick(METRICS, metric, f"metric in {where}")
    for claim in study.claims:
        for arm in (claim.arm, claim.against):
            configs.pick(study.arms, arm, f"arm in a claim of {where}")
        if claim.arm == claim.against:
            raise UserError(f"{where}: a claim compares the arm {claim.arm} with itself.")
        configs.pick(METRICS, claim.metric, f"metric in {where}")
        if claim.metric not in study.metrics or claim.step not in scale.steps:
            raise UserError(
                f"{where}: the claim on {claim.metric} at step {claim.step} is not in the table; "
                "add it to metrics and steps."
            )
        if claim.expected not in ("lower", "higher") or not claim.smallest >= 0:
            raise UserError(
                f"{where}: a claim expects 'lower' or 'higher' by at least 0; it has "
                f"{claim.expected!r} and {claim.smallest}."
            )


def _check_scale(study: Study, scale: Scale, where: str) -> None:
    counts = {len(arm.rates) for arm in study.arms.values()}
    if len(counts) != 1 or 0 in counts:
        listing = ", ".join(f"{name} {len(arm.rates)}" for name, arm in study.arms.items())
        raise UserError(
            f"{where}: every arm must get the same number of learning rates, at least one; there "
            f"are {listing}."
        )
    for budget in filter(None, (scale.budget, scale.tuning)):
        if not (budget.minutes > 0) ^ (budget.frames > 0):
            raise UserError(f"{where}: a budget is either minutes or frames, and more than 0.")
    if len(set(scale.seeds)) != len(scale.seeds) or not scale.seeds or TUNING_SEED in scale.seeds:
        raise UserError(f"{where}: seeds must be distinct, some, and not {TUNING_SEED}.")
    if not scale.steps or not 0 < min(scale.steps) <= max(scale.steps) <= scale.horizon:
        raise UserError(f"{where}: steps must lie between 1 and the horizon {scale.horizon}.")
    unknown = [arm for arm in scale.arms if arm not in study.arms]
    if unknown:
        configs.pick(study.arms, unknown[0], f"arm in {where}")
    length = scale.context + scale.horizon
    if scale.starts[-1] + length > scale.data.test_length:
        raise UserError(
            f"{where}: a clip of {length} frames from frame {scale.starts[-1]} does not fit into "
            f"test episodes of {scale.data.test_length}."
        )
