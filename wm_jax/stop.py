"""Ctrl-C and SIGTERM as a wish: finish this update, save, leave."""

from __future__ import annotations

import signal
import threading
from typing import Any


class StopRequest:
    """In a ``with``, ``requested`` turns True at the first signal; a second Ctrl-C interrupts."""

    signals: tuple[int, ...] = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.requested = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            for number in self.signals:
                self._before[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *_: Any) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def due(self, step: int) -> bool:
        """Whether to leave, with ``step`` updates done. Asked once an update."""
        return self.requested

    def _on_signal(self, number: int, frame: Any) -> None:
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.requested = True
