"""What keeps a rollout right far past the window that was trained on?

    wm-jax reproduce long_horizon                 three seeds of 105 seconds each
    wm-jax reproduce long_horizon --scale smoke

One backbone, a gated linear recurrence over a grid, trained on windows of 24 frames and rolled out
for 240. The line to beat sees every frame of a window and predicts one step from each. So far out
futures are chaotic, and even the true simulator, started from what was seen, nears the cap of the
position error: missed share, identity and SSIM stand beside it.
"""

from __future__ import annotations

from wm_jax.studies.study import Arm, Budget, Claim, Data, Scale, Study

TRIALS = "trials, one seed each: experiments/results/trials.md"

RATES = (8e-3, 4e-3)
GRID = {"model.name": "grid_linear", "model.patch": 4, "train.batch_size": 4}
#: Every frame of a window is seen.
SEEN = {**GRID, "model.loss.context": "all"}
#: Only the first frames are; the rest is imagined.
UNSEEN = {**GRID, "model.loss.context": "random"}
#: For a smoke run: as little to compile as there can be.
TINY = {"model.dynamics.layers": 1, "model.dynamics.width": 16, "model.dynamics.hidden": 16}


def ahead(arm: str, step: int, sentence: str, source: str) -> Claim:
    return Claim(sentence, source, arm, "one_step", "position_error", step, "lower", 0.3)


STUDY = Study(
    claims=(
        ahead("self_fed", 20, "A model that is fed its own predictions in training, in parallel "
              "passes, misplaces objects less twenty frames ahead.", TRIALS),
        ahead("self_fed", 240, "The same, at ten times the length of a training window.", TRIALS),
        ahead("closed_loop", 20, "So does one that imagines the rest of every window, step by "
              "step.", TRIALS),
        ahead("overshooting", 20, "So does one whose predictions several steps ahead are drawn "
              "to later posteriors.", "PlaNet, Hafner et al. 2019, arXiv 1811.04551, section 4"),
        ahead("context_noise", 20, "So does one whose seen frames carry noise of different levels.",
              "Diffusion Forcing, Chen et al. 2024, arXiv 2407.01392"),
    ),
    base="experiments/configs/twins.py:quickstart",
    arms={
        "one_step": Arm(SEEN, RATES),
        "self_fed": Arm({**UNSEEN, "model.dynamics.passes": 2}, RATES),
        "closed_loop": Arm(UNSEEN, RATES),
        "overshooting": Arm({**SEEN, "model.loss.overshoot_steps": 8}, RATES),
        "context_noise": Arm({**SEEN, "model.loss.context_noise": 0.5}, RATES),
    },
    metrics=("position_error", "missed_share", "identity", "ssim"),
    scales={
        "smoke": Scale(
            budget=Budget(frames=64),
            seeds=(0,),
            data=Data("twins:motion", 32, train=8, validation=4, test=4, test_length=256),
            steps=(5, 20, 240),
            horizon=240,
            starts=(0,),
            episodes=2,
            samples=2,
            changes={"data.window": 8, "train.batch_size": 2, "train.log_every": 2, **TINY},
            arms={"overshooting": {"model.loss.overshoot_steps": 2}},
            jobs=2,
            quick=True,
        ),
        "small": Scale(
            budget=Budget(minutes=1.75),
            tuning=Budget(minutes=0.6),
            seeds=(0, 1, 2),
            data=Data("twins:motion", 32, train=1000, validation=48, test=32),
            steps=(5, 20, 240),
            horizon=240,
            starts=(0, 300),
            episodes=24,
        ),
        "paper": Scale(
            budget=Budget(minutes=60),
            tuning=Budget(minutes=10),
            seeds=(0, 1, 2, 3, 4),
            data=Data("twins:motion", 64, train=3000, validation=64, test=96),
            steps=(5, 20, 240),
            horizon=240,
            starts=(0, 300),
            episodes=96,
            changes={"model.patch": 8},
        ),
    },
)  # fmt: skip
