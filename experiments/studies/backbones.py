"""All backbones at the same wall-clock, with DreamerV3's RSSM as the line to beat.

    wm-jax reproduce backbones                    three seeds of six minutes each, at 32 px
    wm-jax reproduce backbones --scale smoke

Every arm has the optimiser and the window that it learned best with in earlier trials
(experiments/results/trials.md), and the same number of learning rates, tried for 90 seconds each.
"""

from __future__ import annotations

from wm_jax.studies.study import Arm, Budget, Claim, Data, Scale, Study

V3 = "Hafner et al. 2023, arXiv 2301.04104: the RSSM, the baseline that people know"

#: A grid of 8×8 cells at 32 px, long windows, the optimiser of the base config.
GRID = {
    "model.patch": 4,
    "model.dynamics.hidden": 96,
    "train.batch_size": 4,
}
MUON = (8e-3, 4e-3)

#: DreamerV3's own optimiser; batches of 8 windows of 32 frames.
RSSM = {
    "model.name": "rssm",
    "model.patch": 4,
    "data.window": 32,
    "optim.name": "laprop",
    "optim.clip": "agc",
    "optim.clip_value": 0.3,
}


def claim(arm: str, step: int, sentence: str, source: str, smallest: float) -> Claim:
    return Claim(sentence, source, arm, "rssm", "position_error", step, "lower", smallest)


TINY = {
    "data.window": 8,
    "train.batch_size": 2,
    "model.loss.context_low": 2,
    "train.log_every": 2,
}
STUDY = Study(
    claims=(
        claim(
            "grid_slots", 5, "After the same minutes, slots with a place know five frames ahead "
            "where objects are, and DreamerV3's RSSM does not.", V3, 1.0,
        ),
        claim("grid_slots", 20, "The same, twenty frames ahead.", V3, 1.0),
        claim(
            "grid_gru", 5, "A gated recurrence over a grid, with mixing inside, is ahead of the "
            "RSSM five frames on.", "experiments/results/trials.md", 1.0,
        ),
    ),
    base="experiments/configs/twins.py:quickstart",
    arms={
        "grid_slots": Arm({}, (5e-3, 3e-3)),
        "grid_gru": Arm({"model.name": "grid_gru", **GRID}, MUON),
        "grid_linear": Arm({"model.name": "grid_linear", **GRID, "model.dynamics.passes": 2}, MUON),
        "rssm": Arm(RSSM, (1e-3, 3e-4)),
    },
    metrics=("position_error", "identity", "ssim", "missed_share"),
    scales={
        "smoke": Scale(
            budget=Budget(frames=128),
            seeds=(0,),
            data=Data("twins:motion", 32, train=8, validation=4, test=4, test_length=64),
            steps=(5, 20),
            horizon=20,
            starts=(0,),
            episodes=4,
            samples=2,
            changes=TINY,
            arms={"grid_slots": {"model.dynamics.foresight": 3}},
            jobs=2,
            quick=True,
        ),
        "small": Scale(
            budget=Budget(minutes=6),
            tuning=Budget(minutes=1.5),
            seeds=(0, 1, 2),
            data=Data("twins:motion", 32, train=1000, validation=48, test=32),
            steps=(5, 20, 100),
            horizon=100,
        ),
        "paper": Scale(
            budget=Budget(minutes=60),
            tuning=Budget(minutes=10),
            seeds=(0, 1, 2, 3, 4),
            data=Data("twins:motion", 64, train=3000, validation=64, test=96),
            steps=(5, 20, 100),
            horizon=100,
            episodes=96,
            arms={name: {"model.patch": 8} for name in ("grid_gru", "grid_linear", "rssm")},
        ),
    },
)  # fmt: skip
