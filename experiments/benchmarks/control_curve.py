"""How control grows with training and with data: a row a run and score, and a picture.

    both="--workdir runs/full_500 --beside runs/full_2000 --data data/full"
    wm-jax evaluate $both --suite pixel --episodes 96 --horizon 40 --out judged/pixel
    wm-jax evaluate $both --suite causal --episodes 24 --out judged/causal
    wm-jax evaluate $both --suite planning --out judged/planning
    python experiments/benchmarks/control_curve.py judged/*/evaluation/*.json --json \\
        --point default 1800 96000 --point "default (full_2000)" 1800 384000 > curve.json
    python experiments/benchmarks/control_curve.py --table curve.json more.json --plot curve.png

A point is a model's name in the files, the number of its training scenes, and the frames that it
was trained on (updates × windows × frames of a window). ``--table`` shows stored tables as one.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from chart import charts
from PIL import Image

#: Metric, step and intervention of what is kept, and what the table calls it.
SCORES: dict[tuple[str, int, str | None], str] = {
    ("position_error", 20, None): "position error at 20, px",
    ("matched_share", 20, None): "all within 8 px at 20",
    ("action_sensitivity", 20, None): "action sensitivity at 20",
    ("plan_gain", 24, None): "plans: of the true simulator's way",
} | {
    ("edit_success", 20, kind): f"edit success at 20: {kind}"
    for kind in ("push", "recolour", "remove", "add", "sequence")
}
#: Of these a picture is made.
DRAWN = (
    "position error at 20, px",
    "edit success at 20: push",
    "action sensitivity at 20",
    "plans: of the true simulator's way",
)


def read(files: Sequence[Path]) -> list[dict[str, Any]]:
    """All rows of the files."""
    return [row for file in files for row in json.loads(file.read_text())["rows"]]


def table(
    rows: Sequence[dict[str, Any]], points: Sequence[tuple[str, int, int]]
) -> list[dict[str, Any]]:
    """What is kept of each point: name, scenes, frames, score, value, low, high, n."""
    out = []
    for name, scenes, frames in points:
        for row in rows:
            key = row["metric"], row["step"], row["intervention"]
            if row["model"] != name or row["control"] is not None or key not in SCORES:
                continue
            point = {"model": name, "scenes": scenes, "frames": frames, "score": SCORES[key]}
            out.append(point | {k: row[k] for k in ("value", "low", "high", "n")})
    return out


def plot(rows: Sequence[dict[str, Any]]) -> Image.Image:
    """Of each drawn score a panel; a line for each number of scenes, over frames."""
    panels: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for row in sorted(rows, key=lambda row: (-row["scenes"], row["frames"])):
        if row["score"] in DRAWN and (row["value"] or 0) > 0:
            lines = panels.setdefault(row["score"], {})
            line = lines.setdefault(f"{row['scenes']:,} scenes", [])
            line.append((row["frames"], row["value"]))
    return charts(panels)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").split("\n\n")[0],
        epilog="example: python experiments/benchmarks/control_curve.py "
        "--table experiments/results/control_curve.json --plot curve.png",
    )
    parser.add_argument("files", nargs="*", type=Path, help="JSON files of evaluations")
    parser.add_argument(
        "--point", nargs=3, action="append", default=[], metavar=("MODEL", "SCENES", "FRAMES")
    )
    parser.add_argument(
        "--table", nargs="+", type=Path, default=[], metavar="FILE", help="stored tables, as one"
    )
    parser.add_argument("--plot", metavar="PNG", help="write a picture there")
    parser.add_argument("--json", action="store_true", help="print the table as JSON")
    options = parser.parse_args()
    try:
        points = [(name, int(scenes), int(frames)) for name, scenes, frames in options.point]
    except ValueError as error:
        parser.error(f"--point takes a name and two whole numbers: {error}.")
    if missing := [file for file in (*options.files, *options.table) if not file.exists()]:
        parser.error(f"there is no file {missing[0]}.")
    made = table(read(options.files), points)
    rows = read(options.table) + made
    if lost := {name for name, *_ in points} - {row["model"] for row in made}:
        parser.error(f"the files have no scores of {', '.join(sorted(lost))}.")
    if not rows:
        parser.error("there is nothing to show; name points and files, or a --table.")
    if options.plot:
        plot(rows).save(options.plot)
    if options.json:
        print(json.dumps({"rows": rows}, indent=1))
        return
    for row in rows:
        between = f"{row['low']:.2f} to {row['high']:.2f}" if row["low"] is not None else ""
        value = "-" if row["value"] is None else f"{row['value']:.2f}"
        print(
            f"{row['scenes']:>6} scenes {row['frames']:>9} frames  {row['score']:<36} "
            f"{value:>6} {between}"
        )


if __name__ == "__main__":
    main()
