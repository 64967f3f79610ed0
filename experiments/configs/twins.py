"""Worlds of moving objects: the built-in data set, from a smoke test to the default model.

| variant         | data (`wm-jax data build …`)                       | time on two cores |
| --------------- | -------------------------------------------------- | ----------------- |
| debug           | twins:motion --resolution 32 --out data/debug      | seconds           |
| quickstart      | twins:motion --resolution 32 --out data/quickstart | 5 minutes         |
| quickstart_rssm | as quickstart, with DreamerV3's RSSM               | 5 minutes         |
| keys            | twins:keys   --resolution 32 --out data/keys       | 10 minutes        |
| small           | twins:motion --resolution 64 --out data/motion     | 75 minutes        |
| small_full      | twins:full   --resolution 64 --out data/full       | 75 minutes        |
| small_rssm      | as small, with DreamerV3's RSSM                    | 75 minutes        |
| told            | twins:motion --resolution 64 --twins 5 --out data/told | 30 minutes     |
| told_full       | twins:full   --resolution 64 --twins 6 --out data/told_full | 60 minutes |
| told_grid       | twins:motion --resolution 32 --twins 5 --out data/told | 30 minutes     |

    wm-jax train --config experiments/configs/twins.py:small --workdir runs/small

What is told learns most from twins of changes that show: --kinds move,push,recolour,remove,add, and
gravity in twins:full. `told` and `told_full` begin with weights that are in experiments/pretrained;
--config.train.init_from=runs/small_full for a run of your own.
"""

from __future__ import annotations

from typing import Any

from ml_collections import ConfigDict

from wm_jax.config import base_config, change, pick

#: Muon learned twice as much an update as AdamW in two-minute trials of `grid_gru`; at 1e-2 the
#: collisions of `grid_slots` are not learned.
GRID = {
    "optim.name": "muon",
    "optim.learning_rate": 5e-3,
    "optim.warmup": 200,
    "optim.final_fraction": 0.02,
    "optim.weight_decay": 0.01,
}
QUICKSTART = GRID | {
    "data.directory": "data/quickstart",
    "model.resolution": 32,
    "model.patch": 1,
    "data.window": 24,
    "train.batch_size": 8,
    "train.window_doublings": (),
    "train.steps": 0,
    "train.minutes": 5.0,
}
SMALL = GRID | {
    "data.directory": "data/motion",
    "data.window": 24,
    "train.batch_size": 8,
    "train.window_doublings": (),
    "train.steps": 0,
    "train.minutes": 75.0,
    "train.checkpoint_every": 2_000,
    "train.clip_every": 5_000,
}
#: Slots are followed in single pixels, which places what is half hidden nearly three times as well,
#: and taught in frames half as fine, where an update costs a fraction.
FINE = {
    "model.patch": 1,
    "model.dynamics.pool": 8,
    "model.dynamics.sight": 24,
    "model.dynamics.train_pool": 2,
}
#: What a world with gravity, spin, a hand, a light and a camera needs.
FULL: dict[str, Any] = {
    "data.directory": "data/full",
    "model.modalities": ("actions", "camera", "light"),
    "model.dynamics.slots": 8,
    "model.dynamics.pull": 0.015,
    "model.dynamics.spin": 0.15,
    "model.dynamics.shading": True,
    "model.dynamics.directions": 36,
    "model.dynamics.taught": 6,
    "model.dynamics.train_pool": 1,
}
#: DreamerV3's setting where it is not a field of the backbone: whole windows, LaProp, AGC.
RSSM = {
    "model.name": "rssm",
    "train.window_doublings": (),
    "train.batch_size": 8,
    "data.window": 32,
    "optim.name": "laprop",
    "optim.clip": "agc",
    "optim.clip_value": 0.3,
    "optim.learning_rate": 1e-3,
}
#: What learns from twins what a change does: it is told some as a vector, some in words (a grid
#: some as both), and some not at all.
CHANGES: dict[str, Any] = {
    "data.directory": "data/told",
    "data.conditions": ("intervention", "text"),
    "model.modalities": ("intervention", "text"),
    "model.told_width": 64,
    "train.minutes": 30.0,
}
#: Slots that know the world already learn to be told; nothing else learns. What words with numbers
#: mean they learn from pairs that are made up.
TOLD: dict[str, Any] = {
    "data.paraphrases": ("move", "push", "recolour", "remove", "add"),
    "model.loss.told_dropout": 0.15,
    "model.loss.told_in_words": 0.4,
    "model.loss.place": 0.0,
    "model.loss.whole": 0.0,
    "model.loss.posterior": 0.0,
    "model.loss.prior": 0.0,
    "train.batch_size": 16,
    "train.remember": True,
    "train.init_from": "experiments/pretrained/motion",
    "optim.only": ("conditioning", "dynamics/hearing"),
    "optim.name": "adamw",
    "optim.learning_rate": 2e-3,
}
#: The same for a grid without objects, all of which learns.
TOLD_GRID = {
    "model.name": "grid_gru",
    "model.patch": 4,
    "model.dynamics.hidden": 96,
    "model.dynamics.places": True,
    "model.loss.told_dropout": 0.2,
    "optim.learning_rate": 8e-3,
}
VARIANTS: dict[str, dict[str, Any]] = {
    "debug": QUICKSTART
    | {
        "data.directory": "data/debug",
        "data.window": 8,
        "train.window_doublings": (0.5,),
        "model.loss.context_low": 2,
        "model.dynamics.foresight": 3,
        "train.batch_size": 4,
        "train.steps": 20,
        "train.minutes": 0.0,
        "train.log_every": 5,
        "train.checkpoint_every": 10,
        "train.clip_every": 10,
        "train.clip_episodes": 2,
        "optim.warmup": 5,
        "eval.context": 4,
        "eval.horizon": 8,
    },
    "quickstart": QUICKSTART,
    "quickstart_rssm": QUICKSTART | RSSM | {"model.patch": 4},
    "keys": QUICKSTART
    | {
        "data.directory": "data/keys",
        "data.conditions": ("discrete_actions",),
        "model.modalities": ("discrete_actions",),
        "train.minutes": 10.0,
    },
    "small": SMALL | FINE | {"model.dynamics.directions": 48},
    "told": SMALL | FINE | {"model.dynamics.directions": 48} | CHANGES | TOLD,
    "told_grid": QUICKSTART | CHANGES | TOLD_GRID,
    "small_full": SMALL | FINE | FULL,
    "told_full": SMALL
    | FINE
    | FULL
    | CHANGES
    | TOLD
    | {
        "data.directory": "data/told_full",
        "data.paraphrases": (*TOLD["data.paraphrases"], "gravity"),
        "data.conditions": (*FULL["model.modalities"], *CHANGES["model.modalities"]),
        "model.modalities": (*FULL["model.modalities"], *CHANGES["model.modalities"]),
        "model.loss.told_dropout_of": CHANGES["model.modalities"],
        "train.init_from": "experiments/pretrained/full",
        "train.minutes": 60.0,
    },
    "small_rssm": SMALL | RSSM,
}


def get_config(variant: str = "small") -> ConfigDict:
    return change(base_config(), pick(VARIANTS, variant, "variant of experiments/configs/twins.py"))
