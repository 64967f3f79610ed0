"""One run of a study in a process of its own: train, judge, write down.

    python -m wm_jax.studies.worker JOB.json

A process of its own gives every run the same start: its own compilation, memory and cores. It
leaves, after saving, when the process that started it is gone.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import shutil
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from wm_jax import checkpoint
from wm_jax import config as configs
from wm_jax.errors import UserError
from wm_jax.evaluation.protocol import Protocol
from wm_jax.studies import provenance, scoring
from wm_jax.train import TrainingDiverged, train
from wm_jax.writers import read_rows

CURVE_POINTS = 8
STOPPED = 130
COMPILED = "compiled"  # a run's own compilation cache, in its folder


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status 0: the result is written; 2: bad input, in a sentence; 130: stopped and saved."""
    (path,) = sys.argv[1:] if argv is None else argv
    job = json.loads(Path(path).read_text())
    if job["cores"] and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, job["cores"])
    # Orbax's threads log a traceback for what `Checkpoints` tells in one sentence.
    logging.getLogger("absl").setLevel(logging.CRITICAL)
    _leave_with_parent()
    try:
        with _alone(Path(job["workdir"])):
            result = baselines(job) if job["kind"] == "baselines" else run(job)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    if result is None:
        return STOPPED
    write(Path(job["result"]), result | {"identity": job["identity"]})
    _keep_last(Path(job["workdir"]))
    return 0


def run(job: dict[str, Any]) -> dict[str, Any] | None:
    """Trains and judges: what is stored of the run, or None where it was told to stop. A run that
    diverges is a result, too."""
    config, workdir = configs.from_json(json.dumps(job["config"])), job["workdir"]
    cost = provenance.Cost(Path(workdir) / "cost.json")
    scores: dict[str, Any] = {"failed": None}
    try:
        done = train(config, workdir)
        if done["stopped"]:
            cost.add()
            return None
        scores |= _judged(job, workdir)
    except TrainingDiverged as error:
        scores["failed"] = str(error)
    about = {name: job[name] for name in ("study", "scale", "kind", "arm", "seed", "rate")}
    if job["tuning"]:
        about["tuning"] = job["tuning"]
    resolved = json.loads((Path(workdir) / "config.json").read_text())
    where = {"versions": provenance.versions(), "hardware": provenance.hardware()}
    return about | where | {"cost": cost.add(), "config": resolved} | scores


def _judged(job: dict[str, Any], workdir: str) -> dict[str, Any]:
    """Scores on validation, and for a run that is no tuning on test, with the curve of error
    against time."""
    params, config, updates = checkpoint.restore_params(workdir)
    told = config.data.conditions
    judge = scoring.Judge(job["data"], _protocol(job["validation"]), told)
    out: dict[str, Any] = {"updates": updates, "parameters": _size(params)}
    if job["kind"] == "tune":
        return out | {"validation": scoring.overall(judge.model(workdir), job["metric"])}
    out["time"] = _time_curve(job, workdir, judge)
    out["validation"] = out["time"][-1]["value"]
    judge = scoring.Judge(job["data"], _protocol(job["protocol"]), told)
    kept = scoring.stored(judge.model(workdir), job["steps"], judge.protocol)
    return out | kept | {"protocol": judge.protocol.to_dict()}


def _time_curve(job: dict[str, Any], workdir: str, judge: scoring.Judge) -> list[dict[str, Any]]:
    """The metric of the first claim on validation, at some checkpoints of the run."""
    times = provenance.clock(read_rows(Path(workdir) / "metrics.jsonl"))
    steps = checkpoint.steps(checkpoint.folder(workdir))
    points = []
    for index in np.linspace(0, len(steps) - 1, min(len(steps), CURVE_POINTS)).round().astype(int):
        step = steps[index]
        seconds = float(np.interp(step, list(times), list(times.values())))
        value = scoring.overall(judge.model(workdir, step), job["metric"])
        points.append({"update": step, "seconds": round(seconds, 2), "value": value})
    return points


def baselines(job: dict[str, Any]) -> dict[str, Any]:
    """The scores of what does not learn, and whether the instrument holds."""
    Path(job["workdir"]).mkdir(parents=True, exist_ok=True)
    judge = scoring.Judge(job["data"], _protocol(job["protocol"]), ())
    models = {
        name: scoring.stored(scores, job["steps"], judge.protocol)
        for name, scores in judge.baselines().items()
    }
    return {
        **{name: job[name] for name in ("study", "scale", "kind")},
        "instrument_holds": judge.holds(),
        "protocol": judge.protocol.to_dict(),
        "models": models,
    }


def _keep_last(workdir: Path) -> None:
    """The checkpoints of the curve have been judged and nothing is compiled again: of use is only
    the last checkpoint."""
    directory = checkpoint.folder(workdir)
    for step in checkpoint.steps(directory)[:-1]:
        shutil.rmtree(directory / str(step))
    shutil.rmtree(workdir / COMPILED, ignore_errors=True)


def write(path: Path, result: dict[str, Any]) -> None:
    """Whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(result, indent=1, allow_nan=False) + "\n")
    partial.replace(path)


def _protocol(fields: dict[str, Any]) -> Protocol:
    return Protocol(**{**fields, "starts": tuple(fields["starts"])})


def _size(params: Any) -> int:
    import jax

    return sum(leaf.size for leaf in jax.tree.leaves(params))


@contextlib.contextmanager
def _alone(workdir: Path) -> Iterator[None]:
    """Waits until no other worker is in the folder: one that lost its parent may still save."""
    workdir.mkdir(parents=True, exist_ok=True)
    with (workdir / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _leave_with_parent() -> None:
    """The parent holds the other end of stdin: when it is gone, this is a SIGTERM to ourselves,
    which the trainer takes as a wish to save and leave."""

    def watch() -> None:
        # Not sys.stdin: a thread that holds its lock keeps the interpreter from ending.
        while os.read(0, 1):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    sys.exit(main())
