"""Runs that are killed, checkpoints and data sets that are damaged: what becomes of them?

    python tests/faults/run.py --kills 100 --corruptions 200 --data 200 --json

May be stopped at any time; the same command goes on. ``--minutes`` ends a part of it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))


def main() -> int:
    args = _parser().parse_args()
    work = args.work.absolute()
    work.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(work / "compiled"))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    # Read by jax as it is imported.
    from tests.faults import corruptions, data, kills, processes

    begin, state = time.monotonic(), work / f"rows_{args.seed}.jsonl"

    def over() -> bool:
        return bool(args.minutes) and time.monotonic() - begin > 60 * args.minutes

    while (done := len(_rows(state, "data corruption"))) < args.data and not over():
        numbers = list(range(done, min(done + 20, args.data)))
        data.base(work)
        data.run(work, numbers, args.seed, state)
        _tell(f"{numbers[-1] + 1} corruptions of data")
    while (left := args.kills - _killed(state)) > 0 and not over():
        number = len(_rows(state, "run"))
        row = kills.run(work, number, left, args.seed)
        with state.open("a") as file:
            file.write(json.dumps(row) + "\n")
        _tell(f"run {number}: {row['kills']} kills {row['phases']}, differs: {row['differ']}")
    while (done := len(_rows(state, "corruption"))) < args.corruptions and not over():
        numbers = list(range(done, min(done + 20, args.corruptions)))
        corruptions.base(work)
        processes.call(corruptions.run, work / "log.txt", work, numbers, args.seed, state)
        _tell(f"{numbers[-1] + 1} corruptions")
    result = _result(args, state)
    if args.out:
        args.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result) if args.json else json.dumps(result, indent=1))
    return 0 if result["passed"] else 1


def _result(args: argparse.Namespace, state: Path) -> dict[str, Any]:
    from tests.faults import corruptions, kills

    killed = kills.summary(_rows(state, "run"))
    changed = corruptions.summary(_rows(state, "corruption"))
    read = corruptions.summary(_rows(state, "data corruption"))
    asked = {"kills": args.kills, "corruptions": args.corruptions, "data": args.data}
    done = killed["kills"], changed["corruptions"], read["corruptions"]
    return {
        "asked": asked | {"seed": args.seed},
        "complete": all(a >= b for a, b in zip(done, asked.values(), strict=True)),
        "passed": not killed["runs_that_differ"] and not changed["bad"] and not read["bad"],
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, CPU backend",
        "model": "tests/tiny.py: three dense layers, 60 updates, a clip every 30",
        "kill_9": killed,
        "corruption": changed,
        "data_corruption": read,
    }


def _rows(state: Path, kind: str) -> list[dict[str, Any]]:
    from wm_jax.writers import read_rows

    return [row for row in read_rows(state) if row["kind"] == kind]


def _killed(state: Path) -> int:
    return sum(row["kills"] for row in _rows(state, "run"))


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--kills", type=int, default=100, help="default %(default)s")
    add("--corruptions", type=int, default=200, help="default %(default)s")
    add("--data", type=int, default=200, help="corruptions of a data set (default %(default)s)")
    add("--seed", type=int, default=0, help="other times, other changes")
    add("--minutes", type=float, default=0.0, help="stop after about so many (default: when done)")
    add("--work", type=Path, default=Path("runs/faults"), help="folder of the runs, and of what is "
        "done so far (default %(default)s)")  # fmt: skip
    add("--out", type=Path, help="write the result there too")
    add("--json", action="store_true", help="print one line of JSON")
    return parser


if __name__ == "__main__":
    sys.exit(main())
