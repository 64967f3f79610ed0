"""Checkpoints changed on the disk: each change is noticed or does no harm, and none is silent."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np

from tests import tiny
from tests.faults import processes
from wm_jax import checkpoint, manifest

#: Checkpoints of the run whose files are changed.
STEPS = (40, 50, 60)
KINDS = (
    *("bit flip", "bit flip", "bit flip", "truncation", "deletion", "deleted folder"),
    *("file of another step", "zeros", "empty step", "no manifest", "flip in the manifest"),
)


def base(work: Path) -> Path:
    """The workdir of a whole run; its digests, arrays and weights alone, are beside it."""
    workdir = work / "base"
    if not (work / "base.json").exists():
        shutil.rmtree(workdir, ignore_errors=True)
        processes.call(processes.train, work / "log.txt", workdir, len(STEPS))
        processes.call(_describe, work / "log.txt", workdir, work / "base.json")
    return workdir


def run(work: Path, numbers: list[int], seed: int, out: Path) -> None:
    """Appends a row for each of these changes to ``out``. To be called in a process of its own."""
    workdir, wanted = work / "base", json.loads((work / "base.json").read_text())
    with out.open("a") as file:
        for number in numbers:
            copy = work / "changed"
            shutil.rmtree(copy, ignore_errors=True)
            shutil.copytree(workdir, copy)
            row = _try(copy, random.Random(f"{seed} corruptions {number}"), wanted)
            file.write(json.dumps({"kind": "corruption", "number": number} | row) + "\n")
            file.flush()


def _try(workdir: Path, rng: random.Random, wanted: dict[str, Any]) -> dict[str, Any]:
    """Changes something, then reads as a resumed training and as an evaluation do."""
    kind = rng.choice(KINDS)
    step = rng.choice((STEPS[-1], STEPS[-1], rng.choice(STEPS)))
    path = workdir / "checkpoints" / str(step)
    what = change(rng, kind, path)
    row: dict[str, Any] = {"change": kind, "what": what, "step": step, "outcome": "wrong"}
    hit = path if kind != "empty step" else path.parent / what
    found = manifest.damage(hit) is not None
    try:
        weights, _, read = checkpoint.restore_params(workdir)
        row["weights"] = _digest(weights) == wanted["weights"].get(str(read))
        checkpoints = checkpoint.Checkpoints(workdir)
        newest = checkpoints.newest()
        row |= {"restored": newest, "notes": checkpoints.notes}
        row["arrays"] = newest is not None and (
            tiny.digest(workdir, newest) == wanted["arrays"].get(str(newest))
        )
        spared = [s for s in STEPS if hit != path or not found or s != step]
        fallen_back = newest == max(spared)
    except Exception as error:  # noqa: BLE001, a row of the result
        return row | {"outcome": "failed", "problem": f"{type(error).__name__}: {error}"}
    if row["weights"] and row["arrays"] and fallen_back and read == newest:
        row["outcome"] = "detected" if found else "harmless"
    elif not found:
        row["outcome"] = "silent"
    return row


def change(rng: random.Random, kind: str, path: Path) -> str:
    """Harms the step folder ``path``; says what was hit."""
    files = sorted(p for p in path.rglob("*") if p.is_file())
    file = rng.choice(files)
    if kind == "flip in the manifest":
        file = path / manifest.MANIFEST
    if kind == "empty step":
        # Newer than all others, as a save that died at once would leave it.
        empty = path.parent / str(STEPS[-1] + rng.randint(1, 9))
        empty.mkdir()
        return empty.name
    if kind == "no manifest":
        (path / manifest.MANIFEST).unlink()
        return manifest.MANIFEST
    if kind == "deleted folder":
        folder = rng.choice(sorted(p for p in path.rglob("*") if p.is_dir()))
        shutil.rmtree(folder)
        return f"{folder.relative_to(path)}/"
    if kind == "deletion":
        file.unlink()
    elif kind == "file of another step":
        other = rng.choice([s for s in STEPS if str(s) != path.name])
        name = file.relative_to(path)
        theirs = path.parent / str(other) / name
        if not theirs.exists():  # data files have names of their own: put beside the others
            theirs = rng.choice([p for p in theirs.parents[1].rglob("*") if p.is_file()])
        shutil.copyfile(theirs, file)
    else:
        content = bytearray(file.read_bytes())
        if kind == "truncation":
            del content[rng.randrange(max(len(content), 1)) :]
        elif content:
            place = rng.randrange(len(content))
            if kind == "zeros":
                content[place : place + 64] = bytes(len(content[place : place + 64]))
            else:
                content[place] ^= 1 << rng.randrange(8)
        file.write_bytes(content)
    return str(file.relative_to(path))


def _describe(workdir: Path, out: Path) -> None:
    weights = {str(s): _digest(checkpoint.restore_params(workdir, s)[0]) for s in STEPS}
    arrays = {str(s): tiny.digest(workdir, s) for s in STEPS}
    assert len(set(arrays.values())) == len(STEPS)
    out.write_text(json.dumps({"weights": weights, "arrays": arrays}))


def _digest(tree: Any) -> str:
    out = hashlib.sha256()
    for leaf in jax.tree.leaves(tree):
        out.update(np.asarray(leaf).tobytes())
    return out.hexdigest()


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    table: dict[str, dict[str, int]] = {}
    for row in rows:
        kind = table.setdefault(row["change"], {})
        kind[row["outcome"]] = kind.get(row["outcome"], 0) + 1
    outcomes = [row["outcome"] for row in rows]
    return {
        "corruptions": len(rows),
        "outcomes": {name: outcomes.count(name) for name in sorted(set(outcomes))},
        "by_change": dict(sorted(table.items())),
        "bad": [row for row in rows if row["outcome"] not in ("detected", "harmless")],
    }
