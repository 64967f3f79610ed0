"""What proves a data set whole: size and digests of every file, kept in ``build.json``.

A data set that is opened is looked at in passing (`glance`): sizes, and the first and the last
`ENDS` bytes of its files. That tells a file that is cut off, missing, or of another data set. What
changes in between, array_record's own checksums tell when the record is read; `damage` reads all.
``build.json`` proves itself: its ``digest`` is over the rest of it. Data sets of earlier versions
have no proof, and are taken as they are.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

#: Bytes at either end of a file that `glance` reads: few, because a record that lies there and is
#: damaged stops a run, where others are skipped.
ENDS = 1 << 12


class Damage(NamedTuple):
    """A file of a data set, and what is wrong with it."""

    file: str
    problem: str


def files_of(directory: str) -> dict[str, list[int]]:
    """Size, crc32 of both ends and crc32 of all, of every file that lies in ``directory``."""
    paths = {name: os.path.join(directory, name) for name in sorted(os.listdir(directory))}
    return {name: [*_ends(path), _all(path)] for name, path in paths.items()}


def sealed(record: Mapping[str, Any]) -> dict[str, Any]:
    """The record with a digest of itself."""
    return {**record, "digest": _digest(record)}


def is_sealed(record: Mapping[str, Any]) -> bool:
    """Whether it is as it was written, as far as it says so."""
    rest = {key: value for key, value in record.items() if key != "digest"}
    return record.get("digest") in (None, _digest(rest))


def glance(directory: str, record: Mapping[str, Any], split: str) -> Damage | None:
    """The first file that is damaged, of those that a split needs, as far as its ends tell."""
    files = record.get("files", {})
    needed = (name for name in files if f"-{split}." in name or name.endswith(".json"))
    return next(_differ(directory, files, needed, deep=False), None)


def damage(directory: str, record: Mapping[str, Any]) -> list[Damage]:
    """All files that are not what was written; reads every byte."""
    files = record.get("files", {})
    return list(_differ(directory, files, files, deep=True))


def _differ(
    directory: str, files: Mapping[str, list[int]], names: Iterable[str], deep: bool
) -> Iterator[Damage]:
    for name in names:
        path, (*ends, whole) = os.path.join(directory, name), files[name]
        try:
            same = _ends(path) == ends and (not deep or _all(path) == whole)
        except OSError:
            yield Damage(name, "is missing")
            continue
        if not same:
            yield Damage(name, "is not what was built")


def _ends(path: str) -> list[int]:
    """Size, and crc32 of the first and the last bytes."""
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        digest = zlib.crc32(file.read(ENDS))
        file.seek(max(size - ENDS, 0))
        return [size, zlib.crc32(file.read(ENDS), digest)]


def _all(path: str) -> int:
    digest = 0
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest = zlib.crc32(block, digest)
    return digest


def _digest(record: Mapping[str, Any]) -> int:
    return zlib.crc32(json.dumps(record, sort_keys=True).encode())
