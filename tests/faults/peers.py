"""Two processes of one run: one is lost, what does the other do? And the run goes on with 2, 1, 4.

    python tests/faults/peers.py --json

The processes are started as a cluster would, without `launch/local_hosts`, which stops the others
by itself. Rows: what was done to which process (0 is the coordinator), seconds until the other had
left, its status, and whether its last words name the lost one; then, for 2, 1 and 4 processes that
share four devices, whether the state that they restore is the one on the disk, to the bit.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
DEVICES = 4
#: Seconds that the other process may take; it is asked to leave in 15.
PATIENCE = 60

TRAIN = """
import sys, time
from pathlib import Path
from wm_jax import processes
processes.join()
from data_pipelines.memory import MemoryLoader
from tests import tiny
serve = MemoryLoader.__next__
def slowly(loader):
    time.sleep(0.1)
    return serve(loader)
MemoryLoader.__next__ = slowly
tiny.train(Path(sys.argv[1]), train__steps=6000, train__checkpoint_every=20, mesh__fsdp=2)
"""
#: What is restored, gathered from all processes, in place of the first update.
RESTORE = """
import hashlib, json, sys
from pathlib import Path
from wm_jax import processes
processes.join()
import jax, numpy as np
from jax.experimental import multihost_utils
from tests import tiny
from wm_jax.train import Run
def look(run, updates, state, step, *rest):
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(state):
        digest.update(np.asarray(multihost_utils.process_allgather(leaf, tiled=True)).tobytes())
    print(json.dumps({"step": step, "digest": digest.hexdigest()}), flush=True)
    run._config.train.steps = step  # nothing is left to do
    return state, step
Run._advance = look
tiny.train(Path(sys.argv[1]), train__steps=6000, train__checkpoint_every=20, mesh__fsdp=2)
"""


def start(code: str, run: Path, count: int, work: Path) -> list[subprocess.Popen[bytes]]:
    """The processes of one run; what they say goes to ``work/N.txt``."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = []
    for index in range(count):
        told = {
            "PYTHONPATH": str(ROOT),
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": f"--xla_force_host_platform_device_count={DEVICES // count}",
            "JAX_COMPILATION_CACHE_DIR": str(work / "compiled"),
            "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}",
            "JAX_NUM_PROCESSES": str(count),
            "JAX_PROCESS_ID": str(index),
        }
        with (work / f"{index}.txt").open("w") as words:
            command = [sys.executable, "-c", code, str(run)]
            children.append(
                subprocess.Popen(
                    command, cwd=ROOT, env=os.environ | told, stdout=words, stderr=words
                )
            )
    return children


def lose(work: Path, index: int, number: signal.Signals) -> dict[str, Any]:
    """Trains in two processes, and loses one of them after a few updates."""
    run = work / "run"
    shutil.rmtree(run, ignore_errors=True)
    children, metrics = start(TRAIN, run, 2, work), run / "metrics.jsonl"
    begin = time.monotonic()
    while not (metrics.exists() and len(metrics.read_text().splitlines()) > 8):
        if time.monotonic() - begin > 300 or children[0].poll() is not None:
            raise RuntimeError((work / "0.txt").read_text()[-2000:])
        time.sleep(0.1)
    children[index].send_signal(number)
    begin, other = time.monotonic(), children[1 - index]
    try:
        status: int | None = other.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        status = None
    seconds = time.monotonic() - begin
    for child in children:
        child.kill()
        child.wait()
    words = (work / f"{1 - index}.txt").read_text()
    # Of a worker its number is told; where it is the coordinator, that its service is gone.
    sign = r"oordination service|Heartbeat" if index == 0 else r"heartbeats\):\s*1\b|Task 1 "
    return {
        "kind": "peer lost",
        "process": index,
        "by": number.name,
        "seconds": round(seconds, 1),
        "status": status,
        "named": bool(re.search(sign, words)),
    }


def relaunch(work: Path, count: int) -> dict[str, Any]:
    """The digest of what so many processes restore."""
    children = start(RESTORE, work / "run", count, work)
    statuses = [child.wait(300) for child in children]
    words = [(work / f"{index}.txt").read_text() for index in range(count)]
    if any(statuses):
        raise RuntimeError(words[0][-2000:])
    found = [json.loads(line) for text in words for line in text.splitlines() if line[:1] == "{"]
    return {"processes": count, "said": len(found), **found[0]}


def measure(work: Path) -> list[dict[str, Any]]:
    rows = []
    for number in (signal.SIGKILL, signal.SIGSTOP):
        for index in (1, 0):
            rows.append(lose(work, index, number))
            print(rows[-1], file=sys.stderr)
    restored = [relaunch(work, count) for count in (2, 1, 4)]
    for found in restored:
        same = found["digest"] == restored[0]["digest"]
        rows.append({"kind": "relaunch", "equal": same} | found)
        print(rows[-1], file=sys.stderr)
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print one line of JSON")
    parser.add_argument("--out", type=Path, help="write the result there too")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        rows = measure(Path(work))
    left = [row["seconds"] <= 15 and row["status"] for row in rows if row["kind"] == "peer lost"]
    equal = [row["equal"] for row in rows if row["kind"] == "relaunch"]
    result = {
        "passed": all(left) and all(equal),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, CPU backend",
        "rows": rows,
    }
    if args.out:
        args.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result) if args.json else json.dumps(result, indent=1))
    return 0 if result["passed"] else 1


if __name__ == "__main__":
    sys.exit(main())
