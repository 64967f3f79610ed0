"""What the sizes of `scale.py` need of whole slices of TPUs: the table of compiles, row by row.

    python experiments/benchmarks/pods.py                       what is not in the table yet
    python experiments/benchmarks/pods.py --only 7b,v5e:16x16   one variant and topology
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
WINDOWS = 2  # a chip, on every slice
DOTS = "--config.model.remat=dots"  # keeps products where there is room for them
#: (variant, topology, windows a chip, options): the targets, then weak scaling from 4 chips on.
TARGETS: tuple[tuple[str, str, int, tuple[str, ...]], ...] = (
    ("1b", "v5p:4x4x4", WINDOWS, ()),
    ("1b", "v5e:16x16", WINDOWS, ()),
    ("1b", "v6e:16x16", WINDOWS, (DOTS,)),
    ("1b", "v5p:8x8x8", WINDOWS, ()),
    ("7b", "v5p:4x4x4", WINDOWS, ()),
    ("7b", "v5e:16x16", 1, ()),
    ("7b", "v6e:16x16", WINDOWS, ()),
    ("7b", "v5p:8x8x8", WINDOWS, ("--mesh", "data=2,fsdp=256")),  # 512 divides no width
    ("1b", "v5p:2x2x1", WINDOWS, ()),
)


def main() -> int:
    args = _parser().parse_args()
    rows = json.loads(args.out.read_text())["rows"] if args.out.exists() else []
    if args.table:
        print(markdown(rows))
        return 0
    done = {row["command"] for row in rows}
    for variant, topology, windows, given in TARGETS:
        if args.only and args.only != f"{variant},{topology}":
            continue
        mesh = ["--sweep"] if args.sweep else ["--mesh", args.mesh] if args.mesh else []
        options = [*(mesh or given), *([] if args.largest else ["--no-largest"])]
        command = _command(variant, topology, args.windows or windows, options)
        if " ".join(command) in done:
            continue
        rows.append(measure(command, variant))
        _write(args.out, rows)
        print(_line(rows[-1]), flush=True)
    return 0


def _command(variant: str, topology: str, windows: int, options: list[str]) -> list[str]:
    chips = math.prod(int(side) for side in topology.partition(":")[2].split("x"))
    named = ["--config", f"{CONFIG}:{variant}", "--topology", topology]
    named += ["--batch", str(windows * chips)]
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


def markdown(rows: list[dict[str, Any]]) -> str:
    """The table of what is there, a line a compile."""
    lines = [
        "| size | slice | chips | windows | mesh | GiB a chip | ms a step | MFU | exposed |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        report = row.get("report")
        if report is None:
            continue
        mesh = ", ".join(f"{axis} {n}" for axis, n in report["mesh"].items() if n > 1)
        gib = (report[key] / 2**30 for key in ("hbm_bytes_per_chip", "hbm_bytes_limit"))
        where = [row["variant"], report["topology"], report["chips"], report["batch_size"], mesh]
        line = report["roofline"] or {}
        cost = ["does not fit", "", ""]
        if line:
            cost = [
                f"{1e3 * line['step_seconds']:,.0f}",
                f"{100 * line['mfu']:.0f} %",
                f"{100 * line['exposed_share']:.1f} %",
            ]
        memory = "{:.1f} of {:.0f}".format(*gib)
        lines.append(f"| {' | '.join(map(str, [*where, memory, *cost]))} |")
    return "\n".join(lines)


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
    parser.add_argument("--windows", type=int, help="a chip; default: those of the table")
    parser.add_argument("--mesh", help="as of wm-jax compile; default: the config's own")
    parser.add_argument("--sweep", action="store_true", help="all meshes of each target")
    parser.add_argument("--largest", action="store_true", help="and the largest batch: one more")
    parser.add_argument("--table", action="store_true", help="print what is there as Markdown")
    parser.add_argument("--out", type=Path, default=OUT, help="default %(default)s")
    return parser


if __name__ == "__main__":
    sys.exit(main())
