"""What may the posterior read: the frame alone, or the recurrent state too?

    wm-jax reproduce posterior                    three seeds of two and a quarter minutes each
    wm-jax reproduce posterior --scale smoke

From the frame alone a window is parallel over time, so the same minutes hold more updates. With the
recurrent state what is hidden can stay in a token. Same wall-clock, same rates, and the backbone is
the only other thing that differs: a linear recurrence, and the diagonal state space of R2I.
"""

from __future__ import annotations

from wm_jax.studies.study import Arm, Budget, Claim, Data, Scale, Study

R2I = "R2I, Samsami et al. 2024, arXiv 2403.04253, section 3: the posterior reads the frame alone"
V3 = "DreamerV3, Hafner et al. 2023, arXiv 2301.04104, equation 3: the posterior reads both"

RATES = (8e-3, 4e-3)
GRID = {"model.patch": 4, "train.batch_size": 4}
FRAME = {"model.dynamics.posterior": "frame", "model.dynamics.passes": 2}
CARRY = {"model.dynamics.posterior": "carry", "model.dynamics.passes": 0}
#: For a smoke run: as little to compile as there can be.
TINY = {"model.dynamics.layers": 1, "model.dynamics.width": 16, "model.dynamics.hidden": 16}


def arm(backbone: str, posterior: dict) -> Arm:
    return Arm({"model.name": backbone, **GRID, **posterior}, RATES)


def ahead(first: str, second: str, step: int, sentence: str, source: str) -> Claim:
    return Claim(sentence, source, first, second, "position_error", step, "lower", 0.3)


STUDY = Study(
    claims=(
        ahead("s5_frame", "s5_carry", 5, "After the same minutes, a state-space model whose "
              "posterior reads the frame alone is ahead, five frames on.", R2I),
        ahead("linear_frame", "linear_carry", 5, "So is a gated linear recurrence.", R2I),
        ahead("s5_carry", "s5_frame", 20, "Twenty frames on, when what was hidden is back, it "
              "helps to read the recurrent state.", V3),
    ),
    base="experiments/configs/twins.py:quickstart",
    arms={
        "s5_frame": arm("s5", FRAME),
        "s5_carry": arm("s5", CARRY),
        "linear_frame": arm("grid_linear", FRAME),
        "linear_carry": arm("grid_linear", CARRY),
    },
    metrics=("position_error", "identity", "missed_share", "ssim"),
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
            changes={"data.window": 8, "train.batch_size": 2, "train.log_every": 2, **TINY},
            jobs=2,
            quick=True,
        ),
        "small": Scale(
            budget=Budget(minutes=2.25),
            tuning=Budget(minutes=0.75),
            seeds=(0, 1, 2),
            data=Data("twins:motion", 32, train=1000, validation=48, test=32),
            steps=(5, 20, 60),
            horizon=60,
        ),
        "paper": Scale(
            budget=Budget(minutes=60),
            tuning=Budget(minutes=10),
            seeds=(0, 1, 2, 3, 4),
            data=Data("twins:motion", 64, train=3000, validation=64, test=96),
            steps=(5, 20, 60),
            horizon=60,
            episodes=96,
            changes={"model.patch": 8},
        ),
    },
)  # fmt: skip
