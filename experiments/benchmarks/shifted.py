"""Worlds that training never showed: the same scores on every shifted test set, beside its own.

    model=experiments/pretrained/motion
    python experiments/benchmarks/shifted.py --model $model --data data/shifted --json

The data set needs scenes of them: `wm-jax data build … --shifted 24`. Each set changes one range of
the world (more objects, longer occlusion, new pairs of hue and shape, stronger pushes). Rows are
those of `wm-jax evaluate --suite pixel,causal`, with ``split``: position error and share of clips
with all objects matched, of the model, constant velocity and see-then-simulate; edit success of the
edit, of another edit of the kind, of the model that sees four frames of the change in place of an
edit (oracle), and of see-then-simulate; locality and onset of the model.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from data_pipelines.twins.world import SHIFTED
from wm_jax import models, world
from wm_jax.errors import UserError
from wm_jax.evaluation.judge import Run, judge
from wm_jax.evaluation.judge_causal import judge_causal
from wm_jax.evaluation.protocol import CausalProtocol, Protocol
from wm_jax.evaluation.summary import CEILING
from wm_jax.evaluation.twins_world import open_world, resolution_of

STEPS = (5, 20, 40)
PIXEL = ("position_error", "matched_share")
#: The edit, another of its kind, and four frames of the change seen in its place.
CONTROLS = (None, "shuffled", "oracle")
CAUSAL = {"edit_success": (20,), "locality": (20,), "onset_within": (0,)}


def kept(rows: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    """The rows that the table shows, of the model called ``name``."""
    found = []
    for row in rows:
        metric, model, control = row["metric"], row["model"], row.get("control")
        if metric in PIXEL:
            wanted = row["step"] in STEPS and control is None
            wanted &= model in (name, "constant_velocity", CEILING)
        else:
            wanted = row["step"] in CAUSAL.get(metric, ()) and control in CONTROLS
            wanted &= model == name or (
                model == CEILING and metric == "edit_success" and control is None
            )
        if wanted:
            found.append(row)
    return found


def measure(runs: dict[str, Any], data: str, resolution: int, told: tuple[str, ...], episodes: int):
    """Rows of every split, as they come."""
    shown, name = open_world(data, resolution, told), next(iter(runs))
    for split in ("test", *SHIFTED):
        about: dict[str, Any] = {"world": shown.name, "split": split, "resolution": resolution}
        about |= {"episodes": episodes, "horizon": max(STEPS)}
        rows = judge(runs, shown, Protocol(**about), "shifted.py")[1]["rows"]
        rows += judge_causal(runs, shown, CausalProtocol(**about), "shifted.py")[1]["rows"]
        yield from ({"split": split} | row for row in kept(rows, name))


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True, help="a run or an export")
    parser.add_argument("--data", required=True, help="a data set with shifted test sets")
    parser.add_argument("--episodes", type=int, default=24, help="of each set, at most")
    parser.add_argument("--json", action="store_true", help="print the rows as JSON")
    args = parser.parse_args()
    try:
        params, config, updates = world.read(args.model)
        run = Run(Path(args.model), models.build(config.model), params, config, updates)
        told = tuple(sorted(config.data.conditions))
        rows = list(
            measure({"model": run}, args.data, resolution_of(args.data), told, args.episodes)
        )
    except UserError as error:
        print(f"shifted: {error}", file=sys.stderr)
        return 2
    if args.json:
        print(json.dumps(rows))
        return 0
    for row in rows:
        what_if = " ".join(str(row.get(k) or "") for k in ("intervention", "control"))
        name = f"{row['split']:16s} {row['model']:18s} {row['metric']:15s} {what_if:22s}"
        bounds = f"({row['low']:.2f} to {row['high']:.2f})" if row.get("low") is not None else ""
        print(f"{name} step {row['step']:2d} {row['value']:7.3f} {bounds}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
