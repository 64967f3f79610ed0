"""All backbones at the same wall-clock, with DreamerV3's RSSM as the line to beat.

    wm-jax reproduce backbones                    three seeds of six minutes each, at 32 px
    wm-jax reproduce backbones --jobs 2           two at a time, each on one of two cores
    wm-jax reproduce backbones --scale smoke

Every arm has the optimiser and windows that its kind learned best with in earlier trials
(experiments/results/trials.md); none was searched for here but the learning rate, among the same
number of rates for every arm and for the same time.
"""

from __future__ import annotations

from wm_jax.studies.study import Arm, Budget, Data, Scale, Study, nearer

V3 = "the baseline that people know: DreamerV3, Hafner et al. 2023, arXiv 2301.04104"
TRIALS = "trials on balls behind a bar, one seed each: experiments/results/trials.md"

#: A grid of 8×8 cells, four windows an update, the optimiser of the base config (Muon).
GRID = {"model.patch": 4, "train.batch_size": 4}
MUON = (8e-3, 4e-3)
#: Backbones that are parallel over time read the frame alone, and are fed their own output twice.
PARALLEL = {**GRID, "model.dynamics.hidden": 96, "model.dynamics.passes": 2}
#: DreamerV3's own optimiser; batches of 8 windows of 32 frames, all of them seen.
RSSM = {
    "model.name": "rssm",
    "model.patch": 4,
    "data.window": 32,
    "optim.name": "laprop",
    "optim.clip": "agc",
    "optim.clip_value": 0.3,
}
ARMS = {
    "grid_slots": Arm({}, (5e-3, 3e-3)),
    "grid_gru": Arm({"model.name": "grid_gru", **GRID, "model.dynamics.hidden": 96}, MUON),
    "grid_linear": Arm({"model.name": "grid_linear", **PARALLEL}, MUON),
    "s5": Arm({"model.name": "s5", **PARALLEL}, MUON),
    "mamba2": Arm({"model.name": "mamba2", **PARALLEL}, MUON),
    "gated_delta": Arm({"model.name": "gated_delta", **PARALLEL}, MUON),
    "transformer": Arm({"model.name": "transformer", **PARALLEL}, MUON),
    "slot_attention": Arm({"model.name": "slot_attention", **GRID}, MUON),
    "rssm": Arm(RSSM, (1e-3, 3e-4)),
}
#: For a smoke run: as little to compile as there can be.
SHALLOW = {"model.dynamics.layers": 1, "model.dynamics.width": 16, "model.dynamics.hidden": 16}
TINY = {
    "grid_slots": {"model.dynamics.foresight": 3},
    "grid_gru": {"model.dynamics.width": 16, "model.dynamics.hidden": 16},
    **dict.fromkeys(("grid_linear", "s5", "mamba2", "gated_delta", "transformer"), SHALLOW),
    "slot_attention": {"model.dynamics.width": 16, "model.dynamics.hidden": 16},
    "rssm": {"model.dynamics.deter": 64, "model.dynamics.stoch": 4},
}
COARSE = {name: {"model.patch": 8} for name in ARMS if name != "grid_slots"}

STUDY = Study(
    claims=(
        nearer("grid_slots", "rssm", 5, 1.0, "After the same minutes, slots with a place misplace "
              "objects less than DreamerV3's RSSM, five frames ahead.", V3),
        nearer("grid_slots", "rssm", 20, 1.0, "The same, twenty frames ahead.", V3),
        nearer("grid_slots", "grid_gru", 20, 0.5, "Objects given as slots are worth more than a "
              "grid that must find them, twenty frames ahead.", TRIALS),
        nearer("grid_gru", "transformer", 5, 0.5, "A gated recurrence over a grid learns faster "
              "than windowed attention over time.", TRIALS),
        nearer("s5", "rssm", 5, 0.5, "A diagonal state space is ahead of a GRU.",
              "S4WM, Deng et al. 2023, arXiv 2307.02064"),
    ),
    base="experiments/configs/twins.py:quickstart",
    arms=ARMS,
    metrics=("position_error", "identity", "ssim", "missed_share"),
    scales={
        "smoke": Scale(
            budget=Budget(frames=64),
            seeds=(0,),
            data=Data("twins:motion", 32, train=8, validation=4, test=4, test_length=64),
            steps=(5, 20),
            horizon=20,
            starts=(0,),
            episodes=4,
            samples=2,
            changes={
                "data.window": 8,
                "train.batch_size": 2,
                "train.log_every": 2,
                "model.loss.context_low": 2,
            },
            arms=TINY,
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
            arms=COARSE,
        ),
    },
)  # fmt: skip
