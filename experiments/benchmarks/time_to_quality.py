"""How long until a model is right: seconds of training, compile included, until the tracked
position error at step 5 is below half of copy-last's, on the validation split.

    ttq=experiments/benchmarks/time_to_quality.py configs=experiments/configs/twins.py
    python $ttq --arm $configs:quickstart --data data/quickstart --minutes 5 --out runs/ttq --json
    python $ttq --arm $configs:quickstart_rssm --data data/quickstart --minutes 60 \\
        --rates 3e-4,1e-3,3e-3 --out runs/ttq --json

    python $ttq --plot experiments/results/time_to_quality.png --table FILE.json    what is there

Each run is an ordinary one that keeps its checkpoints; they are judged after it, so that judging
costs no training time. An arm's time is the median over seeds at its best learning rate. A run that
never arrives counts as its cap, and the row says ``censored``. Runs resume.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
from chart import charts
from PIL import Image

from wm_jax import checkpoint, models
from wm_jax import config as configs
from wm_jax.evaluation import suite
from wm_jax.evaluation.protocol import Protocol
from wm_jax.evaluation.tracker import Instrument
from wm_jax.evaluation.twins_world import open_world
from wm_jax.train import train
from wm_jax.writers import read_rows

STEP = 5  # frames ahead
TABLE = Path("experiments/results/time_to_quality.json")


class Judge:
    """Tracked position error at `STEP`, in px, on the validation split of ``data``."""

    def __init__(self, data: str, resolution: int):
        world = open_world(data, resolution, ())
        # Validation episodes are as long as training ones: one clip each.
        self.protocol = Protocol(
            split="validation", resolution=resolution, horizon=STEP, starts=(0,), episodes=256
        )
        self.clips = world.clips("validation", self.protocol.length, (0,), 256)
        self.instrument = Instrument(world.palette, world.resolution)
        baselines = suite.baselines(world, self.instrument, self.protocol)
        [copy_last] = [subject for subject in baselines if subject.name == "copy_last"]
        self.goal = self._error(copy_last) / 2

    def error(self, model: Any, params: Any) -> float:
        return self._error(suite.model_subject("model", model, params, self.protocol))

    def _error(self, subject: suite.Subject) -> float:
        scores, _ = suite.measure(subject, self.clips, self.protocol, self.instrument)
        sums = scores["position_error"]
        return float(sums.total[:, STEP - 1].sum() / sums.weight[:, STEP - 1].sum())


def run(arm: str, overrides: list[str], workdir: Path, judge: Judge) -> dict[str, Any]:
    """Trains (or resumes) and judges every checkpoint: the curve, and the time of arrival."""
    config = configs.load(arm, overrides)
    result = train(config, workdir)
    seconds = {row["step"]: row.get("time/seconds") for row in read_rows(workdir / "metrics.jsonl")}
    curve = []
    for step in checkpoint.steps(checkpoint.folder(workdir)):
        params, saved, _ = checkpoint.restore_params(workdir, step)
        if seconds.get(step) is not None:
            curve.append((seconds[step], judge.error(models.build(saved.model), params)))
    arrived = [when for when, error in curve if error < judge.goal]
    return {"updates": result["step"], "seconds": min(arrived, default=None), "curve": curve}


def arm_rows(arguments: argparse.Namespace, judge: Judge) -> list[dict[str, Any]]:
    """A row a run, and last the arm's own: median over seeds at the best learning rate."""
    rows = []
    base = configs.load(arguments.arm, arguments.overrides)
    base_row = {"arm": arguments.arm, "backbone": base.model.name, "goal_px": judge.goal}
    for rate in arguments.rates or [base.optim.learning_rate]:
        for seed in arguments.seeds:
            name = f"{base.model.name}-{rate:g}-{seed}"
            every = max(1, arguments.checkpoint_every)
            overrides = [
                f"--config.data.directory={arguments.data}",
                f"--config.train.minutes={arguments.minutes}",
                f"--config.train.checkpoint_every={every}",
                f"--config.train.log_every={math.gcd(every, 10)}",
                "--config.train.clip_every=0",
                "--config.train.keep=1000",
                f"--config.optim.learning_rate={rate}",
                f"--config.seed={seed}",
                *arguments.overrides,
            ]
            row = run(arguments.arm, overrides, Path(arguments.out) / name, judge)
            rows.append(base_row | {"learning_rate": rate, "seed": seed} | row)
            print(name, row["seconds"], file=sys.stderr, flush=True)
    cap = 60 * arguments.minutes
    by_rate = {
        rate: float(
            np.median([min(r["seconds"] or cap, cap) for r in rows if r["learning_rate"] == rate])
        )
        for rate in {row["learning_rate"] for row in rows}
    }
    best = min(by_rate, key=lambda rate: by_rate[rate])
    rows.append(
        base_row
        | {
            "learning_rate": best,
            "seed": None,
            "seconds": by_rate[best],
            "censored": by_rate[best] >= cap,
            "cap_seconds": cap,
            "seeds": len(arguments.seeds),
        }
    )
    return rows


