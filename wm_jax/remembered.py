"""States that are followed once: what a model makes of frames, where that does not learn.

A run that learns only what hears (``optim.only``) sees every frame as it saw it an epoch before. So
with ``train.remember`` each episode gives one window, always the same; what the dynamics make of it
(their ``remember``) is computed before the first update and comes with every batch, and an update
costs what it learns.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

from data_pipelines.memory import MemoryLoader
from data_pipelines.window import collate
from wm_jax import mesh as meshes
from wm_jax.errors import UserError
from wm_jax.progress import Progress
from wm_jax.stop import StopRequest


def check(model: Any) -> None:
    """Raises `UserError` for a model whose dynamics have nothing to remember."""
    if not hasattr(model.net.dynamics, "remember"):
        raise UserError(
            f"config.train.remember: {type(model.net.dynamics).__name__} has nothing to remember; "
            "set it to False, or model.name=grid_slots."
        )
    if jax.process_count() > 1:
        raise UserError("config.train.remember=True works on one process; set it to False.")


class Remembering:
    """A `MemoryLoader` of fixed windows whose batches hold ``followed/<name>`` too."""

    def __init__(self, loader: MemoryLoader, model: Any, params: PyTree, rows: int):
        self._loader, self._rows = loader, rows
        self._params = jax.device_put(jax.device_get(params), jax.local_devices()[0])
        self._remember = jax.jit(model.remember)
        self._known: list[dict[str, np.ndarray]] = []

    def fill(self, stop: StopRequest) -> bool:
        """Follows every window, and says how far it is; whether it came to its end."""
        count = len(self._loader.episodes)
        with Progress(count, "follow", unit="windows") as bar:
            for first in range(0, count, self._rows):
                if stop.requested:
                    return False
                indices = range(first, min(first + self._rows, count))
                windows = [self._loader.fixed_window(i) for i in indices]
                windows += [windows[-1]] * (self._rows - len(windows))
                batch = meshes.to_batch(collate(windows))
                made = jax.device_get(self._remember(self._params, batch))
                self._known += [{k: x[i] for k, x in made.items()} for i in range(len(indices))]
                bar.update(len(self._known))
        return True

    def __iter__(self) -> Remembering:
        return self

    def __next__(self) -> dict[str, np.ndarray]:
        batch = dict(next(self._loader))
        rows = [self._known[i] for i in batch.pop("episode")]
        return batch | {f"followed/{k}": np.stack([row[k] for row in rows]) for k in rows[0]}

    def blank(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """A batch without data, as `Makings.blank` makes it, with what would be remembered."""
        made = jax.eval_shape(self._remember, self._params, meshes.to_batch(batch))
        return batch | {f"followed/{k}": np.zeros(x.shape, x.dtype) for k, x in made.items()}

    @property
    def corrupt(self) -> dict[int, str]:
        """Of the loader."""
        return self._loader.corrupt

    def position(self) -> dict[str, Any]:
        """Of the loader."""
        return self._loader.position()

    def seek(self, position: Mapping[str, Any]) -> None:
        """Of the loader."""
        self._loader.seek(position)

    def close(self) -> None:
        """Of the loader."""
        self._loader.close()
