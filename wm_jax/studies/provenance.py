"""Where a number comes from: versions, hardware, cost."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import time
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = ("wm_jax", "jax", "jaxlib", "flax", "optax", "numpy")


def versions() -> dict[str, str]:
    """Of Python, of the packages that decide about numbers, and the commit of this code."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    commit = _commit()
    return found | ({"commit": commit} if commit else {})


def _commit() -> str | None:
    """None outside a clone. A tree with changes of its own is marked."""
    here = Path(__file__).parent
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        done = subprocess.run(command, cwd=here, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None


def hardware() -> dict[str, Any]:
    """The processor, the cores that this process may use, and JAX's devices."""
    import jax

    return {
        "processor": _processor(),
        "cores": len(cores()),
        "devices": [device.device_kind for device in jax.devices()],
    }


def cores() -> list[int]:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if "model name" in line)
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


class Cost:
    """Adds up what a run costs over its sessions, in ``path``: wall-clock and time on cores. A
    session that is killed leaves nothing, so the sum is a lower bound after a kill."""

    def __init__(self, path: Path):
        self._path, self._begin = path, time.monotonic()

    def add(self) -> dict[str, float]:
        """Call once, at the end of a session: minutes of all sessions."""
        there = json.loads(self._path.read_text()) if self._path.exists() else {}
        spent = os.times()
        now = {
            "wall_minutes": (time.monotonic() - self._begin) / 60,
            "core_minutes": (spent.user + spent.system) / 60,
        }
        total = {name: round(there.get(name, 0.0) + value, 3) for name, value in now.items()}
        self._path.write_text(json.dumps(total))
        return total


def clock(rows: Sequence[dict[str, Any]]) -> dict[int, float]:
    """Update -> seconds of training until then, of the rows of a ``metrics.jsonl``. Every session
    of a resumed run counts from zero; here they follow one another."""
    seconds: dict[int, float] = {}
    before = last = 0.0
    for row in rows:
        if "time/seconds" in row:
            now = row["time/seconds"]
            if now < last:
                before += last
            last = now
            seconds[row["step"]] = before + now
    return seconds
