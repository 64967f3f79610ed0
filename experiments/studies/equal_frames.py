"""All backbones after the same frames, however long each takes for them.

    wm-jax reproduce equal_frames                 three seeds of 36,864 frames each, at 32 px
    wm-jax reproduce equal_frames --scale smoke

The arms are those of `backbones`, at the learning rates that its tuning chose. Which of two models
needs less of a world to know it is one question, which of them needs less of a machine another:
`backbones` asks the second.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from wm_jax.studies.study import Arm, Budget, Study, load, nearer

BACKBONES = load(str(Path(__file__).with_name("backbones.py")))
V3, TRIALS = BACKBONES.claims[0].source, BACKBONES.claims[2].source
#: Learning rates that `backbones` chose on validation, at its scale small.
RATES = dict.fromkeys(BACKBONES.arms, 8e-3) | {"grid_slots": 5e-3, "s5": 4e-3, "rssm": 1e-3}
ARMS = {name: Arm(arm.changes, (RATES[name],)) for name, arm in BACKBONES.arms.items()}
BUDGETS = {"smoke": 64, "small": 36_864, "paper": 2_000_000}
#: So few frames teach nobody to see a hundred ahead.
NEARER = {"small": {"steps": (5, 20, 40), "horizon": 40, "episodes": 24}}

STUDY = Study(
    claims=(
        nearer("grid_slots", "rssm", 5, 1.0, "After the same frames, slots with a place misplace "
              "objects less than DreamerV3's RSSM, five frames ahead.", V3),
        nearer("grid_slots", "grid_gru", 20, 0.5, "Objects given as slots are worth more frames "
              "than a grid that must find them, twenty frames ahead.", TRIALS),
        nearer("s5", "grid_gru", 5, 0.3, "What is parallel over time learns as much from a frame "
              "as a gated recurrence, or more.", "S4WM, Deng et al. 2023, arXiv 2307.02064"),
        nearer("gated_delta", "mamba2", 5, 0.3, "The delta rule learns more from a frame than a "
              "decaying sum.", "gated DeltaNet, Yang et al. 2024, arXiv 2412.06464"),
    ),
    base=BACKBONES.base,
    arms=ARMS,
    metrics=BACKBONES.metrics,
    scales={
        name: dataclasses.replace(
            BACKBONES.scales[name],
            tuning=None,
            budget=Budget(frames=frames),
            **NEARER.get(name, {}),
        )
        for name, frames in BUDGETS.items()
    },
)  # fmt: skip
