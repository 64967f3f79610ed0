"""Collectives and memory traffic of a compiled program, off its HLO text (``compiled.as_text()``).

A collective that the compiler overlaps with other work shows up several times: where it starts,
inside what it runs beside, and where it is waited for. All of them have one channel, so a channel
counts once a computation that is run. What is in the body of a loop counts as often as the loop
runs, if the compiler knows how often (``known_trip_count``); else once, and `Program.unknown_loops`
says so.

Memory traffic is what each instruction that is run reads and writes of arrays that lie in HBM: on a
TPU a layout says of an array that it is in on-chip memory (``S(1)``). XLA's own count has those in
it too, and the body of a loop once. An array is counted whole, even if only a slice of it is read.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")

_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\) -> .*\{$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = (.*?) ([a-z][a-z0-9\-]*)\((.*)$")
_CALLED = re.compile(r"(?:calls|body|condition|async_computation)=%?([\w.\-]+)")
_BRANCHES = re.compile(r"(?:branch_computations|called_computations)=\{([^}]*)\}")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
_SHAPE = re.compile(r"\b(pred|bf16|[suf]\d+|f8\w+|c64|c128)\[([\d,]*)\]")
#: An array's type, sides and memory space ('' is HBM).
_ARRAY = re.compile(_SHAPE.pattern + r"(?:\{[^{}]*?(S\(\d+\))?\})?")
#: They move nothing themselves; what is run inside them is counted there.
_FREE = {
    *("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "opt-barrier", "after-all"),
    *("while", "conditional", "call", "partition-id", "replica-id", "async-start", "async-update"),
}
_GROUPS = re.compile(r"(?:replica_groups|source_target_pairs)=")


class Collective(NamedTuple):
    """kind:       of `KINDS`
    size:       bytes on one chip of the whole: what is gathered, or what is reduced before it is
                scattered; of a permute what is sent
    group:      the first group of chips that take part, as places in the flattened mesh
    times:      how often it runs
    overlapped: whether the compiler lets other work go on beside it
    """

    kind: str
    size: int
    group: tuple[int, ...]
    times: int
    overlapped: bool

    @property
    def sent(self) -> float:
        """Bytes that one chip sends in one run, by the best algorithm on a ring."""
        n = len(self.group)
        share = (n - 1) / n
        return self.size * {"all-reduce": 2 * share, "collective-permute": 1}.get(self.kind, share)


class Program(NamedTuple):
    """loops: how often each loop runs, one within another multiplied; unknown_loops: how many more
    there are of which the compiler does not know it; hbm_bytes: read and written, on one chip."""

    collectives: list[Collective]
    loops: list[int]
    unknown_loops: int
    hbm_bytes: int


class _Instruction(NamedTuple):
    name: str
    shape: str
    operation: str
    rest: str


def parse(text: str) -> Program:
    """The collectives of a compiled module, its loops, and its traffic."""
    computations, entry = _computations(text)
    found: dict[tuple[str, int], Collective] = {}
    loops: list[int] = []
    unknown = moved = 0
    todo = [(entry, 1, True)]
    while todo:
        name, times, run = todo.pop()
        body = computations.get(name, [])
        starts = any("AsyncCollectiveStart" in i.rest for i in body)
        if run:
            moved += times * _traffic(body)
        for instruction in body:
            inner = times
            if instruction.operation == "while":
                trips = _TRIPS.search(instruction.rest)
                unknown += trips is None
                inner = times * (int(trips[1]) if trips else 1)
                loops += [inner] if trips else []
            apart = run and instruction.operation != "fusion"  # which runs as one
            todo += [(called, inner, apart) for called in _called(instruction)]
            collective = _collective(name, instruction, body, times)
            if collective is None:
                continue
            key = (_channel(instruction, name), times)
            before = found.get(key)
            overlapped = starts or collective.overlapped or bool(before and before.overlapped)
            found[key] = (before or collective)._replace(overlapped=overlapped)
    return Program(list(found.values()), loops, unknown, moved)


def _traffic(body: list[_Instruction]) -> int:
    """Bytes of HBM that the instructions of a computation read and write, one after another."""
    there = {instruction.name: _in_hbm(instruction.shape) for instruction in body}
    total = 0
    for instruction in body:
        operation = instruction.operation
        if operation in _FREE or operation.endswith("-done"):
            continue
        if operation in ("copy-start", "slice-start"):  # (from, to, flags): as much as arrives
            sizes = _sizes(instruction.shape)
            sides = [space == "" for *_, space in _ARRAY.findall(instruction.shape)[:2]]
            total += min(sizes[:2]) * sum(sides)
            continue
        operands = re.findall(r"%([\w.\-]+)", instruction.rest.partition("), ")[0])
        total += there[instruction.name] + sum(there.get(name, 0) for name in operands)
    return total


def _in_hbm(shape: str) -> int:
    arrays = _ARRAY.findall(shape)
    sizes = zip(_sizes(shape), arrays, strict=True)
    return sum(size for size, (*_, space) in sizes if not space)


def _computations(text: str) -> tuple[dict[str, list[_Instruction]], str]:
    """Every computation's instructions by its name, and the name of the entry."""
    out: dict[str, list[_Instruction]] = {}
    entry, now = "", None
    for line in text.splitlines():
        header = _HEADER.match(line)
        if header:
            now = out[header[2]] = []
            entry = header[2] if header[1] else entry
        elif line.startswith("}"):
            now = None
        elif now is not None:
            match = _INSTRUCTION.match(line)
            if match:
                now.append(_Instruction(*match.groups()))
    return out, entry


