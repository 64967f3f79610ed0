"""What the sizes of `scale.py` need of whole slices of TPUs: the table of compiles, row by row.

    python experiments/benchmarks/pods.py                       what is not in the table yet
    python experiments/benchmarks/pods.py --only 12m,v5e:2x2    one variant and topology
    python experiments/benchmarks/pods.py --mesh auto           on another mesh than the config's
    python experiments/benchmarks/pods.py --sweep               the best mesh of all, a compile each

Needs libtpu (pip install 'wm_jax[libtpu]') and no TPU. Every row is the JSON of the
`wm-jax compile` command beside it. Rows are written as they come, and rows that are there are kept,
so the table can be made in several goes: a compile takes minutes of a processor.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import math
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

CONFIG = "experiments/configs/scale.py"
OUT = Path("experiments/results/compile.json")
LARGE, WINDOWS = ("1b", "7b"), 2  # variants, and their windows a chip
#: (variant, topology): first what is quick, then the targets, then weak scaling up to 512 chips.
TARGETS = (
    ("debug", "v5e:2x2"),
    ("12m", "v5e:2x2"),
    ("50m", "v5e:2x2"),
    ("200m", "v5e:4x4"),
    *((size, name) for size in LARGE for name in ("v5p:4x4x4", "v5e:16x16", "v6e:16x16")),
    *((size, "v5p:8x8x8") for size in LARGE),
    *(("1b", name) for name in ("v5p:2x2x1", "v5p:2x4x4", "v5p:4x8x8")),
)


def main() -> int:
    args = _parser().parse_args()
    rows = json.loads(args.out.read_text())["rows"] if args.out.exists() else []
    done = {row["command"] for row in rows}
    for variant, topology in TARGETS:
        if args.only and args.only != f"{variant},{topology}":
            continue
        options = ["--sweep"] if args.sweep else ["--mesh", args.mesh] if args.mesh else []
        options += [] if args.largest else ["--no-largest"]
        command = _command(variant, topology, options)
        if " ".join(command) in done:
            continue
        rows.append(measure(command, variant))
        _write(args.out, rows)
        print(_line(rows[-1]), flush=True)
    return 0


def _command(variant: str, topology: str, options: list[str]) -> list[str]:
    named = ["--config", f"{CONFIG}:{variant}", "--topology", topology]
    if variant in LARGE:  # as many windows a chip on every slice
        chips = math.prod(int(side) for side in topology.partition(":")[2].split("x"))
        named += ["--batch", str(WINDOWS * chips)]
    return ["wm-jax", "compile", *named, *options, "--json"]


def measure(command: list[str], variant: str) -> dict[str, Any]:
    """A row: in a process of its own, which gives its memory back. A refusal is a row too."""
    begin = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "wm_jax", *command[1:]], capture_output=True, text=True
    )
    row = {
        "command": " ".join(command),
        "variant": variant,
        "versions": {name: importlib.metadata.version(name) for name in ("jax", "libtpu")},
        "seconds": round(time.monotonic() - begin, 1),
    }
    if done.returncode:
        return row | {"error": (done.stderr.strip().splitlines() or ["killed"])[-1]}
    return row | {"report": json.loads(done.stdout)}


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps({"rows": rows}, indent=1) + "\n")
    partial.replace(path)


def _line(row: dict[str, Any]) -> str:
    if "error" in row:
        return f"{row['command']}\n  {row['error']}"
    from wm_jax.ahead.report import row as shown

    return f"{row['command']}\n  {shown(row['report'])}  ({row['seconds']:.0f} s)"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", metavar="VARIANT,TOPOLOGY", help="of the table's targets, one")
    parser.add_argument("--mesh", help="as of wm-jax compile; default: the config's own")
    parser.add_argument("--sweep", action="store_true", help="all meshes of each target")
    parser.add_argument("--largest", action="store_true", help="and the largest batch: one more")
    parser.add_argument("--out", type=Path, default=OUT, help="default %(default)s")
    return parser


if __name__ == "__main__":
    sys.exit(main())
