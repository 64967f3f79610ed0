"""kill -9 at random times of a run, and the same command again until it is done."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import time
from pathlib import Path
from typing import Any, NamedTuple

from tests import tiny
from tests.faults import processes
from wm_jax.manifest import MANIFEST, steps
from wm_jax.writers import read_rows

#: Share of the kills that may fall before the first update.
AT_START = 0.15
#: Seconds over which the others are spread after a random update: about a save's.
SPREAD = 0.3


def outcome(work: Path, workdir: Path) -> dict[str, Any]:
    """What a finished run left, timings aside."""
    out = work / "digest.json"
    processes.call(processes.digests, work / "log.txt", workdir, out)
    pictures = sorted((workdir / "clips").glob("*.png"))
    return {
        "arrays": json.loads(out.read_text())[str(processes.STEPS)],
        "metrics": tiny.rows(workdir),
        "config": (workdir / "config.json").read_text(),
        "clips": [hashlib.sha256(path.read_bytes()).hexdigest() for path in pictures],
    }


def reference(work: Path) -> dict[str, Any]:
    """A run that nothing stops: what it leaves, and how long it takes to its first update."""
    path, workdir = work / "reference.json", work / "reference"
    if not path.exists():
        shutil.rmtree(workdir, ignore_errors=True)
        for _ in range(2):  # the first one compiles
            shutil.rmtree(workdir, ignore_errors=True)
            begin = time.time()
            processes.call(processes.train, work / "log.txt", workdir)
        times = {row["event"]: row["time"] for row in read_rows(workdir / "events.jsonl")}
        start = {"start_seconds": times["started"] - begin}
        path.write_text(json.dumps(outcome(work, workdir) | start))
    return json.loads(path.read_text())


def run(work: Path, number: int, limit: int, seed: int) -> dict[str, Any]:
    """One run, killed at most ``limit`` times on its way to the end: where it was killed, what was
    lost, and whether it ended as the reference did."""
    wanted = reference(work)
    rng, workdir = random.Random(f"{seed} kills {number}"), work / "killed"
    shutil.rmtree(workdir, ignore_errors=True)
    phases: list[str] = []
    lost: list[int] = []
    reached = 0  # the last update that is known to have been done before a kill
    while True:
        before = len(_begun(workdir))
        child = processes.start(processes.train, work / "log.txt", workdir)
        moment = _moment(rng, wanted["start_seconds"]) if len(phases) < limit else None
        status = _kill(child, workdir, before, moment)
        begun = _begun(workdir)
        if len(begun) > before and phases:
            lost.append(max(reached - begun[before], 0))
            reached = begun[before]
        if status != -signal.SIGKILL:
            break
        phases.append(_phase(workdir))
        rows = read_rows(workdir / "metrics.jsonl")
        reached = max([reached, *(row["step"] for row in rows)])
    if status:
        problem = f"left with {status}: {(work / 'log.txt').read_text()[-500:]}"
        differ = ["status"]
    else:
        got, problem = outcome(work, workdir), ""
        differ = [key for key in got if got[key] != wanted[key]]
    return {"kind": "run", "number": number, "kills": len(phases), "phases": phases,
            "lost": lost, "differ": differ, "problem": problem}  # fmt: skip


class Moment(NamedTuple):
    """When to kill: ``seconds`` after a process was launched, or (``updates`` not None) after it
    did so many updates."""

    updates: int | None
    seconds: float


def _moment(rng: random.Random, start: float) -> Moment:
    """``start``: seconds from a launch to the first update."""
    if rng.random() < AT_START:
        return Moment(None, rng.uniform(0, start))
    # Up to half of the run, and anywhere between one checkpoint and the next.
    return Moment(rng.randint(0, processes.STEPS // 2), rng.uniform(0, SPREAD))


def _kill(child: int, workdir: Path, before: int, moment: Moment | None) -> int:
    """Kills the process at its moment, unless it ends before; its status."""
    since = time.monotonic() if moment and moment.updates is None else None
    while (status := processes.ended(child)) is None:
        if moment and since is None and _done(workdir, before) >= (moment.updates or 0):
            since = time.monotonic()
        if moment and since is not None and time.monotonic() - since >= moment.seconds:
            os.kill(child, signal.SIGKILL)
            return processes.finish(child)
        time.sleep(0.01)
    return status


def _done(workdir: Path, before: int) -> int:
    """Updates that a process did since it began; -1 where it did not begin yet."""
    begun = _begun(workdir)
    if len(begun) <= before:
        return -1
    rows = read_rows(workdir / "metrics.jsonl")
    return max((row["step"] for row in rows), default=0) - begun[-1]


def _begun(workdir: Path) -> list[int]:
    """Updates that the run started or resumed from so far."""
    events = read_rows(workdir / "events.jsonl")
    return [row["step"] for row in events if row["event"] in ("started", "resumed")]


def _phase(workdir: Path) -> str:
    """What a killed process was at: a save leaves its traces on the disk."""
    directory = workdir / "checkpoints"
    half = [step for step in steps(directory) if not (directory / str(step) / MANIFEST).exists()]
    if half or list(directory.glob("*orbax-checkpoint-tmp*")):
        return "save"
    path = workdir / "phase"
    return path.read_text() if path.exists() else "start"


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    phases = [phase for row in rows for phase in row["phases"]]
    lost = [updates for row in rows for updates in row["lost"]]
    return {
        "kills": len(phases),
        "phases": {name: phases.count(name) for name in sorted(set(phases))},
        "runs": len(rows),
        "runs_that_differ": [row for row in rows if row["differ"]],
        "checkpoint_every": processes.EVERY,
        "most_updates_lost": max(lost, default=0),
        "mean_updates_lost": round(sum(lost) / len(lost), 2) if lost else 0.0,
    }
