"""A hung update as an end with a reason: stacks on disk, a word in events.jsonl, a status.

An update hangs where another process is gone, a file system does not answer, or a lock is never
let go. Left alone it would hold its machines until somebody looks.
"""

from __future__ import annotations

import faulthandler
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

#: Status of a process that hung: EX_TEMPFAIL of sysexits.h, the same command may go on.
STATUS = 75
#: Seconds that the last words may take.
GRACE = 10.0
#: As a number: the last words wait for no lock of a hung writer.
STDERR = 2


class Watchdog:
    """In a ``with``, ends the process where `beat` is not called for ``seconds`` (0: never).

    The stacks of all threads go to ``stacks`` and to stderr, then ``tell`` is called, then the
    process is gone, without any clean-up: what hangs can't be cleaned up. A process that was
    stopped for a while (SIGSTOP, a sleeping laptop) did not hang and is spared.
    """

    def __init__(self, seconds: float, stacks: Path, tell: Callable[[], None]):
        self._seconds, self._stacks, self._tell = seconds, stacks, tell
        self._beats = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def __enter__(self) -> Watchdog:
        if self._seconds:
            self._thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._over.set()
        if self._seconds:
            self._thread.join()

    def beat(self) -> None:
        """An update is done."""
        self._beats += 1

    def _watch(self) -> None:
        nap = min(self._seconds / 20, 5.0)
        seen, quiet, last = self._beats, 0.0, time.monotonic()
        while not self._over.wait(nap):
            now = time.monotonic()
            # A nap that took far longer than asked for was slept by the whole process.
            quiet += min(now - last, 2 * nap)
            last = now
            if self._beats != seen:
                seen, quiet = self._beats, 0.0
            elif quiet >= self._seconds:
                self._end()

    def _end(self) -> None:
        # Even if what follows hangs as well.
        faulthandler.dump_traceback_later(GRACE, exit=True, file=STDERR)
        try:
            with self._stacks.open("w") as file:
                faulthandler.dump_traceback(file)
            os.write(STDERR, self._stacks.read_bytes())
            self._tell()
        finally:
            os._exit(STATUS)
