"""``wm-jax evaluate``: scores a run on held-out episodes and writes its report."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shlex
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

from wm_jax.errors import UserError

SUITES = ("pixel", "temporal", "causal")


def main(argv: list[str]) -> int:
    """The verb."""
    args = _parser().parse_args(argv)
    unknown = [name for name in args.suite.split(",") if name not in SUITES]
    if unknown:
        raise UserError(f"there is no suite '{unknown[0]}'; there are: {', '.join(SUITES)}.")
    if min(args.episodes, args.horizon, args.long_horizon) < 1:
        raise UserError("--episodes, --horizon and --long-horizon must be at least 1.")
    if "causal" in args.suite.split(",") and args.causal_horizon < 5:
        raise UserError(
            "--causal-horizon must be at least 5: the first 4 frames are the oracle's and are not "
            "scored."
        )
    asked = [name for name in SUITES if name in args.suite.split(",")]
    results, page, told = evaluate(args, asked, shlex.join(["wm-jax", "evaluate", *argv]))
    out = args.out or args.workdir
    written = {name: out / "evaluation" / f"{name}.json" for name in results}
    for name, path in written.items():
        write(path, to_text(results[name]))
    where = out / "report" / "index.html"
    write(where, page)
    if args.json:
        both = results if len(results) > 1 else results[asked[0]]
        print(json.dumps(both, allow_nan=False))
    else:
        print("\n".join(told))
        print("scores: " + ", ".join(str(path) for path in written.values()))
        print(f"report: {where}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="wm-jax evaluate",
        description="Score a run on held-out episodes, beside every baseline, and write a report.",
        epilog="example: wm-jax evaluate --workdir runs/a --suite pixel,causal --beside runs/b",
    )
    add = parser.add_argument
    add("--workdir", type=Path, required=True, help="the run's folder")
    add(
        "--suite",
        default="pixel",
        help="of pixel, temporal, causal, by commas (default %(default)s)",
    )
    add("--data", type=Path, help="folder of the data set, if not the run's own")
    add("--split", default="test", help="which episodes (default %(default)s)")
    add("--episodes", type=int, default=64, help="at most so many (default %(default)s)")
    add("--horizon", type=int, default=60, help="frames to predict (default %(default)s)")
    add("--long-horizon", type=int, default=480, help="of its coherence (default %(default)s)")
    add("--causal-horizon", type=int, default=40, help="after an edit (default %(default)s)")
    add("--beside", type=Path, nargs="+", default=[], help="more runs to score on the same clips")
    add("--out", type=Path, help="folder for evaluation/ and report/ (default: the workdir)")
    add("--json", action="store_true", help="print the result as JSON")
    return parser


def evaluate(
    args: argparse.Namespace, asked: list[str], command: str
) -> tuple[dict[str, Any], str, list[str]]:
    """Scores the runs that ``args`` names by the suites ``asked``: what is written as JSON, the
    page, and what is said on the terminal."""
    # Imported here so that --help answers without them.
    from wm_jax.evaluation import causal_page, report, summary, temporal_page
    from wm_jax.evaluation.judge import judge, judge_causal, judge_temporal, restore
    from wm_jax.evaluation.protocol import CausalProtocol, Protocol, TemporalProtocol
    from wm_jax.evaluation.twins_world import open_world

    runs = restore([args.workdir, *args.beside])
    config = next(iter(runs.values())).config
    told = {modality for run in runs.values() for modality in run.config.data.conditions}
    directory = str(args.data or config.data.directory)
    world = open_world(directory, config.model.resolution, tuple(sorted(told)))
    about = {
        "world": world.name,
        "split": args.split,
        "resolution": world.resolution,
        "episodes": args.episodes,
        "horizon": args.horizon,
    }
    results: dict[str, Any] = {}
    sections, said, pixel = [], [], None
    if "pixel" in asked:
        pixel, results["pixel"] = judge(runs, world, Protocol(**about), command)
        said += [summary.terminal_table(pixel), summary.calibration_line(pixel)]
    if "temporal" in asked:
        temporal, results["temporal"] = judge_temporal(
            runs, world, TemporalProtocol(**about, long_horizon=args.long_horizon), command
        )
        sections.append(temporal_page.section(temporal))
        said.append(temporal_page.terminal_table(temporal))
    if "causal" in asked:
        rules = CausalProtocol(**{**about, "horizon": args.causal_horizon})
        causal, results["causal"] = judge_causal(runs, world, rules, command)
        sections.append(causal_page.section(causal))
        said.append(causal_page.terminal_table(causal))
    if pixel is not None:
        return results, report.render(pixel, sections), said
    title = f"{next(iter(runs))} on {world.name}"
    parts = [f"<h1>{escape(title)}</h1>", *sections, f"<pre>{escape(command)}</pre>"]
    return results, report.page(title, parts), said


def to_text(result: dict[str, Any]) -> str:
    """The result as JSON, a row a line."""
    lines = ",\n".join(json.dumps(row, allow_nan=False) for row in result["rows"])
    head = json.dumps({**result, "rows": []}, indent=1, allow_nan=False)
    return head.removesuffix("[]\n}") + f"[\n{lines}\n]\n}}\n"


def write(path: Path, text: str) -> None:
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
