"""What fits together: the combinations of a model config that are refused, each in one sentence."""

from __future__ import annotations

from typing import Any

from wm_jax.errors import UserError
from wm_jax.models.decoder_flow import FINEST
from wm_jax.models.dynamics.templates import SIDE, coarse_side
from wm_jax.models.encoder_conv import ConvEncoder, final_size
from wm_jax.shapes import HEAD_FIELDS


def check(config: Any) -> tuple[int, int]:
    """Rows and columns of the encoder's grid for the ``model`` section; raises `UserError`."""
    if config.resolution % config.patch:
        raise UserError(
            f"model.patch={config.patch} does not divide model.resolution={config.resolution}; "
            "choose a patch that does, for example 4 or 8."
        )
    cells = (config.resolution // config.patch,) * 2
    _check_grid_slots(config, cells)
    _check_heads(config)
    if config.encoder == "vit":
        _check_vit(config)
    if config.encoder == "conv":
        _check_conv(config, cells)
    _check_slot_attention(config)
    _check_told(config)
    steps = config.sharp_steps
    if steps & (steps - 1) or steps > FINEST:
        raise UserError(
            f"model.sharp_steps={steps} is not 0 (no flow decoder) or a power of two up to "
            f"{FINEST}, the step counts that its shortcuts are trained for; choose 1, 2 or 4."
        )
    if config.decoder == "conv" and not is_vector(config):
        raise UserError(
            f"model.decoder=conv starts from a vector state and model.name={config.name} has a "
            "grid of cells; set model.decoder=patch."
        )
    return cells


def is_vector(config: Any) -> bool:
    """Whether the state is one vector, as the RSSM's, rather than a grid of cells."""
    return "deter" in config.dynamics


def _check_grid_slots(config: Any, cells: tuple[int, int]) -> None:
    slots = config.name == "grid_slots"
    if slots != (config.encoder == "pool") or slots != (config.decoder == "slots"):
        raise UserError(
            f"model.encoder={config.encoder} and model.decoder={config.decoder} do not fit "
            f"model.name={config.name}: 'grid_slots' goes with 'pool' and 'slots', and only it."
        )
    if slots and cells[0] % config.dynamics.pool:
        raise UserError(
            f"model.dynamics.pool={config.dynamics.pool} does not divide the {cells[0]} encoder "
            "cells on a side (model.resolution / model.patch)."
        )
    if slots:
        _check_finer(config.dynamics)
    if slots and config.dynamics.directions % 4:
        raise UserError(
            f"model.dynamics.directions={config.dynamics.directions} is not a multiple of 4: the "
            "walls' directions must be among them; choose 24, for example."
        )


def _check_told(config: Any) -> None:
    if config.text not in ("words", "vectors"):
        raise UserError(
            f"model.text='{config.text}' is neither 'words' (ids, encoded by the model) nor "
            "'vectors' (embeddings of 32 numbers that another encoder made)."
        )
    if "text" in config.modalities and config.told_width % 4:
        raise UserError(
            f"model.told_width={config.told_width} is not a multiple of the text encoder's 4 heads."
        )


def _check_slot_attention(config: Any) -> None:
    slots = config.name == "slot_attention"
    if slots != (config.decoder == "mixture"):
        raise UserError(
            f"model.decoder={config.decoder} does not fit model.name={config.name}: "
            "'slot_attention' goes with 'mixture', and only it."
        )
    if slots and (config.dynamics.width % config.dynamics.heads or config.dynamics.width % 4):
        raise UserError(
            f"model.dynamics.width={config.dynamics.width} is not a multiple of "
            f"model.dynamics.heads={config.dynamics.heads} and of 4; choose 64 and 4, for example."
        )


def _check_finer(dynamics: Any) -> None:
    by, sight = dynamics.train_pool, dynamics.sight
    if dynamics.pool % by or sight % by:
        raise UserError(
            f"model.dynamics.train_pool={by} does not divide model.dynamics.pool={dynamics.pool} "
            f"and model.dynamics.sight={sight}; choose 1, or sizes that it divides."
        )
    if not coarse_side(sight) or coarse_side(sight) != coarse_side(sight // by):
        raise UserError(
            f"model.dynamics.sight={sight} is too small or odd for train_pool={by}: looks are read "
            f"off {SIDE}×{SIDE} means of a template in training too; set sight={by * SIDE}."
        )


def _check_heads(config: Any) -> None:
    for name in config.heads:
        if name not in HEAD_FIELDS:
            raise UserError(
                f"model.heads has '{name}', which is no head; choose of {', '.join(HEAD_FIELDS)}."
            )
    if "audio" in config.heads and "audio" in config.modalities:
        raise UserError(
            "model.heads and model.modalities both have 'audio': the head would predict what the "
            "model is told; leave it out of one of them."
        )
    if ("readout" in config.heads) != (config.readout > 0):
        raise UserError(
            f"model.readout={config.readout} and model.heads={tuple(config.heads)} do not fit: the "
            "head 'readout' predicts model.readout numbers, at least 1; without it set 0."
        )


def _check_vit(config: Any) -> None:
    if config.embed % config.vit_heads or config.embed % 4:
        raise UserError(
            f"model.embed={config.embed} is not a multiple of model.vit_heads={config.vit_heads} "
            "and of 4, as the encoder 'vit' needs; choose 64 and 4, for example."
        )


def _check_conv(config: Any, cells: tuple[int, int]) -> None:
    stages = len(ConvEncoder.mults)
    made = final_size(config.resolution, config.resolution, stages)
    if not is_vector(config) and made != cells:
        raise UserError(
            f"the encoder 'conv' makes {made[0]}×{made[1]} cells of {config.resolution} px and "
            f"model.name={config.name} expects {cells[0]}×{cells[1]}; set "
            f"model.patch={2**stages} or another encoder."
        )
