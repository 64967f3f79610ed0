"""Sizes for a pod: one backbone from 12 million to 7 billion parameters, at 128 px.

    wm-jax compile --config experiments/configs/scale.py:7b --topology v5p:4x4x4

| variant | chips it is meant for    | windows a chip | what the gradient keeps  |
| ------- | ------------------------ | -------------- | ------------------------ |
| debug   | to try things            | 1              | all                      |
| 12m     | 4                        | 2              | all                      |
| 50m     | 4                        | 2              | all                      |
| 200m    | 16                       | 2              | what goes into a layer   |
| 1b      | 64 and more              | 2              | what goes into a layer   |
| 7b      | 64 and more              | 2 (v5e: 1)     | what goes into a layer   |

The backbone is `transformer`. Every frame of a window is seen (``model.loss.context`` 'all'), so a
window is one pass of matrix products over windows · frames · cells rows: no loop over time reads
the weights anew at every frame, as in `rssm`, `grid_gru` and `slot_attention`; of `grid_slots` only
the stage grows; and the scans of `s5`, `grid_linear`, `mamba2` and `gated_delta` move memory where
attention multiplies. A window is as long as attention's own, so that is one block and no loop.

From 200m on heads are 128 wide, as the matrix units are. The optimiser is AdamW: Muon multiplies
whole matrices with themselves, which are split over the chips.
"""

from __future__ import annotations

from typing import Any

from ml_collections import ConfigDict

from wm_jax.config import base_config, change, pick

SCALE = {
    "model.name": "transformer",
    "model.dtype": "bfloat16",
    "model.resolution": 128,
    "model.patch": 8,
    "model.loss.context": "all",
    "model.dynamics.window": 48,
    "data.directory": "data/motion128",
    "data.window": 48,
    "train.window_doublings": (),
    "train.clip_every": 5_000,
    "train.steps": 100_000,
    "optim.name": "adamw",
    "optim.learning_rate": 3e-4,
    "optim.warmup": 2_000,
    "optim.weight_decay": 0.1,
    "mesh.data": 1,
    "mesh.fsdp": -1,
}
FULL = {"model.remat": "full"}
VARIANTS: dict[str, dict[str, Any]] = {
    "debug": {"model.size": "debug", "train.batch_size": 4},
    "12m": {"model.size": "12m", "model.dynamics.heads": 4, "train.batch_size": 8},
    "50m": {"model.size": "50m", "model.dynamics.heads": 8, "train.batch_size": 8},
    "200m": {"model.size": "200m", "model.dynamics.heads": 10, "train.batch_size": 32} | FULL,
    "1b": {"model.size": "1b", "model.dynamics.heads": 18, "train.batch_size": 128} | FULL,
    "7b": {"model.size": "7b", "model.dynamics.heads": 42, "train.batch_size": 128} | FULL,
}


def get_config(variant: str = "1b") -> ConfigDict:
    changes = pick(VARIANTS, variant, "variant of experiments/configs/scale.py")
    return change(base_config(), SCALE | changes)
