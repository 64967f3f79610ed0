"""Files of a data set changed on the disk: each is noticed or does no harm, and none is silent."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
from pathlib import Path

import numpy as np

from data_pipelines import corrupt
from data_pipelines.twins import open_source
from data_pipelines.twins.build import build, make_plan
from tests.faults import processes
from wm_jax.errors import UserError

KINDS = (
    *("bit flip", "bit flip", "bit flip", "truncation", "deletion", "zeros"),
    *("file of another data set", "flip beside the records"),
)
SPLITS = ("train", "validation", "test")


def base(work: Path) -> None:
    """A small data set; what its episodes hold is beside it, and another one of other scenes. In a
    process of its own: array_record's threads must not be inherited."""
    if not (work / "data.json").exists():
        processes.call(_build, work / "log.txt", work)


def run(work: Path, numbers: list[int], seed: int, out: Path) -> None:
    """Appends a row for each of these changes to ``out``."""
    wanted = json.loads((work / "data.json").read_text())
    for number in numbers:
        copy, result = work / "changed_data", work / "data_row.json"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(work / "data", copy)
        result.unlink(missing_ok=True)
        rng = random.Random(f"{seed} data {number}")
        kind = rng.choice(KINDS)
        what = _change(rng, kind, copy, work / "other")
        # In a process of its own: a decoder may end it.
        child = processes.start(_try, work / "log.txt", copy, wanted, result)
        status = processes.finish(child)
        row = {"kind": "data corruption", "number": number, "change": kind, "what": what}
        row |= json.loads(result.read_text()) if not status else {"outcome": f"left with {status}"}
        with out.open("a") as file:
            file.write(json.dumps(row) + "\n")


def _build(work: Path) -> None:
    for seed, name in enumerate(("data", "other")):
        shutil.rmtree(work / name, ignore_errors=True)
        sizes = {"train": 6, "validation": 2, "test": 2, "resolution": 32, "length": 16}
        build(make_plan("twins:motion", seed=seed, **sizes), str(work / name), progress=False)
    found = {split: _read(work / "data", split) for split in SPLITS}
    (work / "data.json").write_text(json.dumps(found))


def _read(directory: Path, split: str) -> list[str]:
    """What every episode holds, as a digest, or a sentence that ends with a full stop."""
    source = open_source(str(directory), split, fields=None)
    out = []
    for index in range(len(source)):
        try:
            episode = source[index]
        except Exception as error:  # noqa: BLE001, as `corrupt.read` takes it
            out.append(f"{corrupt.where(source, index)}: {type(error).__name__}.")
            continue
        digest = hashlib.sha256()
        for name in sorted(episode):
            digest.update(name.encode() + np.asarray(episode[name]).tobytes())
        out.append(digest.hexdigest())
    return out


def _try(directory: Path, wanted: dict[str, list[str]], result: Path) -> None:
    try:
        found = {split: _read(directory, split) for split in SPLITS}
    except UserError as error:
        row = {"outcome": "detected", "says": str(error)}
    except Exception as error:  # noqa: BLE001, a row of the result
        row = {"outcome": "failed", "says": f"{type(error).__name__}: {error}"[:400]}
    else:
        pairs = [
            (got, expected)
            for split in SPLITS
            for got, expected in zip(found[split], wanted[split], strict=False)
        ]
        missing = any(len(found[split]) != len(wanted[split]) for split in SPLITS)
        silent = missing or any(got != ok and not got.endswith(".") for got, ok in pairs)
        said = [got for got, ok in pairs if got != ok]
        row = {"outcome": "silent" if silent else "detected" if said else "harmless", "says": said}
    result.write_text(json.dumps(row))


def _change(rng: random.Random, kind: str, directory: Path, other: Path) -> str:
    """Harms one file of the data set; says which."""
    beside = sorted(directory.glob("*.json"))
    records = sorted(p for p in directory.iterdir() if p not in beside)
    file = rng.choice(records if kind == "bit flip" else [*records, *beside])
    if kind == "flip beside the records":
        file = rng.choice(beside)
    if kind == "deletion":
        file.unlink()
    elif kind == "file of another data set":
        shutil.copyfile(other / file.name, file)
    else:
        content = bytearray(file.read_bytes())
        place = rng.randrange(len(content))
        if kind == "truncation":
            del content[place:]
        elif kind == "zeros":
            content[place : place + 64] = bytes(len(content[place : place + 64]))
        else:
            content[place] ^= 1 << rng.randrange(8)
        file.write_bytes(content)
    return file.name
