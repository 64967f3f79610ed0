"""Which values of a config make sense, alone and together.

A rule reads ``values``, a config as `wm_jax.config.flat` gives it, and raises `UserError` with the
key, what is wrong with it, and what to do.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wm_jax.errors import UserError
from wm_jax.shapes import SAID

Values = Mapping[str, Any]

CHOICES = {
    "data.loader": ("memory", "grain"),
    "train.keep_best": ("", "clip/psnr_db", "clip/psnr_step1_db"),
    "optim.name": ("adamw", "laprop", "muon"),
    "optim.schedule": ("constant", "cosine", "linear", "wsd"),
    "optim.clip": ("agc", "norm", "none"),
    "model.encoder": ("patch", "vit", "conv", "pool"),
    "model.decoder": ("patch", "conv", "slots", "mixture"),
    "model.loss.context": ("random", "all"),
    "model.dtype": ("float32", "bfloat16"),
    "model.remat": ("none", "dots", "full"),
}
#: The least value that makes sense.
AT_LEAST = {
    "model.sharp_steps": 0,
    "model.sharp_width": 1,
    "model.sharp_depth": 1,
    "model.vit_depth": 1,
    "model.vit_heads": 1,
    "data.window": 2,
    "data.workers": 0,
    "data.corrupt_budget": 0,
    "train.batch_size": 1,
    "train.steps": 0,
    "train.minutes": 0,
    "train.log_every": 1,
    "train.checkpoint_every": 1,
    "train.keep": 1,
    "train.keep_every": 0,
    "train.recover_tries": 0,
    "train.spike_factor": 0,
    "train.hang_minutes": 0,
    "train.clip_every": 0,
    "train.clip_episodes": 1,
    "optim.warmup": 0,
    "optim.learning_rate": 0,
    "optim.clip_value": 0,
    "optim.weight_decay": 0,
    "optim.eps": 0,
}
#: Of the loss, what must be at least 1; all else there is a weight and may be 0.
COUNTS = ("model.loss.painted", "model.loss.context_low", "model.loss.context_high")
#: Of a backbone's whole numbers, those that may be 0.
MAY_BE_ZERO = ("model.dynamics.passes", "model.dynamics.taught")
#: Must lie in [0, 1).
FRACTIONS = (
    "model.loss.context_noise",
    "model.loss.told_dropout",
    "model.loss.told_in_words",
    "train.ema",
    "optim.beta1",
    "optim.beta2",
    "optim.decay_fraction",
)


def check(values: Values) -> None:
    """Raises `UserError` for the first rule that is broken."""
    rules = (
        _each, _backbone, _patch, _length, _windows, _carried, _in_words, _paraphrased,
        _remembered, _judged, _spikes, _loader, _mesh,
    )  # fmt: skip
    for rule in rules:
        rule(values)


def _each(values: Values) -> None:
    for key, choices in CHOICES.items():
        if values[key] not in choices:
            raise UserError(f"config.{key}={values[key]!r} is not one of {', '.join(choices)}.")
    for key, least in AT_LEAST.items():
        if not values[key] >= least:
            raise UserError(f"config.{key}={values[key]} must be at least {least}.")
    for key in FRACTIONS:
        if not 0 <= values[key] < 1:
            raise UserError(f"config.{key}={values[key]} must lie in [0, 1).")


def _backbone(values: Values) -> None:
    """Fields of a backbone and of its loss, which are not known here by name."""
    for key, value in values.items():
        if key.startswith(("model.dynamics.", "model.loss.")) and type(value) in (int, float):
            size = key.startswith("model.dynamics.") and type(value) is int
            least = int((size or key in COUNTS) and key not in MAY_BE_ZERO)
            if not value >= least:
                raise UserError(f"config.{key}={value} must be at least {least}.")


def _patch(values: Values) -> None:
    patch, resolution = values["model.patch"], values["model.resolution"]
    if resolution % patch:
        raise UserError(
            f"config.model.patch={patch} does not divide model.resolution={resolution}; choose a "
            "patch that does, for example 4 or 8."
        )


def _length(values: Values) -> None:
    if not values["train.steps"] and not values["train.minutes"]:
        raise UserError("config.train.steps and train.minutes are both 0; set one of them.")


def _windows(values: Values) -> None:
    window, doublings = values["data.window"], values["train.window_doublings"]
    shares = all(isinstance(share, float) and 0 < share < 1 for share in doublings)
    if not shares or list(doublings) != sorted(doublings):
        raise UserError(
            f"config.train.window_doublings={doublings} must be shares of the run, each in (0, 1), "
            "in rising order."
        )
    if window % 2 ** len(doublings) or window >> len(doublings) < 2:
        raise UserError(
            f"config.data.window={window} cannot be halved {len(doublings)} times "
            "(train.window_doublings); choose a multiple of "
            f"{2 ** len(doublings)} that is at least {2 ** (len(doublings) + 1)}."
        )


def _carried(values: Values) -> None:
    doublings, loader = values["train.window_doublings"], values["data.loader"]
    if values["train.carry_state"] and (doublings or loader != "memory"):
        raise UserError(
            f"config.train.carry_state=True with train.window_doublings={tuple(doublings)} and "
            f"data.loader={loader}: a window goes on from the one before only if none is cut and "
            "they are read in order; set train.window_doublings=() and data.loader=memory."
        )


#: Parts that may learn where states are remembered: they depend on none of these.
LATER = ("conditioning", "dynamics/hearing")


def _in_words(values: Values) -> None:
    missing = [name for name in SAID if name not in values["model.modalities"]]
    share = values["model.loss.told_in_words"]
    if share and missing:
        raise UserError(
            f"config.model.loss.told_in_words={share} tells changes in words or as a vector, and "
            f"model.modalities lacks {missing[0]}; add it, or set 0."
        )


def _paraphrased(values: Values) -> None:
    kinds = tuple(values["data.paraphrases"])
    missing = [name for name in SAID if name not in values["model.modalities"]]
    if kinds and (missing or values["model.text"] != "words"):
        lacks = f"model.modalities lacks {missing[0]}" if missing else "model.text is not 'words'"
        raise UserError(
            f"config.data.paraphrases={kinds} says changes in words and as a vector, and {lacks}; "
            "change that, or set it to ()."
        )


def _remembered(values: Values) -> None:
    if not values["train.remember"]:
        return
    only = tuple(values["optim.only"])
    if not only or set(only) - set(LATER):
        raise UserError(
            f"config.train.remember=True and optim.only={only}: what objects are followed by would "
            f"learn too; set optim.only to some of {LATER}, or train.remember=False."
        )
    if values["train.window_doublings"] or values["data.loader"] != "memory":
        raise UserError(
            "config.train.remember=True keeps whole windows in memory; set "
            "train.window_doublings=() and data.loader=memory."
        )
    if values["train.carry_state"]:
        raise UserError(
            "config.train.remember=True takes one window of an episode, and train.carry_state=True "
            "all of them; set one to False."
        )
    pixels = [n for n in ("posterior", "prior", "overshoot_steps") if values[f"model.loss.{n}"]]
    if pixels:
        raise UserError(
            f"config.train.remember=True keeps objects and no frames, and model.loss.{pixels[0]}="
            f"{values[f'model.loss.{pixels[0]}']} compares some; set it to 0."
        )
    names = tuple(values["model.modalities"])
    dropped = tuple(values["model.loss.told_dropout_of"]) or names
    held = [name for name in names if name in dropped and name not in SAID]
    if values["model.loss.told_dropout"] and held:
        raise UserError(
            f"config.train.remember=True and model.loss.told_dropout: {held[0]} would be dropped, "
            f"by which objects are followed; set model.loss.told_dropout_of={SAID}."
        )


def _judged(values: Values) -> None:
    clips, saves = values["train.clip_every"], values["train.checkpoint_every"]
    if values["train.keep_best"] and (not clips or clips % saves):
        raise UserError(
            f"config.train.keep_best={values['train.keep_best']} judges checkpoints by clips: set "
            f"train.clip_every={clips} to a multiple of train.checkpoint_every={saves}."
        )


def _spikes(values: Values) -> None:
    factor = values["train.spike_factor"]
    if 0 < factor <= 1:
        raise UserError(
            f"config.train.spike_factor={factor} must be above 1, or 0 for no rule; try 10."
        )


def _loader(values: Values) -> None:
    if values["data.workers"] and values["data.loader"] == "memory":
        raise UserError(
            f"config.data.workers={values['data.workers']} needs data.loader=grain; the loader "
            "'memory' has no reader processes."
        )


def _mesh(values: Values) -> None:
    sizes = {f"mesh.{axis}": values[f"mesh.{axis}"] for axis in ("data", "fsdp", "tensor")}
    counts = list(sizes.values())
    if any(size == 0 or size < -1 for size in counts) or counts.count(-1) > 1:
        listing = ", ".join(f"{key}={size}" for key, size in sizes.items())
        raise UserError(
            f"config.{listing}: each is a number of devices, and at most one of them may be -1 "
            "(all that are left)."
        )
    bands, rows = values["mesh.cells"], values["model.resolution"] // values["model.patch"]
    if bands < 1 or rows % bands:
        raise UserError(
            f"config.mesh.cells={bands} must divide the {rows} rows of cells of a frame "
            "(model.resolution / model.patch); use 1, or another divisor of it."
        )
