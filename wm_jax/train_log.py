"""What a run says of its updates: metrics that are checked, shown and written."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import jax

from wm_jax import recover, train_step
from wm_jax.progress import Progress
from wm_jax.writers import Writer


class TrainLog:
    """Fetches metrics one update late, so that the device never waits for us.

    ``writer`` is replaced where a run goes back. ``begun`` is the time (of `time.monotonic`) from
    which ``time/seconds`` counts; ``corrupt`` says how many records were skipped so far.
    """

    def __init__(
        self, train: Any, frames: int, writer: Writer, begun: float, corrupt: Callable[[], int]
    ):
        """``train`` is that section of the config, ``frames`` those of one update."""
        self.writer = writer
        self.spikes = recover.Spikes(train.spike_factor)
        self._train, self._frames, self._begun, self._corrupt = train, frames, begun, corrupt
        self._late: tuple[int, Any] | None = None
        self._mark = (0, 0.0)  # update and time from which the speed is reckoned

    @property
    def step(self) -> int:
        """The last update that was written."""
        return self._mark[0]

    def begin(self, step: int, rate: Callable[[int], float], bar: Progress) -> None:
        """After so many updates, or again after going back to them."""
        self._late, self._mark = None, (step, time.monotonic())
        self._rate, self._bar = rate, bar

    def add(self, step: int, metrics: Any) -> None:
        """Of the update ``step``, still being computed. Raises `recover.Trouble` for the one before
        if a metric of it is NaN or infinite, or its loss a spike."""
        self.flush()
        self._late = (step, metrics)

    def flush(self) -> None:
        """Waits for the last update. Raises as `add` does."""
        if self._late is None:
            return
        (step, metrics), self._late = self._late, None
        metrics = jax.device_get(metrics)
        bad = train_step.first_not_finite(metrics)
        if bad is not None:
            raise recover.Trouble("not_finite", step, bad, metrics[bad])
        loss = metrics["train/loss/total"]
        if self.spikes.found(float(loss)):
            raise recover.Trouble("spike", step, "train/loss/total", loss)
        now = time.monotonic()
        speed = self._frames * (step - self._mark[0]) / max(now - self._mark[1], 1e-9)
        self._bar.update(step, loss=float(loss), rate=f"{speed:.0f} frames/s")
        if step % self._train.log_every == 0 or step in (1, self._train.steps):
            metrics["train/learning_rate"] = self._rate(step - 1)
            metrics["data/corrupt_records"] = self._corrupt()
            metrics["time/frames_per_second"] = speed
            metrics["time/seconds"] = now - self._begun
            self.writer.row(step, metrics)
            self._mark = (step, now)

    def pause(self, seconds: float) -> None:
        """Time that no update took."""
        self._mark = (self._mark[0], self._mark[1] + seconds)
