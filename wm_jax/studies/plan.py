"""From a study to jobs: what each run is, where it lives, and whether it is done."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

from wm_jax import config as configs
from wm_jax.errors import UserError
from wm_jax.evaluation.protocol import Protocol
from wm_jax.evaluation.suite import METRICS
from wm_jax.studies.scoring import CURVE_EPISODES
from wm_jax.studies.study import TUNING_SEED, Scale, Study
from wm_jax.studies.worker import CURVE_POINTS

RESULTS = Path("experiments/results/studies")


@dataclasses.dataclass(frozen=True)
class Job:
    """What a worker is told (``content``, JSON), under a name to show it by."""

    name: str
    content: dict[str, Any]
    workdir: Path
    result: Path

    def done(self) -> bool:
        """Whether its result is there. Raises `UserError` for a result of something else."""
        if not self.result.exists():
            return False
        there = json.loads(self.result.read_text())
        if there.get("identity") != self.content["identity"]:
            raise UserError(
                f"{self.result} holds the result of another config, protocol or data set than this "
                "study has now; move it away, or name another folder with --results or --out."
            )
        return True


@dataclasses.dataclass(frozen=True)
class Plan:
    """A study at a scale, with the seeds and folders of this call."""

    study: Study
    scale_name: str
    scale: Scale
    seeds: tuple[int, ...]
    out: Path  # workdirs and the page
    results: Path  # stored runs, those that tuned too: all that another machine needs to go on

    def tuning(self) -> list[Job]:
        """A job for every arm and rate; none where there is nothing to choose or no budget."""
        if self.scale.tuning is None or len(next(iter(self.study.arms.values())).rates) < 2:
            return []
        return [
            self._job("tune", arm, TUNING_SEED, rate, {})
            for arm, of in self.study.arms.items()
            for rate in of.rates
        ]

    def choose(self, tried: list[dict[str, Any]]) -> dict[str, tuple[float, dict[str, Any]]]:
        """Arm -> (rate, what was tried): the best on validation, of the results of `tuning`.

        Raises `UserError` where every rate of an arm failed.
        """
        better = max if METRICS[self.study.claims[0].metric][1] else min
        chosen: dict[str, tuple[float, dict[str, Any]]] = {}
        for arm, of in self.study.arms.items():
            of_arm = {r["rate"]: r for r in tried if r["arm"] == arm}
            if not of_arm:
                chosen[arm] = (of.rates[0], {})
                continue
            values = {rate: r.get("validation") for rate, r in of_arm.items()}
            finite = {rate: value for rate, value in values.items() if value is not None}
            if not finite:
                raise UserError(
                    f"study {self.study.name}: no learning rate of the arm {arm} gave a score; "
                    "give it other rates."
                )
            best = better(finite, key=lambda rate: finite[rate])
            told = {
                "rates": {f"{rate:g}": value for rate, value in values.items()},
                "updates": max(r.get("updates", 0) for r in of_arm.values()),
            }
            chosen[arm] = (best, told)
        return chosen

    def runs(self, chosen: dict[str, tuple[float, dict[str, Any]]]) -> list[Job]:
        """Every arm with every seed, a seed at a time: after a part of them all arms have some."""
        return [self._job("run", arm, seed, *chosen[arm]) for seed in self.seeds for arm in chosen]

    def baselines(self) -> Job:
        """What does not learn, on the same clips."""
        content = self._content("baselines", None)
        content["identity"] = _digest(content["protocol"], content["data"], self.scale.steps)
        return Job(
            "baselines", content, self._workdir("baselines"), self.results / "baselines.json"
        )

    def _job(self, kind: str, arm: str, seed: int, rate: float, tuning: dict[str, Any]) -> Job:
        scale = self.scale
        budget = scale.tuning if kind == "tune" else scale.budget
        config = self.study.config(scale, arm, seed, rate, budget)
        every = self._checkpoint_every(config, tuning)
        configs.change(config, {"train.checkpoint_every": every, "train.keep": 10_000})
        content = self._content(kind, config) | {
            "arm": arm, "seed": seed, "rate": rate, "tuning": tuning,
        }  # fmt: skip
        content["identity"] = _digest(
            _decisive(config), content["protocol"], content["validation"], scale.steps
        )
        if kind == "tune":
            file, name = f"{arm}-{rate:g}", f"{arm} rate {rate:g}"
            result = self.results / "tuning" / f"{file}.json"
            return Job(name, content, self._workdir(f"tune-{file}"), result)
        file, name = f"{arm}-{seed}", f"{arm} seed {seed}"
        return Job(name, content, self._workdir(file), self.results / f"{file}.json")

    def _checkpoint_every(self, config: Any, tuning: dict[str, Any]) -> int:
        """So that about `CURVE_POINTS` are kept. Where minutes are the budget, the number of
        updates is a guess from those of the tuning runs."""
        updates = config.train.steps
        if not updates and tuning and self.scale.tuning and self.scale.tuning.minutes:
            share = self.scale.budget.minutes / self.scale.tuning.minutes
            updates = round(tuning["updates"] * share)
        if not updates:
            return int(config.train.checkpoint_every)
        return max(1, updates // CURVE_POINTS)

    def _content(self, kind: str, config: Any) -> dict[str, Any]:
        scale, test = self.scale, _protocol(self.scale)
        ahead = min(scale.horizon, scale.data.length - scale.context)
        validation = {
            **test, "split": "validation", "starts": [0], "horizon": ahead,
            "episodes": min(CURVE_EPISODES, scale.data.validation), "samples": 1,
        }  # fmt: skip
        return {
            "kind": kind,
            "study": self.study.name,
            "scale": self.scale_name,
            "config": None if config is None else config.to_dict(),
            "data": str(scale.data.directory()),
            "protocol": test,
            "validation": validation,
            "steps": list(scale.steps),
            "metric": self.study.claims[0].metric,
        }

    def _workdir(self, name: str) -> Path:
        return self.out / "runs" / name


def _protocol(scale: Scale) -> dict[str, Any]:
    """The fields of the test protocol that a scale decides; the rest are the suite's own."""
    fields = {
        "split": "test",
        "resolution": scale.data.resolution,
        "episodes": scale.episodes,
        "starts": list(scale.starts),
        "context": scale.context,
        "horizon": scale.horizon,
        "samples": scale.samples,
    }
    known = {field.name for field in dataclasses.fields(Protocol)}
    assert fields.keys() <= known
    return fields


def _decisive(config: Any) -> dict[str, Any]:
    """What decides the numbers of a run. Keys at their defaults are left out: a knob that is added
    later does not disown older runs."""
    base = configs.base_config(config.model.name)
    changes = configs.difference(base, config).items()
    kept = {key: new for key, (_, new) in changes if not configs.FREE_ON_RESUME.match(key)}
    return kept | {"model.name": config.model.name}


def _digest(*parts: Any) -> str:
    text = json.dumps(parts, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
