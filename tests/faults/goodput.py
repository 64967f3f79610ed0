"""How much of the time is learning, if a run is killed every two minutes?

    python tests/faults/goodput.py --data data/quickstart --minutes 20 --json

A run of a real config is started, killed (SIGKILL) after a time drawn from an exponential
distribution of mean ``--every`` seconds, and started again at once, until ``--minutes`` are over.
Goodput is the updates in its newest whole checkpoint, times the seconds that one takes in a run
that nothing interrupts and that saves nothing (measured first, for ``--reference`` seconds), over
the time on the clock. What it is not: starting (processes, data, compiled programs, restoring), and
updates that were made but not saved.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import shutil
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

LOG_EVERY = 5  # updates


def start(arguments: argparse.Namespace, run: Path, save_every: int) -> subprocess.Popen[bytes]:
    changes = {
        "data.directory": arguments.data,
        "train.minutes": 0,
        "train.steps": 1_000_000,
        "train.checkpoint_every": save_every,
        "train.clip_every": 0,
        "train.keep": 2,
        "train.log_every": LOG_EVERY,
    }
    command = [sys.executable, "-m", "wm_jax", "train", "--config", arguments.config]
    command += ["--workdir", str(run), *(f"--config.{k}={v}" for k, v in changes.items())]
    told = {"JAX_PLATFORMS": "cpu", "JAX_COMPILATION_CACHE_DIR": str(run.parent / "compiled")}
    with (run.parent / "log.txt").open("a") as log:
        return subprocess.Popen(
            command, cwd=ROOT, env=os.environ | told, stdout=log, stderr=log, start_new_session=True
        )


def stop(child: subprocess.Popen[bytes], seconds: float) -> None:
    """Waits, then kills."""
    try:
        status = child.wait(max(seconds, 0.0))
        raise RuntimeError(f"the run ended by itself with status {status}; see its log.txt")
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def seconds_an_update(arguments: argparse.Namespace, work: Path) -> float:
    """Median over rows of a run that saves nothing; its start is left out."""
    from wm_jax.writers import read_rows

    run = work / "reference"
    child, rows = start(arguments, run, 10**6), run / "metrics.jsonl"
    while not read_rows(rows):
        if child.poll() is not None:
            raise RuntimeError((work / "log.txt").read_text()[-2000:])
        time.sleep(0.5)
    stop(child, arguments.reference)
    times = [(row["step"], row["time/seconds"]) for row in read_rows(rows) if row["step"] > 20]
    pairs = zip(times, times[1:], strict=False)
    return statistics.median((b[1] - a[1]) / (b[0] - a[0]) for a, b in pairs)


def measure(arguments: argparse.Namespace, work: Path) -> dict[str, Any]:
    from wm_jax import checkpoint
    from wm_jax.writers import read_rows

    each = seconds_an_update(arguments, work)
    save_every = max(1, round(arguments.save_seconds / each))
    draw, run = random.Random(arguments.seed), work / "run"
    begin, kills, lost, starting = time.monotonic(), 0, 0, []
    while (left := 60 * arguments.minutes - (time.monotonic() - begin)) > 0:
        before = _rows(run)
        started = time.time()
        stop(start(arguments, run, save_every), min(left, draw.expovariate(1 / arguments.every)))
        kills += 1
        events = [e for e in read_rows(run / "events.jsonl") if e["time"] >= started]
        told = [e["time"] for e in events if e["event"] in ("started", "resumed")]
        starting += [told[0] - started] if told else []
        lost += max(_rows(run), before) - max(checkpoint.steps(checkpoint.folder(run)), default=0)
        print(f"{kills} kills, update {_rows(run)}", file=sys.stderr, flush=True)
    wall = time.monotonic() - begin
    kept = max(checkpoint.steps(checkpoint.folder(run)), default=0)
    return {
        "goodput": round(kept * each / wall, 4),
        "seconds": round(wall, 1),
        "mean_seconds_between_kills": arguments.every,
        "kills": kills,
        "updates_kept": kept,
        "seconds_an_update": round(each, 5),
        "updates_a_checkpoint": save_every,
        "updates_lost_in_all": lost,
        "seconds_to_start_median": round(statistics.median(starting), 2) if starting else None,
        "config": arguments.config,
        "seed": arguments.seed,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, CPU backend",
    }


def _rows(run: Path) -> int:
    """The last update that was written down."""
    from wm_jax.writers import read_rows

    return max((row["step"] for row in read_rows(run / "metrics.jsonl")), default=0)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--config", default="experiments/configs/twins.py:quickstart")
    add("--data", default="data/quickstart", help="default %(default)s")
    add("--minutes", type=float, default=20.0, help="default %(default)s")
    add("--every", type=float, default=120.0, help="mean seconds between kills (%(default)s)")
    add("--save-seconds", type=float, default=5.0, help="between checkpoints (%(default)s)")
    add("--reference", type=float, default=40.0, help="seconds of the run that nothing stops")
    add("--seed", type=int, default=0, help="of the times")
    add("--work", type=Path, default=Path("runs/goodput"), help="made anew (%(default)s)")
    add("--json", action="store_true", help="print one line of JSON")
    add("--out", type=Path, help="write the result there too")
    arguments = parser.parse_args()
    work = arguments.work.absolute()
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    result = measure(arguments, work)
    if arguments.out:
        arguments.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result) if arguments.json else json.dumps(result, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
