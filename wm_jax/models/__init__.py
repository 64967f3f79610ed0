"""From a model config to a model: the one place where names become modules."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn

from wm_jax.errors import UserError
from wm_jax.models.decoder_conv import ConvDecoder
from wm_jax.models.decoder_patch import PatchDecoder
from wm_jax.models.dynamics import DYNAMICS
from wm_jax.models.encoder_conv import ConvEncoder
from wm_jax.models.encoder_patch import PatchEncoder
from wm_jax.models.vector_to_grid import VectorToGrid
from wm_jax.models.world_model import LossWeights, Net, WorldModel

#: The backbone that wins on twins; see the results table in the README.
DEFAULT = "grid_gru"


def knobs(name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Every field of the backbone ``name`` and of its loss, with defaults."""
    module = DYNAMICS.get(name)
    if module is None:
        raise UserError(f"model.name='{name}' is no backbone; choose one of {', '.join(DYNAMICS)}.")
    inherited = ("parent", "name", "cells")
    fields = [f for f in dataclasses.fields(module) if f.name not in inherited]
    loss = LossWeights(context="all", posterior=1.0, prior=0.0) if _is_vector(module) else None
    return {f.name: f.default for f in fields}, dataclasses.asdict(loss or LossWeights())


def build(config: Any) -> WorldModel:
    """The world model that ``config`` (the ``model`` section) describes. Creates no parameters."""
    if config.resolution % config.patch:
        raise UserError(
            f"model.patch={config.patch} does not divide model.resolution={config.resolution}; "
            "choose a patch that does, for example 4 or 8."
        )
    cells = (config.resolution // config.patch,) * 2
    dynamics = DYNAMICS[config.name](cells=cells, **_plain(config.dynamics))
    net = Net(
        encoder=_encoder(config),
        dynamics=dynamics,
        decoder=_decoder(config, cells, dynamics),
        modalities=tuple(config.modalities),
    )
    return WorldModel(net, LossWeights(**_plain(config.loss)), config.resolution)


def _encoder(config: Any) -> nn.Module:
    if config.encoder == "conv":
        return ConvEncoder(depth=config.conv_depth)
    return PatchEncoder(config.patch, config.embed)


def _decoder(config: Any, cells: tuple[int, int], dynamics: Any) -> nn.Module:
    vector = {"deter": dynamics.deter, "blocks": dynamics.blocks} if _is_vector(dynamics) else {}
    if config.decoder == "conv":
        return ConvDecoder(config.resolution, depth=config.conv_depth, **vector)
    spread = VectorToGrid(cells, config.embed, **vector) if vector else None
    return PatchDecoder(cells, config.patch, config.decoder_hidden, spread)


def _is_vector(dynamics: Any) -> bool:
    """Whether the state is one vector, as the RSSM's, rather than a grid of cells."""
    return hasattr(dynamics, "deter")


def _plain(section: Mapping[str, Any]) -> dict[str, Any]:
    return dict(section)
