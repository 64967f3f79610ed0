"""Runs a plan: data, tuning, the runs themselves, what does not learn."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from wm_jax.studies import pool
from wm_jax.studies.plan import Job, Plan
from wm_jax.studies.study import Data


def run(plan: Plan, jobs: int | None = None) -> None:
    """Does what is not done yet; ``jobs`` runs at a time, by default as many as the scale says.

    Every run of a budget in minutes compiles anew, so that all of them pay for it.
    """
    build(plan.scale.data)
    at_once = plan.scale.jobs if jobs is None else jobs
    quick = plan.scale.quick

    def all_of(stage: str, of: list[Job], cold: bool) -> list[dict[str, Any]]:
        pool.run_all(stage, of, at_once=at_once, quick=quick, cold=cold)
        return [json.loads(job.result.read_text()) for job in of]

    tuning = plan.scale.tuning
    tried = all_of("tuning", plan.tuning(), bool(tuning and tuning.minutes))
    runs = plan.runs(plan.choose(tried))
    if plan.scale.budget.minutes:
        all_of(plan.study.name, runs, True)
        all_of("baselines", [plan.baselines()], False)
    else:
        all_of(plan.study.name, [plan.baselines(), *runs], False)


def build(data: Data) -> None:
    """The data set, unless it is there."""
    from data_pipelines.twins import build as twins

    fields = dataclasses.asdict(data)
    made = twins.make_plan(fields.pop("world"), **fields)
    twins.build(made, str(data.directory()))