def _called(instruction: _Instruction) -> Iterator[str]:
    if instruction.operation not in ("fusion", "while", "call", "conditional", "async-start"):
        return
    for match in _CALLED.finditer(instruction.rest):
        yield match[1]
    if instruction.operation == "call":
        for match in re.finditer(r"to_apply=%?([\w.\-]+)", instruction.rest):
            yield match[1]
    for match in _BRANCHES.finditer(instruction.rest):
        yield from (name.strip().lstrip("%") for name in match[1].split(","))


def _channel(instruction: _Instruction, computation: str) -> str:
    """What makes a collective one: its channel, or where it has none its place in the text."""
    match = re.search(r"channel_id=(\d+)", instruction.rest)
    return f"channel {match[1]}" if match else f"{computation} {instruction.rest[:80]}"


def _collective(
    computation: str, instruction: _Instruction, body: list[_Instruction], times: int
) -> Collective | None:
    operation = instruction.operation
    started = operation.endswith("-start")
    kind = operation.removesuffix("-start")
    if kind not in KINDS:
        return None
    group = groups(instruction.rest)
    size = sum(_sizes(instruction.shape))
    if started and kind == "all-gather":  # (operands, results)
        size = size * len(group) // (len(group) + 1)
    if started and kind == "collective-permute":  # (operand, result, flags)
        size = max(_sizes(instruction.shape))
    if kind == "reduce-scatter":
        size *= len(group)
    # A TPU's reduce-scatter: a fusion of an all-reduce with the slice that is kept of it.
    if kind == "all-reduce" and computation.startswith("all-reduce-scatter"):
        kind = "reduce-scatter"
    return Collective(kind, size, group, times, started) if len(group) > 1 else None


def _sizes(shape: str) -> list[int]:
    """Bytes of every array in a shape, which may be a tuple."""
    return [_width(kind) * math.prod(map(int, filter(None, dims.split(","))))
            for kind, dims in _SHAPE.findall(shape)]  # fmt: skip


def _width(kind: str) -> int:
    """Bytes of one number."""
    if kind == "pred" or kind.startswith("f8"):
        return 1
    bits = int(re.sub(r"\D", "", kind))
    return max(1, bits // 8)


def groups(text: str) -> tuple[int, ...]:
    """The first group of an instruction's ``replica_groups``, in any of the ways to write them:

    ``{{0,1},{2,3}}``; ``[2,4]<=[4,2]T(1,0)``, an iota that is transposed and cut; and
    ``mesh['a'=2,'b'=4] {'b'}``, axes of a mesh, of which ``'b':(2)2`` is a part; the mesh may say
    which devices it has, ``device_ids=([4,2]T(1,0))`` or ``device_ids=(0,2,1,3)``.
    """
    match = _GROUPS.search(text)
    if match is None:
        return ()
    rest = text[match.end() :]
    if rest.startswith("{{"):
        if match[0].startswith("source"):  # a permute: all that send
            pairs = rest[: rest.index("}}")]
            return tuple(int(pair.split(",")[0]) for pair in re.findall(r"\{(\d+,\d+)", pairs))
        return tuple(int(i) for i in rest[2 : rest.index("}")].split(","))
    if rest.startswith("["):
        return _from_iota(rest)
    if rest.startswith("mesh["):
        return _from_mesh(rest)
    return ()


def _from_iota(text: str) -> tuple[int, ...]:
    match = re.match(r"\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", text)
    assert match is not None, text[:80]
    shape, dims = _numbers(match[1]), _numbers(match[2])
    ids = np.arange(math.prod(dims)).reshape(dims)
    if match[3]:
        ids = ids.transpose(_numbers(match[3]))
    return tuple(ids.reshape(shape[0], -1)[0].tolist())


def _from_mesh(text: str) -> tuple[int, ...]:
    devices = r"(?:,\s*device_ids=\((?:\[([\d,]+)\](?:T\(([\d,]+)\))?|([\d,]+))\))?"
    match = re.match(r"mesh\[([^\]]*)\]" + devices + r"\s*\{([^}]*)\}", text)
    assert match is not None, text[:80]
    sizes = {name: int(size) for name, size in re.findall(r"'([^']+)'=(\d+)", match[1])}
    taken = re.findall(r"'([^']+)'(?::\((\d+)\)(\d+))?", match[5])
    ids, inside, place = np.arange(math.prod(sizes.values())), [], 0
    if match[2] and match[3]:
        ids = ids.reshape(_numbers(match[2])).transpose(_numbers(match[3])).ravel()
    elif match[4]:
        ids = np.array(_numbers(match[4]))
    dims: list[int] = []
    for name, size in sizes.items():
        parts = [(int(before or 1), int(part or size)) for n, before, part in taken if n == name]
        for before, part in parts[:1]:
            dims += [before, part, size // before // part]
            inside.append(place + 1)
            place += 3
        if not parts:
            dims.append(size)
            place += 1
    ids = ids.reshape(dims)
    return tuple(np.moveaxis(ids, inside, range(-len(inside), 0)).reshape(
        -1, math.prod(dims[i] for i in inside))[0].tolist())  # fmt: skip


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]
