"""Weights that lie somewhere: of a run, or of an export."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax.numpy as jnp
from jaxtyping import PyTree

from wm_jax import checkpoint, remote
from wm_jax import config as configs
from wm_jax.errors import MissingExtra, UserError


def read(path: str | Path, step: int | None = None) -> tuple[PyTree, Any, int]:
    """Weights, config and updates (0 of an export) of a run's folder or URL, or of an export's
    folder. ``step``: of a run, an earlier checkpoint. Raises `UserError` where there is neither."""
    folder = remote.folder(path)
    if (folder / "manifest.json").is_file() and (folder / "model.safetensors").is_file():
        return *_exported(folder), 0
    return checkpoint.restore_params(path, step)


def _exported(folder: Path) -> tuple[PyTree, Any]:
    try:
        from wm_jax import export_loader, programs
    except ImportError as error:
        raise MissingExtra(error.name or "safetensors", "export") from None
    try:
        weights = export_loader.weights(folder)
    except export_loader.LoadError as error:
        raise UserError(str(error)) from None
    params = programs.unflatten({name: jnp.asarray(value) for name, value in weights.items()})
    return params, configs.from_json((folder / "config.json").read_text())
