"""``wm-jax evaluate``: scores a run on held-out episodes and writes its report."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wm_jax.errors import UserError

SUITES = ("pixel",)


def main(argv: list[str]) -> int:
    """The verb."""
    args = _parser().parse_args(argv)
    unknown = [name for name in args.suite.split(",") if name not in SUITES]
    if unknown:
        raise UserError(f"there is no suite '{unknown[0]}'; there are: {', '.join(SUITES)}.")
    if args.episodes < 1 or args.horizon < 1:
        raise UserError("--episodes and --horizon must be at least 1.")
    report, result = evaluate(args, command=shlex.join(["wm-jax", "evaluate", *argv]))
    out = args.out or args.workdir
    scores, page = out / "evaluation" / "pixel.json", out / "report" / "index.html"
    from wm_jax.evaluation.report import render
    from wm_jax.evaluation.summary import calibration_line, terminal_table

    _write(scores, to_text(result))
    _write(page, render(report))
    if args.json:
        print(json.dumps(result, allow_nan=False))
    else:
        print(terminal_table(report))
        print(calibration_line(report))
        print(f"scores: {scores}\nreport: {page}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="wm-jax evaluate",
        description="Score a run on held-out episodes, beside every baseline, and write a report.",
        epilog="example: wm-jax evaluate --workdir runs/a --beside runs/rssm",
    )
    add = parser.add_argument
    add("--workdir", type=Path, required=True, help="the run's folder")
    add("--suite", default="pixel", help="which suites, by commas (pixel)")
    add("--data", type=Path, help="folder of the data set, if not the run's own")
    add("--split", default="test", help="which episodes (default %(default)s)")
    add("--episodes", type=int, default=64, help="at most so many (default %(default)s)")
    add("--horizon", type=int, default=60, help="frames to predict (default %(default)s)")
    add("--beside", type=Path, nargs="+", default=[], help="more runs to score on the same clips")
    add("--out", type=Path, help="folder for evaluation/ and report/ (default: the workdir)")
    add("--json", action="store_true", help="print the result as JSON")
    return parser


def evaluate(args: argparse.Namespace, command: str) -> tuple[Any, dict[str, Any]]:
    """Scores the runs that ``args`` names: the `Report`, and what is written as JSON."""
    # Imported here so that --help answers without them.
    from wm_jax.evaluation.judge import judge, restore
    from wm_jax.evaluation.protocol import Protocol
    from wm_jax.evaluation.twins_world import open_world

    runs = restore([args.workdir, *args.beside])
    config = next(iter(runs.values())).config
    told = {modality for run in runs.values() for modality in run.config.data.conditions}
    directory = str(args.data or config.data.directory)
    world = open_world(directory, config.model.resolution, tuple(sorted(told)))
    protocol = Protocol(
        world=world.name,
        split=args.split,
        resolution=world.resolution,
        episodes=args.episodes,
        horizon=args.horizon,
    )
    return judge(runs, world, protocol, command)


def to_text(result: dict[str, Any]) -> str:
    """The result as JSON, a row a line."""
    lines = ",\n".join(json.dumps(row, allow_nan=False) for row in result["rows"])
    head = json.dumps({**result, "rows": []}, indent=1, allow_nan=False)
    return head.removesuffix("[]\n}") + f"[\n{lines}\n]\n}}\n"


def _write(path: Path, text: str) -> None:
    """Whole or not at all."""
    with _disk(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(path.name + ".part")
        part.write_text(text, encoding="utf-8")
        os.replace(part, path)


@contextlib.contextmanager
def _disk(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{path} can't be written ({error.strerror}); make room or choose another --out."
        ) from None
