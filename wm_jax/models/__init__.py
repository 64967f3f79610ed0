"""From a model config to a model: the one place where names become modules."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn

from wm_jax.errors import UserError
from wm_jax.models.conditioning import flat_size, split
from wm_jax.models.decoder_conv import ConvDecoder
from wm_jax.models.decoder_flow import FlowDecoder
from wm_jax.models.decoder_mixture import MixtureDecoder
from wm_jax.models.decoder_patch import PatchDecoder
from wm_jax.models.decoder_slots import SlotDecoder
from wm_jax.models.dynamics import DYNAMICS
from wm_jax.models.encoder_conv import ConvEncoder
from wm_jax.models.encoder_patch import PatchEncoder
from wm_jax.models.encoder_pool import PoolEncoder
from wm_jax.models.encoder_vit import VitEncoder
from wm_jax.models.fit import check
from wm_jax.models.heads import Heads
from wm_jax.models.loss import LossWeights
from wm_jax.models.vector_to_grid import VectorToGrid
from wm_jax.models.world_model import Net, WorldModel
from wm_jax.nn.compute import Compute

#: The backbone that wins on twins; see the results table in the README.
DEFAULT = "grid_slots"

#: What a backbone wants around it where that is not the default of `wm_jax.config.model_config`.
AROUND: dict[str, dict[str, Any]] = {
    "grid_slots": {"encoder": "pool", "decoder": "slots", "patch": 2, "decoder_hidden": 64},
    "rssm": {"embed": 16},
    "slot_attention": {"decoder": "mixture"},
}
LOSSES = {
    "grid_slots": LossWeights(context_low=4, decoded=4, painted=4),
    "rssm": LossWeights(context="all", posterior=1.0, prior=0.0),
}


def knobs(name: str) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Every field of the backbone ``name`` and of its loss, with defaults, and what to put around
    it (keys of the model section)."""
    module = DYNAMICS.get(name)
    if module is None:
        raise UserError(f"model.name='{name}' is no backbone; choose one of {', '.join(DYNAMICS)}.")
    set_here = ("parent", "name", "cells", "channels", "told_size", "said_size")
    fields = [f for f in dataclasses.fields(module) if f.name not in set_here]
    loss = dataclasses.asdict(LOSSES.get(name, LossWeights()))
    return {f.name: f.default for f in fields}, loss, AROUND.get(name, {})


def build(config: Any) -> WorldModel:
    """The world model that ``config`` (the ``model`` section) describes. Creates no parameters."""
    cells = check(config)
    fields = _plain(config.dynamics)
    if config.name == "grid_slots":
        said, holding = split(tuple(config.modalities))
        fields["told_size"] = flat_size(holding)
        fields["said_size"] = 1 + config.told_width if said else 0
    dynamics = DYNAMICS[config.name](cells=cells, **fields)
    if hasattr(dynamics, "check"):
        dynamics.check()
    net = Net(
        encoder=_encoder(config),
        dynamics=dynamics,
        decoder=_sharp(config, cells, _decoder(config, cells, dynamics)),
        modalities=tuple(config.modalities),
        told_width=config.told_width,
        words=config.text == "words",
        heads=Heads(tuple(config.heads), config.readout) if config.heads else None,
    )
    compute = Compute(config.dtype, config.remat)
    weights = LossWeights(**_plain(config.loss))
    return WorldModel(net, weights, config.resolution, compute, float(config.guidance))


def _encoder(config: Any) -> nn.Module:
    if config.encoder == "conv":
        return ConvEncoder(depth=config.conv_depth, strided=config.conv_strided)
    if config.encoder == "pool":
        return PoolEncoder(config.patch)
    if config.encoder == "vit":
        return VitEncoder(config.patch, config.embed, config.vit_depth, config.vit_heads)
    return PatchEncoder(config.patch, config.embed)


def _decoder(config: Any, cells: tuple[int, int], dynamics: Any) -> nn.Module:
    names = {"deter": "deter", "blocks": "blocks", "units": "hidden"}
    vector = {n: getattr(dynamics, f) for n, f in names.items()} if _is_vector(dynamics) else {}
    if config.decoder == "conv":
        return ConvDecoder(config.resolution, depth=config.conv_depth, **vector)
    if config.decoder == "slots":
        stage = dynamics.stage_cells
        patch = config.patch * dynamics.pool
        sizes = config.resolution, dynamics.width, config.decoder_hidden
        kind = {"turns": bool(dynamics.spin), "hears": dynamics.told_size > 1}
        return SlotDecoder(stage, patch, *sizes, **kind)
    if config.decoder == "mixture":
        return MixtureDecoder(cells, config.patch, config.decoder_hidden)
    spread = VectorToGrid(cells, config.embed, **vector) if vector else None
    return PatchDecoder(cells, config.patch, config.decoder_hidden, spread)


def _sharp(config: Any, cells: tuple[int, int], plain: nn.Module) -> nn.Module:
    """The decoder, and a flow from noise to sharp frames around it if the config asks for one."""
    if not config.sharp_steps:
        return plain
    pool = config.dynamics.get("pool", 1)  # `grid_slots` has encoder cells of few pixels
    cells, patch = (cells[0] // pool, cells[1] // pool), config.patch * pool
    sizes = config.sharp_steps, config.sharp_width, config.sharp_depth
    return FlowDecoder(plain, cells, patch, *sizes)


def _is_vector(dynamics: Any) -> bool:
    """Whether the state is one vector, as the RSSM's, rather than a grid of cells."""
    return hasattr(dynamics, "deter")


def _plain(section: Mapping[str, Any]) -> dict[str, Any]:
    return dict(section)
