"""``wm-jax checkpoint``: what checkpoints a run has, and whether they are whole."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from wm_jax import manifest
from wm_jax.errors import UserError
from wm_jax.remote import fetched_whole

_FORMATTER = argparse.RawDescriptionHelpFormatter
EPILOG = """\
examples:
  wm-jax checkpoint list --workdir runs/a      steps, sizes, scores; reads no arrays
  wm-jax checkpoint verify --workdir runs/a    reads every file and compares its digest

verify leaves with 1 where a step is damaged, and names the file. It changes nothing: a run that
resumes sets damaged steps aside and goes on from the newest whole one."""


def main(argv: list[str]) -> int:
    """The verb."""
    args = _parser().parse_args(argv)
    directory = manifest.folder(args.workdir)
    if not directory.is_dir():
        raise UserError(f"{args.workdir} holds no run: there is no {directory}.")
    reports = manifest.look(directory, args.action == "verify")
    damaged = [report for report in reports if report.problem is not None]
    aside = sorted(str(path) for path in directory.glob("*.damaged"))
    if args.json:
        print(json.dumps(_result(args.workdir, reports, aside, args.action == "verify")))
    elif not reports:
        print(f"{args.workdir} has no checkpoint yet.")
    else:
        for report in reports:
            print(_line(report, args.action == "verify"))
        for path in aside:
            print(f"{path} was set aside earlier: it is damaged and may be removed.")
    if args.action == "list" or not damaged:
        return 0
    for report in damaged:
        print(f"checkpoint {report.path} {report.problem}.", file=sys.stderr)
    return 1


def _line(report: manifest.Report, verified: bool) -> str:
    state = "whole" if verified else "finished"
    speed = f"  {_speed(report):.2f} GB/s" if verified else ""
    scores = "".join(f"  {name} {value:.2f}" for name, value in report.scores.items())
    said = state + speed if report.problem is None else report.problem
    return f"{report.step:>9}  {report.bytes / 1e6:9.2f} MB{scores}  {said}"


def _speed(report: manifest.Report) -> float:
    return report.bytes / 1e9 / max(report.seconds, 1e-9)


def _result(
    workdir: Path, reports: list[manifest.Report], aside: list[str], verified: bool
) -> dict[str, Any]:
    rows = [report._asdict() for report in reports]
    if not verified:
        for row in rows:
            del row["seconds"]
    size, seconds = sum(r.bytes for r in reports), sum(r.seconds for r in reports)
    whole = [report.step for report in reports if report.problem is None]
    result: dict[str, Any] = {"workdir": str(workdir), "steps": rows, "set_aside": aside}
    result |= {"newest": whole[-1] if whole else None, "damaged": len(reports) - len(whole)}
    if verified:
        result |= {"bytes": size, "gigabytes_per_second": size / 1e9 / max(seconds, 1e-9)}
    return result


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="wm-jax checkpoint",
        description="List the checkpoints of a run, or prove them whole.",
        epilog=EPILOG,
        formatter_class=_FORMATTER,
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="list|verify")
    for name, what in (("list", "steps, sizes and scores"), ("verify", "read and compare")):
        add = actions.add_parser(
            name, help=what, epilog=EPILOG, formatter_class=_FORMATTER
        ).add_argument
        add(
            "--workdir",
            type=fetched_whole,
            required=True,
            metavar="DIR",
            help="the run's folder, or its URL",
        )
        add("--json", action="store_true", help="print the result as JSON")
    return parser
