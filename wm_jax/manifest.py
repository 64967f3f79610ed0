"""What proves a checkpoint whole: ``manifest.json``, the size and crc32 of every file of a step.

It is written last, so a step without one was never finished; a step whose files differ from it is
damaged. It proves itself too: its ``digest`` is over the rest of it. Needs no jax.
"""

from __future__ import annotations

import json
import os
import time
import zlib
from pathlib import Path
from typing import Any, NamedTuple

MANIFEST = "manifest.json"


class Report(NamedTuple):
    """A step of a run as it lies on disk. ``problem`` says what is wrong with it, or is None.

    ``scores`` are the metrics of the clip drawn at this step, if one was.
    """

    step: int
    path: str
    bytes: int
    scores: dict[str, float]
    problem: str | None
    seconds: float


def folder(workdir: str | Path) -> Path:
    return Path(workdir).absolute() / "checkpoints"


def steps(directory: Path) -> list[int]:
    """Numbers of the step folders, whole or not, ascending."""
    return sorted(int(p.name) for p in directory.glob("*") if p.name.isdigit() and p.is_dir())


def write(path: Path, arrays: dict[str, dict[str, str]], scores: dict[str, float]) -> None:
    """Proves the files of a step. ``arrays`` names shape and dtype of every array of every item."""
    files = sorted(p for p in path.rglob("*") if p.is_file())
    digests = {str(p.relative_to(path)): [p.stat().st_size, _crc32(p)] for p in files}
    content = {"files": digests, "arrays": arrays, "scores": scores}
    partial = path / f"{MANIFEST}.partial"
    with partial.open("w") as file:
        json.dump(content | {"digest": _digest(content)}, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    partial.rename(path / MANIFEST)


def read(path: Path) -> dict[str, Any]:
    """The manifest of a step. Raises `ValueError` where it is not what was written."""
    return parsed((path / MANIFEST).read_bytes())


def parsed(text: bytes) -> dict[str, Any]:
    """The same of a manifest's text."""
    content = json.loads(text)
    if not isinstance(content, dict) or not {"files", "arrays"} <= content.keys():
        raise ValueError("not a manifest")
    # Manifests of earlier versions have no digest.
    if content.pop("digest", None) not in (None, _digest(content)):
        raise ValueError("its digest differs")
    return content


def damage(path: Path) -> str | None:
    """None for a whole checkpoint, or what is wrong with it: '… is damaged: <file> …'."""
    try:
        files = read(path)["files"]
    except FileNotFoundError:
        return "was never finished"
    except (OSError, ValueError):
        return f"is damaged: {MANIFEST} cannot be read"
    for name, (size, digest) in files.items():
        try:
            if (path / name).stat().st_size != size or _crc32(path / name) != digest:
                return f"is damaged: the content of {name} has changed"
        except OSError:
            return f"is damaged: {name} is missing"
    return None


def scores(path: Path) -> dict[str, float]:
    """The metrics of the clip drawn at this step; none where it can't be told."""
    try:
        return read(path).get("scores", {})
    except (OSError, ValueError):
        return {}


def look(directory: Path, verify: bool) -> list[Report]:
    """Every step of a run, ascending; ``verify`` reads every file and compares it."""
    reports = []
    for step in steps(directory):
        path, begin = directory / str(step), time.monotonic()
        if verify:
            problem = damage(path)
        else:
            problem = None if (path / MANIFEST).exists() else "was never finished"
        seconds = time.monotonic() - begin
        size = sum(p.stat().st_size for p in path.rglob("*") if p.is_file())
        reports.append(Report(step, str(path), size, scores(path), problem, seconds))
    return reports


def _digest(content: dict[str, Any]) -> int:
    return zlib.crc32(json.dumps(content, sort_keys=True).encode())


def _crc32(path: Path) -> int:
    digest = 0
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest = zlib.crc32(block, digest)
    return digest
