"""After a NaN or a spike: back to a checkpoint, on later data, and not for ever.

What was skipped is kept in ``workdir/recoveries.json``, so that a run that is killed meanwhile goes
on with the very same data.
"""

from __future__ import annotations

import collections
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from wm_jax.errors import UserError

#: Losses that a spike is judged by, and how many there must be.
RECENT = 100
LEAST = 20


class Trouble(Exception):
    """An update that must not stay. ``kind``: 'not_finite' or 'spike'."""

    def __init__(self, kind: str, step: int, metric: str, value: Any):
        super().__init__(f"{metric} is {value} at update {step}")
        self.kind, self.step, self.metric, self.value = kind, step, metric, float(value)


class Spikes:
    """Tells a loss above ``factor`` times the median of the last `RECENT` ones; 0 never tells.

    Nor does a median that isn't positive: a loss that may be negative has no such scale.
    """

    def __init__(self, factor: float):
        self._factor = factor
        self._losses: collections.deque[float] = collections.deque(maxlen=RECENT)

    def found(self, loss: float) -> bool:
        """Whether this is one. If not, it counts among the recent ones."""
        if not self._factor:
            return False
        median = float(np.median(self._losses)) if len(self._losses) >= LEAST else 0.0
        if median > 0 and loss > self._factor * median:
            return True
        self._losses.append(loss)
        return False

    def position(self) -> dict[str, list[float]]:
        """What a checkpoint must hold beside the position in the data; nothing without a rule."""
        return {"recent_losses": list(self._losses)} if self._factor else {}

    def seek(self, losses: Iterable[float]) -> None:
        self._losses = collections.deque(losses, maxlen=RECENT)


class Recoveries:
    """Where a run went back to (update 0 is the start), and at what position of the data it went
    on from there. Those to updates after ``step`` are forgotten: they come again."""

    def __init__(self, workdir: Path, step: int, writes: bool):
        self._path, self._writes = workdir / "recoveries.json", writes
        try:
            rows = json.loads(self._path.read_text()) if self._path.exists() else []
        except ValueError:
            raise UserError(
                f"{self._path} cannot be read, and it says what data to skip; remove it to go on "
                "without."
            ) from None
        self._rows: list[dict[str, Any]] = [row for row in rows if row["to"] <= step]
        if len(self._rows) < len(rows):
            self._write()

    def tries(self, step: int) -> int:
        """How often the run went back to this update."""
        return sum(row["to"] == step for row in self._rows)

    def position(self, step: int) -> dict[str, Any] | None:
        """Where the data goes on after the last return to this update; None if there was none."""
        rows = [row for row in self._rows if row["to"] == step]
        return rows[-1]["position"] if rows else None

    def add(self, step: int, trouble: Trouble, position: dict[str, Any]) -> None:
        row = {"to": step, "from": trouble.step, "kind": trouble.kind, "metric": trouble.metric}
        self._rows.append(row | {"position": position})
        self._write()

    def _write(self) -> None:
        if self._writes:
            partial = self._path.with_suffix(".partial")
            partial.write_text(json.dumps(self._rows, indent=1))
            partial.replace(self._path)
