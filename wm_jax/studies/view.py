"""All runs of a study at once: a line an arm on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

from wm_jax.studies.plan import Job
from wm_jax.writers import read_rows

BAR = 10  # characters


class View:
    """Shows ``jobs`` of one ``stage``; call `show` about once a second."""

    def __init__(self, stage: str, jobs: Sequence[Job], stream: TextIO | None = None):
        self._stage, self._jobs = stage, list(jobs)
        self._stream = sys.stderr if stream is None else stream
        self._live = self._stream.isatty()
        self._begin = self._shown = time.monotonic()
        self._already = sum(job.done() for job in self._jobs)
        self._lines = 0

    def show(self, running: Sequence[Job], last: bool = False) -> None:
        now = time.monotonic()
        if not last and now - self._shown < (1 if self._live else 30):
            return
        self._shown = now
        done = sum(job.result.exists() for job in self._jobs)
        head = f"{self._stage} {done}/{len(self._jobs)} runs  {self._clock(done, running)}"
        if self._live:
            text = [head, *self._table(running)]
            up = f"\x1b[{self._lines}A" if self._lines else ""
            self._stream.write(up + "".join(f"\x1b[2K{line}\n" for line in text))
            self._lines = len(text)
        else:
            doing = "; ".join(f"{job.name} {progress_text(job)}" for job in running)
            self._stream.write(f"{head}  {doing}".rstrip() + "\n")
        self._stream.flush()

    def _clock(self, done: int, running: Sequence[Job]) -> str:
        """Time spent, and time left at the pace so far."""
        spent = time.monotonic() - self._begin
        new = done - self._already + sum(share(job) for job in running)
        left = spent / new * (len(self._jobs) - self._already - new) if new > 0.05 else None
        return _minutes(spent) + " done" + ("" if left is None else f", {_minutes(left)} left")

    def _table(self, running: Sequence[Job]) -> list[str]:
        arms = dict.fromkeys(job.content.get("arm", job.name) for job in self._jobs)
        width = max(len(arm) for arm in arms)
        lines = []
        for arm in arms:
            mine = [job for job in self._jobs if job.content.get("arm", job.name) == arm]
            cells = [self._cell(job, job in running) for job in mine]
            lines.append(f"  {arm:<{width}}  " + "  ".join(cells))
        return lines

    def _cell(self, job: Job, running: bool) -> str:
        if job.result.exists():
            return "█" * BAR
        if not running:
            return "·" * BAR
        full = round(share(job) * BAR)
        return "█" * full + "░" * (BAR - full)


def share(job: Job) -> float:
    """How much of a run's training is done, in [0, 1]."""
    step, steps, _ = _state(job.workdir)
    return min(1.0, step / steps) if steps else 0.0


def progress_text(job: Job) -> str:
    """Update, updates and loss of a run, or what it does where there is none."""
    step, steps, loss = _state(job.workdir)
    if not steps:
        return "starting"
    if step >= steps:
        return "judging"
    return f"update {step}/{steps}" + ("" if loss is None else f" loss {loss:.4g}")


def _state(workdir: Path) -> tuple[int, int, float | None]:
    try:
        steps = int(json.loads((workdir / "config.json").read_text())["train"]["steps"])
        rows: list[dict[str, Any]] = read_rows(workdir / "metrics.jsonl")
    except (OSError, ValueError, KeyError):
        return 0, 0, None
    if not rows:
        return 0, steps, None
    return rows[-1]["step"], steps, rows[-1].get("train/loss/total")


def _minutes(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"