def _by(run: list[list[float]], when: float) -> float:
    """The error of a curve's last checkpoint by then."""
    return [error for at, error in run if at <= when][-1]


def plot(rows: list[dict[str, Any]]) -> Image.Image:
    """Error over seconds, a line a backbone: at each time the median of its runs at its best rate,
    of those still going, each at the last checkpoint it had by then; from when all have one."""
    best = {row["backbone"]: row["learning_rate"] for row in rows if row["seed"] is None}
    curves: dict[str, list] = {}
    for row in rows:
        if row["seed"] is not None and row["learning_rate"] == best[row["backbone"]]:
            curves.setdefault(row["backbone"], []).append(sorted(row["curve"]))
    lines = {}
    for name, runs in curves.items():
        begin = max(run[0][0] for run in runs)
        moments = sorted({when for run in runs for when, _ in run if when >= begin})
        lines[name] = [
            (when, float(np.median([_by(run, when) for run in runs if run[-1][0] >= when])))
            for when in moments
        ]
    return charts({f"px of error {STEP} frames ahead, over seconds of training": lines}, scale=2)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--arm", metavar="FILE.py:VARIANT")
    parser.add_argument("--data", metavar="DIR")
    parser.add_argument("--minutes", type=float, help="the cap of a run")
    parser.add_argument("--out", metavar="DIR", help="where the runs go")
    parser.add_argument("--seeds", type=lambda s: [int(x) for x in s.split(",")], default=[0, 1, 2])
    parser.add_argument("--rates", type=lambda s: [float(x) for x in s.split(",")], default=[])
    parser.add_argument("--checkpoint-every", type=int, default=100, help="updates")
    parser.add_argument("--json", action="store_true", help="print one JSON list")
    parser.add_argument("--table", type=Path, default=TABLE, help="of --plot (default %(default)s)")
    parser.add_argument("--plot", metavar="PNG", help="draw the curves of a table, train nothing")
    arguments, arguments.overrides = parser.parse_known_args()
    if arguments.plot:
        if not arguments.table.is_file():
            parser.error(f"--table {arguments.table} is no file; name one that --json made.")
        plot(json.loads(arguments.table.read_text())).save(arguments.plot)
        return 0
    missing = [n for n in ("arm", "data", "minutes", "out") if getattr(arguments, n) is None]
    if missing:
        parser.error(f"training needs --{', --'.join(missing)}.")
    resolution = configs.load(arguments.arm, []).model.resolution
    rows = arm_rows(arguments, Judge(arguments.data, resolution))
    if arguments.json:
        print(json.dumps(rows))
    else:
        last = rows[-1]
        mark = "≥ " if last["censored"] else ""
        print(f"{last['arm']}: {mark}{last['seconds']:.0f} s to {last['goal_px']:.2f} px")
    return 0


if __name__ == "__main__":
    sys.exit(main())
