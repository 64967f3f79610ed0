"""What a latent should be: a class, a number with noise, a plain vector; and how to weigh its KL.

    wm-jax reproduce latents                      three seeds of 105 seconds each
    wm-jax reproduce latents --scale smoke

One backbone, a gated linear recurrence over a grid, whose posterior reads the frame alone.
"""

from __future__ import annotations

from wm_jax.studies.study import Arm, Budget, Claim, Data, Scale, Study

V2 = "DreamerV2, Hafner et al. 2021, arXiv 2010.02193"
V3 = "DreamerV3, Hafner et al. 2023, arXiv 2301.04104"

RATES = (8e-3, 4e-3)
GRID = {
    "model.name": "grid_linear",
    "model.patch": 4,
    "model.dynamics.passes": 2,
    "train.batch_size": 4,
}
#: The two sides of the KL pull alike; their sum is that of the balanced arm.
EVEN = {"model.loss.kl_dyn": 0.55, "model.loss.kl_rep": 0.55}
#: For a smoke run: as little to compile as there can be.
TINY = {"model.dynamics.layers": 1, "model.dynamics.width": 16, "model.dynamics.hidden": 16}


def arm(latent: str, **changes: object) -> Arm:
    return Arm({**GRID, "model.dynamics.latent": latent, **changes}, RATES)


def ahead(first: str, second: str, sentence: str, source: str) -> Claim:
    return Claim(sentence, source, first, second, "position_error", 5, "lower", 0.3)


STUDY = Study(
    claims=(
        ahead("categorical", "gaussian", "Categorical latents predict where objects are better "
              "than Gaussian ones, five frames ahead.", f"{V2}, section 2.1"),
        ahead("categorical", "categorical_even", "It helps to train the prior towards the "
              "posterior faster than the posterior towards the prior.", f"{V2}, algorithm 2; {V3}"),
        ahead("deterministic", "categorical", "In a world without chance, a plain vector learns "
              "faster than classes.", "trials, one seed each: experiments/results/trials.md"),
    ),
    base="experiments/configs/twins.py:quickstart",
    arms={
        "categorical": arm("categorical"),
        "categorical_even": arm("categorical", **EVEN),
        "gaussian": arm("gaussian"),
        "fsq": arm("fsq"),
        "deterministic": arm("deterministic"),
    },
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
            changes={"data.window": 8, "train.batch_size": 2, "train.log_every": 2, **TINY},
            jobs=2,
            quick=True,
        ),
        "small": Scale(
            budget=Budget(minutes=1.75),
            tuning=Budget(minutes=0.6),
            seeds=(0, 1, 2),
            data=Data("twins:motion", 32, train=1000, validation=48, test=32),
            steps=(5, 20, 60),
            horizon=60,
            samples=4,
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
