"""wm_jax: video world models that can be learned, edited, measured and shipped.

Importing the package imports nothing else. Take what you need from its modules, for example ``from
wm_jax import shapes``; `load` opens a trained model.
"""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0"


def load(path: Any, step: int | None = None) -> Any:
    """A trained model to be steered, of a run's or an export's folder: a `wm_jax.world.World`."""
    from wm_jax import world

    return world.load(path, step)
