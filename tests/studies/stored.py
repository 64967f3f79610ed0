"""Stored runs whose verdict is known, as a worker would have written them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from wm_jax.evaluation.protocol import Protocol
from wm_jax.evaluation.statistics import Sums
from wm_jax.studies import scoring
from wm_jax.studies.study import Arm, Budget, Claim, Data, Scale, Study

EPISODES, HORIZON, STEPS = 6, 8, (1, 5)
PROTOCOL = Protocol(horizon=HORIZON)
SCALE = Scale(
    budget=Budget(minutes=6),
    tuning=Budget(minutes=1),
    seeds=(0, 1, 2),
    data=Data("twins:motion", 32, train=4, validation=2, test=2),
    steps=STEPS,
    horizon=HORIZON,
    episodes=EPISODES,
)
GRU = {"model.name": "grid_gru", "model.patch": 4}
STUDY = Study(
    claims=(
        Claim(
            "Near is nearer than far.", "a paper", "near", "far", "position_error", 5, "lower", 1
        ),
        Claim("Far is nearer.", "nobody", "far", "near", "position_error", 5, "lower", 0.5),
    ),
    base="experiments/configs/twins.py:quickstart",
    arms={"near": Arm(GRU, (1e-3, 3e-3)), "far": Arm({**GRU, "data.window": 8}, (1e-3, 2e-3))},
    scales={"smoke": SCALE, "small": SCALE, "paper": SCALE},
    name="trial",
)


def scores(error: float) -> scoring.Scores:
    """Episode i is i % 2 worse than ``error``, at all steps; no identity at all."""
    weight = np.ones((EPISODES, HORIZON))
    spread = np.arange(EPISODES)[:, None] % 2 * weight
    none = Sums(0 * weight, 0 * weight)
    return {
        "position_error": Sums(error + spread, weight),
        "identity": none,
        "ssim": Sums(0.8 * weight, weight),
    }


def run(arm: str, seed: int, error: float, **changes) -> dict:
    return {
        "study": "trial",
        "scale": "small",
        "kind": "run",
        "arm": arm,
        "seed": seed,
        "rate": 1e-3,
        "tuning": {"rates": {"0.001": 2.5, "0.003": None}, "updates": 10},
        "failed": None,
        "updates": 100,
        "parameters": 123_456,
        "validation": error,
        "time": [
            {"update": 50, "seconds": 30.0, "value": error + 1},
            {"update": 100, "seconds": 60.0, "value": error},
        ],
        "versions": {"jax": "0.10.2"},
        "hardware": {"processor": "a processor", "cores": 2},
        "cost": {"wall_minutes": 1.5, "core_minutes": 2.0},
        "protocol": PROTOCOL.to_dict(),
        "identity": f"{arm}{seed}",
        **scoring.stored(scores(error), STEPS, PROTOCOL),
        **changes,
    }


def baselines() -> dict:
    models = {"copy_last": scoring.stored(scores(7.0), STEPS, PROTOCOL)}
    protocol = PROTOCOL.to_dict()
    return {
        "kind": "baselines", "instrument_holds": True, "protocol": protocol, "models": models,
    }  # fmt: skip


def store(folder: Path, seeds=(0, 1, 2), **changes) -> Path:
    """Runs of both arms: ``near`` is off by 2 + seed / 10, ``far`` by 4."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        for arm, error in (("near", 2 + seed / 10), ("far", 4.0)):
            one = run(arm, seed, error, **changes)
            (folder / f"{arm}-{seed}.json").write_text(json.dumps(one))
    (folder / "baselines.json").write_text(json.dumps(baselines()))
    return folder
