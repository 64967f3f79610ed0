"""Trainings of the tiny model as processes of their own, which may be killed.

A process is forked from one that has imported everything and started nothing of JAX: its start
costs little, and what it does from there on is what any training does.
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from data_pipelines.memory import MemoryLoader
from tests import tiny
from wm_jax import train as training
from wm_jax.manifest import steps

#: Of one run: a checkpoint every `EVERY` updates, and two clips.
STEPS, EVERY, CLIP_EVERY = 60, 10, 30
#: Seconds that a batch takes, so that kills fall among updates too and not among saves alone.
BATCH = 0.02


def start(function: Callable[..., Any], log: Path, *arguments: Any) -> int:
    """Calls ``function`` in a process of its own; returns its id. Its words go to ``log``."""
    with warnings.catch_warnings():
        # JAX and Python warn of forking beside threads; none of JAX's runs before `function`.
        warnings.filterwarnings("ignore", message=".*fork")
        child = os.fork()
    if child:
        return child
    status = 1
    try:
        with log.open("a") as words:
            os.dup2(words.fileno(), 1)
            os.dup2(words.fileno(), 2)
        function(*arguments)
        status = 0
    except BaseException:  # noqa: BLE001, told in the log
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def finish(child: int) -> int:
    """Waits; the status that the process left with, or minus the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def ended(child: int) -> int | None:
    """Its status, or None while it is there."""
    found, status = os.waitpid(child, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if found else None


def call(function: Callable[..., Any], log: Path, *arguments: Any) -> None:
    """Calls ``function`` in a process of its own and waits. Raises where that failed."""
    status = finish(start(function, log, *arguments))
    if status:
        raise RuntimeError(f"a process left with {status}:\n{log.read_text()[-2000:]}")


def train(workdir: Path, keep: int = 2) -> None:
    """One run, or the rest of it. ``workdir/phase`` says what it is at."""

    def phase(name: str) -> None:
        (workdir / "phase").write_text(name)

    def patched(owner: Any, name: str, before: str) -> None:
        method = getattr(owner, name)

        def call(*arguments: Any) -> Any:
            phase(before)
            result = method(*arguments)
            phase("train")
            return result

        setattr(owner, name, call)

    serve = MemoryLoader.__next__

    def slowly(loader: MemoryLoader) -> Any:
        time.sleep(BATCH)
        return serve(loader)

    workdir.mkdir(parents=True, exist_ok=True)
    phase("start")
    MemoryLoader.__next__ = slowly  # type: ignore[method-assign]
    patched(training.Run, "_draw_clip", "clip")
    patched(training.Run, "_advance", "train")
    tiny.train(
        workdir,
        train__steps=STEPS,
        train__checkpoint_every=EVERY,
        train__clip_every=CLIP_EVERY,
        train__log_every=1,
        train__keep=keep,
    )


def digests(workdir: Path, out: Path) -> None:
    """Writes SHA-256 over all arrays and the data position of every checkpoint, by update."""
    found = steps(workdir / "checkpoints")
    out.write_text(json.dumps({str(step): tiny.digest(workdir, step) for step in found}))
