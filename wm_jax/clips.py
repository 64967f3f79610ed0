"""Open-loop clips while a run trains: what the model predicts for a few held-out episodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, PyTree

from data_pipelines import window
from data_pipelines.input import open_split
from wm_jax import mesh as meshes
from wm_jax import shapes
from wm_jax.errors import UserError
from wm_jax.writers import draw_clip


class Clips:
    """Draws the same ``count`` episodes each time: ``context`` frames shown, ``horizon`` predicted
    (fewer where the episodes are shorter)."""

    def __init__(
        self,
        model: Any,
        source: Sequence[Mapping[str, Any]],
        conditions: Sequence[str],
        mesh: Mesh,
        *,
        count: int,
        context: int,
        horizon: int,
    ):
        episodes = [window.trim(source[i], conditions) for i in range(min(count, len(source)))]
        length = min(context + horizon, *(len(episode["frames"]) for episode in episodes))
        if length <= context:
            raise UserError(
                f"config.eval.context={context} leaves no frame to predict in episodes of "
                f"{length} frames; lower it."
            )
        arrays = window.collate([window.cut(episode, 0, length) for episode in episodes])
        whole = meshes.replicated(mesh)
        self._batch = meshes.to_batch(arrays, lambda x: jax.device_put(x, whole))
        self._truth = arrays["frames"][:, context:].astype(np.float32) / 255
        self._predict = jax.jit(
            lambda params, batch: predict(model, params, batch, context), out_shardings=whole
        )

    def draw(self, params: PyTree, path: Path | None) -> dict[str, float]:
        """Writes ``path``.png and .gif (None: neither, but every process must take part); returns
        the mean PSNR in dB over the horizon, and at its first step."""
        prediction = np.asarray(self._predict(params, self._batch))
        if path is not None:
            draw_clip(path, self._truth, prediction)
        squared = np.square(np.clip(prediction, 0, 1) - self._truth).mean((2, 3, 4))
        psnr = -10 * np.log10(np.maximum(squared, 1e-10))
        if not np.isfinite(psnr).all():
            return {}
        return {"clip/psnr_db": float(psnr.mean()), "clip/psnr_step1_db": float(psnr[:, 0].mean())}


def open_clips(
    config: Any, model: Any, mesh: Mesh, source: Sequence[Mapping[str, Any]] | None
) -> Clips | None:
    """The clips that a config asks for, of ``source`` or else of the split that it names; None
    where it asks for none."""
    if not config.train.clip_every:
        return None
    return Clips(
        model,
        open_split(config.data, config.eval.split) if source is None else source,
        tuple(config.data.conditions),
        mesh,
        count=config.train.clip_episodes,
        context=config.eval.context,
        horizon=config.eval.horizon,
    )


def predict(
    model: Any, params: PyTree, batch: shapes.Batch, context: int
) -> Float[Array, "b t h w c"]:
    """Frames ``context`` and later of a batch, in [0, 1], from those before."""
    key = jax.random.PRNGKey(0)
    before = jax.tree.map(lambda x: x[:, :context], batch)
    state = shapes.encode(model, params, before.frames, before.conditions, key)
    told = shapes.conditions_for_steps(batch.conditions)
    told = jax.tree.map(lambda x: x[:, context:], told)
    steps = batch.frames.shape[1] - context
    return shapes.rollout(model, params, state, steps, told, jnp.asarray(key)).frames
