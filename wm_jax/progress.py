"""How far a long part is: a bar on a terminal, a plain line now and then anywhere else."""

from __future__ import annotations

import sys
import time
from typing import Any, TextIO


class Progress:
    """Counts towards ``total``; use it in a ``with``. Writes to stderr, so stdout stays clean.

    ``label`` names the part, ``unit`` what is counted. `update` takes the new count and what to
    show beside it, for example ``loss=0.12, rate="840 frames/s"``; time left is worked out here.
    """

    def __init__(
        self,
        total: int,
        label: str,
        unit: str = "updates",
        initial: int = 0,
        stream: TextIO | None = None,
        seconds: float = 10.0,
    ):
        self._total, self._label, self._unit = total, label, unit
        self._initial, self._count = initial, initial
        self._stream = sys.stderr if stream is None else stream
        self._seconds = seconds
        self._begin = self._shown = time.monotonic()
        self._shows: dict[str, Any] = {}
        self._bar = self._make_bar() if self._stream.isatty() else None

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: Any) -> None:
        if self._bar is not None:
            self._bar.close()
        elif self._count > self._initial:
            self._line(time.monotonic())

    def update(self, count: int, **shows: Any) -> None:
        """``count`` done in all."""
        done, self._count, self._shows = count - self._count, count, shows
        if self._bar is not None:
            self._bar.set_postfix_str(self._text(), refresh=False)
            self._bar.update(done)
            return
        now = time.monotonic()
        if now - self._shown >= self._seconds:
            self._line(now)
            self._shown = now

    def note(self, sentence: str) -> None:
        """A line of its own, above the bar."""
        if self._bar is not None:
            self._bar.write(sentence, file=self._stream)
        else:
            print(sentence, file=self._stream, flush=True)

    def _make_bar(self) -> Any:
        from tqdm import tqdm

        return tqdm(
            total=self._total,
            initial=self._initial,
            desc=self._label,
            unit=f" {self._unit}",
            file=self._stream,
            dynamic_ncols=True,
            bar_format="{desc} {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt}{unit}"
            "  {elapsed} done, {remaining} left  {postfix}",
        )

    def _text(self) -> str:
        parts = [v if k == "rate" else f"{k} {_short(v)}" for k, v in self._shows.items()]
        return "  ".join(str(part) for part in parts)

    def _line(self, now: float) -> None:
        done, elapsed = self._count - self._initial, now - self._begin
        left = elapsed / done * (self._total - self._count) if done else 0.0
        print(
            f"{self._label} {self._count}/{self._total} {self._unit}  {_clock(elapsed)} done, "
            f"{_clock(left)} left  {self._text()}".rstrip(),
            file=self._stream,
            flush=True,
        )


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"
