"""What a run leaves to look at: rows of metrics, events, TensorBoard files, open-loop clips."""

from __future__ import annotations

import contextlib
import io
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from jaxtyping import Float


class Writer:
    """Appends to ``metrics.jsonl`` (one row a logged update), ``events.jsonl`` (what happened when)
    and, where tensorboardX is installed, ``tensorboard/``.

    Rows after ``step`` are dropped: a run that resumes there writes them again. Keys ``time/…`` are
    the only ones that differ between two runs of one config. Without a workdir nothing is kept.
    """

    def __init__(self, workdir: Path | None, step: int = 0):
        self._board: _Board | None = None
        self._metrics: TextIO
        self._events: TextIO
        if workdir is None:
            self._metrics = self._events = io.StringIO()
            return
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
        if self._board is not None:
            self._board.row(step, values)

    def event(self, kind: str, step: int, **what: Any) -> None:
        row = {"time": round(time.time(), 3), "step": step, "event": kind} | what
        self._events.write(json.dumps(row) + "\n")
        self._events.flush()

    def close(self) -> None:
        with contextlib.ExitStack() as files:  # all of them, also where one raises
            for file in (self._metrics, self._events, self._board):
                if file is not None:
                    files.callback(file.close)


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
    if path.exists():
        kept = "".join(json.dumps(row) + "\n" for row in read_rows(path) if row["step"] <= step)
        partial = path.with_suffix(".partial")
        partial.write_text(kept)
        partial.replace(path)


class _Board:
    """A TensorBoard event file, written at once and in this thread: its errors are ours to tell."""

    def __init__(self, folder: Path, step: int):
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto import event_pb2, summary_pb2

        folder.mkdir(exist_ok=True)
        self._event, self._summary = event_pb2.Event, summary_pb2.Summary
        self._file = EventsWriter(str(folder / "events"), f".{step}")
        # Hides what a run before this one wrote after ``step``.
        start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        self._write(step=step + 1, session_log=start)

    def row(self, step: int, values: Mapping[str, float]) -> None:
        value = [self._summary.Value(tag=k, simple_value=float(v)) for k, v in values.items()]
        self._write(step=step, summary=self._summary(value=value))

    def close(self) -> None:
        self._file.close()

    def _write(self, **what: Any) -> None:
        self._file.write_event(self._event(wall_time=time.time(), **what))


def _tensorboard(folder: Path, step: int) -> _Board | None:
    """None where tensorboardX is missing."""
    try:
        return _Board(folder, step)
    except ImportError:
        return None


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
