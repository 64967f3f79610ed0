"""Workers: so many at a time, each on its own share of the cores, all gone when we go."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from wm_jax.errors import UserError
from wm_jax.studies import provenance
from wm_jax.studies.plan import Job
from wm_jax.studies.view import View
from wm_jax.studies.worker import COMPILED, STOPPED

LOG = "log.txt"
QUICK = "--xla_backend_optimization_level=0"


class _Worker(NamedTuple):
    job: Job
    process: subprocess.Popen[bytes]
    place: int  # which share of the cores


def run_all(
    stage: str,
    jobs: Sequence[Job],
    *,
    at_once: int,
    quick: bool,
    cold: bool,
    stream: TextIO | None = None,
) -> None:
    """Runs the jobs that are not done. ``quick`` compiles without optimising; ``cold`` gives every
    run a compilation cache of its own, so that all of them pay for compiling.

    Raises `UserError` where a worker fails; the others are told to save and leave, as they are on
    Ctrl-C.
    """
    view = View(stage, jobs, stream)
    waiting = [job for job in jobs if not job.done()]
    if not waiting:
        return
    shares = _shares(at_once)
    running: list[_Worker] = []
    try:
        while waiting or running:
            free = set(range(len(shares))) - {worker.place for worker in running}
            while waiting and free:
                place, job = free.pop(), waiting.pop(0)
                running.append(_Worker(job, _start(job, shares[place], quick, cold), place))
            time.sleep(0.2)
            for worker in [w for w in running if w.process.poll() is not None]:
                running.remove(worker)
                _release(worker)
                _check(worker)
            view.show([worker.job for worker in running], last=not (waiting or running))
    finally:
        for worker in running:
            _release(worker)
        for worker in running:
            worker.process.wait()


def _shares(at_once: int) -> list[list[int]]:
    """The cores of each worker: disjoint and of equal number. [] where they are not bound."""
    cores = provenance.cores()
    if at_once == 1:
        return [[]]
    each = len(cores) // at_once
    if not each:
        raise UserError(f"--jobs {at_once} is more than the {len(cores)} cores there are.")
    return [cores[i * each : (i + 1) * each] for i in range(at_once)]


def _start(job: Job, cores: list[int], quick: bool, cold: bool) -> subprocess.Popen[bytes]:
    job.workdir.mkdir(parents=True, exist_ok=True)
    content = job.content | {
        "workdir": str(job.workdir), "result": str(job.result), "cores": cores,
    }  # fmt: skip
    path = job.workdir / "job.json"
    path.write_text(json.dumps(content, indent=1))
    command = [sys.executable, "-m", "wm_jax.studies.worker", str(path)]
    with (job.workdir / LOG).open("ab") as log:
        return subprocess.Popen(
            command,
            env=_environment(job.workdir, quick, cold),
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            start_new_session=True,  # Ctrl-C reaches us alone; we tell the workers
        )


def _environment(workdir: Path, quick: bool, cold: bool) -> dict[str, Any]:
    env = dict(os.environ)
    if cold:
        env["JAX_COMPILATION_CACHE_DIR"] = str((workdir / COMPILED).absolute())
    else:
        env.setdefault("JAX_COMPILATION_CACHE_DIR", os.path.expanduser("~/.cache/wm_jax"))
    if quick:
        env["XLA_FLAGS"] = f"{env.get('XLA_FLAGS', '')} {QUICK}".strip()
    # The package that runs here is the one that runs there.
    root = str(Path(__file__).parents[2])
    env["PYTHONPATH"] = os.pathsep.join(filter(None, [root, env.get("PYTHONPATH")]))
    return env


def _release(worker: _Worker) -> None:
    """Closes our end of its stdin: the sign to save and leave."""
    assert worker.process.stdin is not None
    worker.process.stdin.close()


def _check(worker: _Worker) -> None:
    status, log = worker.process.returncode, worker.job.workdir / LOG
    if status == 0:
        return
    if status == STOPPED:
        raise KeyboardInterrupt
    lines = log.read_text(errors="replace").strip().splitlines()
    last = lines[-1] if lines else f"it left with status {status}"
    raise UserError(f"{worker.job.name} failed: {last} (all of it: {log})")
