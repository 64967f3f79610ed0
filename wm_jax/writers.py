"""What a run leaves to look at: rows of metrics, events, TensorBoard files, open-loop clips."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float


class Writer:
    """Appends to ``metrics.jsonl`` (one row a logged update), ``events.jsonl`` (what happened when)
    and, where tensorboardX is installed, ``tensorboard/``.

    Rows after ``step`` are dropped: a run that resumes there writes them again. Keys ``time/…`` are
    the only ones that differ between two runs of one config.
    """

    def __init__(self, workdir: Path, step: int = 0):
        workdir.mkdir(parents=True, exist_ok=True)
        _truncate(workdir / "metrics.jsonl", step)
        self._metrics = (workdir / "metrics.jsonl").open("a")
        self._events = (workdir / "events.jsonl").open("a")
        self._board = _tensorboard(workdir / "tensorboard", step)

    @property
    def has_tensorboard(self) -> bool:
        return self._board is not None

    def row(self, step: int, values: Mapping[str, float]) -> None:
        """Finite numbers of one update; ``step`` is the number of updates done."""
        row = {"step": step} | {name: float(value) for name, value in values.items()}
        self._metrics.write(json.dumps(row, allow_nan=False) + "\n")
        self._metrics.flush()
        for name, value in values.items() if self._board is not None else ():
            self._board.add_scalar(name, float(value), step)

    def event(self, kind: str, step: int, **what: Any) -> None:
        row = {"time": round(time.time(), 3), "step": step, "event": kind} | what
        self._events.write(json.dumps(row) + "\n")
        self._events.flush()

    def close(self) -> None:
        self._metrics.close()
        self._events.close()
        if self._board is not None:
            self._board.close()


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Rows of a ``metrics.jsonl``; a last line that was cut off by a kill is left out."""
    rows = []
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            rows.append(json.loads(line))
        except ValueError:
            break
    return rows


def _truncate(path: Path, step: int) -> None:
    rows = read_rows(path)
    if rows:
        kept = "".join(json.dumps(row) + "\n" for row in rows if row["step"] <= step)
        partial = path.with_suffix(".partial")
        partial.write_text(kept)
        partial.replace(path)


def _tensorboard(folder: Path, step: int) -> Any:
    """A tensorboardX writer, or None where the package is missing."""
    try:
        from tensorboardX import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder), purge_step=step + 1, write_to_disk=True)


def draw_clip(
    path: Path,
    truth: Float[np.ndarray, "b t h w 3"],
    prediction: Float[np.ndarray, "b t h w 3"],
    *,
    every: int = 4,
    scale: int = 2,
) -> None:
    """``<path>.png``, a filmstrip of every ``every``-th frame, and ``<path>.gif``, all frames.

    Three rows an episode: truth, prediction, error. Frames in [0, 1]; in the error, grey is none.
    """
    from PIL import Image

    prediction = np.clip(prediction, 0, 1)
    error = 0.5 + 0.5 * (prediction - truth)
    rows = np.stack([truth, prediction, error], 1)
    pixels = np.rint(rows * 255).astype(np.uint8).repeat(scale, 3).repeat(scale, 4)
    b, kinds, t, h, w, c = pixels.shape
    path.parent.mkdir(parents=True, exist_ok=True)
    strip = pixels[:, :, ::every].transpose(0, 1, 3, 2, 4, 5)
    strip = strip.reshape(b * kinds * h, -1, c)
    Image.fromarray(strip).save(path.with_suffix(".png"))
    film = pixels.transpose(2, 1, 3, 0, 4, 5).reshape(t, kinds * h, b * w, c)
    first, *rest = [Image.fromarray(frame) for frame in film]
    first.save(path.with_suffix(".gif"), save_all=True, append_images=rest, duration=80, loop=0)
