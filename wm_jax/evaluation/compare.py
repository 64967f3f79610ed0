"""``wm-jax compare``: runs scored on the same episodes, with their paired differences."""

from __future__ import annotations

import argparse
import json
import shlex
from pathlib import Path
from typing import Any

from wm_jax.errors import UserError
from wm_jax.remote import fetched

STEPS = (1, 5, 10, 20, 40)


def main(argv: list[str]) -> int:
    """The verb."""
    args = _parser().parse_args(argv)
    if len(args.runs) < 2:
        raise UserError("compare takes at least two runs; name the folders of both.")
    if len({run.resolve() for run in args.runs}) < len(args.runs):
        raise UserError("a run is named twice; a run beside itself differs by nothing.")
    # Imported here so that --help answers without them.
    from wm_jax.evaluation import cli, report, summary
    from wm_jax.evaluation.judge import judge, restore
    from wm_jax.evaluation.protocol import Protocol
    from wm_jax.evaluation.twins_world import open_world

    runs = restore(args.runs)
    first = next(iter(runs.values())).config
    told = {modality for run in runs.values() for modality in run.config.data.conditions}
    directory = str(args.data or first.data.directory)
    world = open_world(directory, first.model.resolution, tuple(sorted(told)))
    protocol = Protocol(
        world=world.name,
        split=args.split,
        resolution=world.resolution,
        episodes=args.episodes,
        horizon=args.horizon,
    )
    judged, result = judge(runs, world, protocol, shlex.join(["wm-jax", "compare", *argv]))
    cli.write(args.out / "pixel.json", cli.to_text(result))
    cli.write(args.out / "index.html", report.render(judged))
    if args.json:
        print(json.dumps(result, allow_nan=False))
        return 0
    print(summary.terminal_table(judged))
    print("\n".join(differences(result["rows"], list(runs), args.horizon)))
    print(summary.calibration_line(judged.rows, judged.protocol, judged.holds))
    print(f"rows: {args.out / 'pixel.json'}\npage: {args.out / 'index.html'}")
    return 0


def differences(rows: list[dict[str, Any]], names: list[str], horizon: int) -> list[str]:
    """Every run's paired difference in position error from the first one, with its interval."""
    from wm_jax.evaluation.summary import find

    lines = [f"position_error (px), beside {names[0]}: negative is better, paired over episodes"]
    for name in names[1:]:
        cells = []
        for step in (step for step in STEPS if step <= horizon):
            row = find(rows, name, "position_error_difference", step, names[0])
            if row is not None:
                interval = f"({row['low']:.2f} to {row['high']:.2f}, n={row['n']})"
                cells.append(f"step {step}: {row['value']:+.2f} {interval}")
        lines.append(f"  {name}: " + "; ".join(cells))
    return lines


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="wm-jax compare",
        description="Score runs on the same episodes and tell their paired differences.",
        epilog="example: wm-jax compare runs/a runs/b --episodes 96 --out comparison",
    )
    add = parser.add_argument
    add("runs", type=fetched, nargs="+", metavar="RUN", help="folders; the first is compared with")
    add("--data", type=Path, help="folder of the data set, if not the first run's own")
    add("--split", default="test", help="which episodes (default %(default)s)")
    add("--episodes", type=int, default=64, help="at most so many (default %(default)s)")
    add("--horizon", type=int, default=60, help="frames to predict (default %(default)s)")
    add("--out", type=Path, default=Path("comparison"), help="folder (default %(default)s)")
    add("--json", action="store_true", help="print the result as JSON")
    return parser
