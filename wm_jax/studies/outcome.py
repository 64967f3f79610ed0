"""From stored runs to verdicts and tables: the same whether they were made now or long ago."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from wm_jax.errors import UserError
from wm_jax.evaluation.suite import METRICS
from wm_jax.studies import verdict
from wm_jax.studies.scoring import sums_of
from wm_jax.studies.study import Claim, Scale, Study
from wm_jax.studies.verdict import Effect

Stored = dict[str, Any]


class Finding(NamedTuple):
    """A claim, what was measured, and the verdict."""

    claim: Claim
    effect: Effect
    verdict: str


class Outcome(NamedTuple):
    """All that is known of a study at a scale. ``runs``: arm -> its stored runs, by seed."""

    study: Study
    scale_name: str
    scale: Scale
    runs: Mapping[str, Sequence[Stored]]
    baselines: Mapping[str, Stored]
    holds: bool
    findings: Sequence[Finding]


def read(
    study: Study, scale_name: str, folder: Path, seeds: Sequence[int] | None = None
) -> Outcome:
    """The outcome of the runs stored in ``folder``; of ``seeds`` only, where they are given.

    Raises `UserError` where runs were judged by different rules.
    """
    stored = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    runs: dict[str, list[Stored]] = {arm: [] for arm in study.arms}
    baselines: Stored = {}
    for one in stored:
        if one["kind"] == "baselines":
            baselines = one
        elif one["arm"] in runs and (seeds is None or one["seed"] in seeds):
            runs[one["arm"]].append(one)
    for of_arm in runs.values():
        of_arm.sort(key=lambda run: run["seed"])
    digests = {one["protocol"]["digest"] for one in stored if "protocol" in one}
    if len(digests) > 1:
        raise UserError(
            f"the runs in {folder} were judged by different protocols or on different episodes; "
            "keep those of one, and run the study again for the rest."
        )
    findings = [_finding(claim, runs) for claim in study.claims]
    return Outcome(
        study,
        scale_name,
        study.scales[scale_name],
        runs,
        baselines.get("models", {}),
        baselines.get("instrument_holds", True),
        findings,
    )


def _finding(claim: Claim, runs: Mapping[str, Sequence[Stored]]) -> Finding:
    """By the seeds that both arms have a score of."""
    sides = [
        {r["seed"]: r for r in runs[arm] if not r["failed"]} for arm in (claim.arm, claim.against)
    ]
    seeds = sorted(sides[0].keys() & sides[1].keys())
    arm, against = ([sums_of(side[s], claim.metric, claim.step) for s in seeds] for side in sides)
    effect = verdict.gain(arm, against, claim.expected)
    return Finding(claim, effect, verdict.decide(effect, claim.smallest))


def cell(runs: Sequence[Stored], metric: str, step: int) -> Effect:
    """The mean of an arm at a step."""
    return verdict.mean([sums_of(r, metric, step) for r in runs if not r.get("failed")])


def unit(metric: str) -> str:
    """' px', ' dB', or nothing for a share."""
    name = METRICS[metric][0]
    return "" if name == "1" else f" {name}"


def sentence(finding: Finding) -> str:
    """What was found, for a terminal, a page and a README alike."""
    claim, effect = finding.claim, finding.effect
    what = f"{claim.metric.replace('_', ' ')} at step {claim.step}"
    start = f"{finding.verdict}: {claim.sentence}"
    if not np.isfinite(effect.value):
        return f"{start} There is no {what} of {claim.arm} and {claim.against} to compare yet."
    seeds = ", ".join(f"{value:+.3g}" for value in effect.seeds)
    return (
        f"{start} The {what} of {claim.arm} should be {claim.expected} than that of "
        f"{claim.against} by more than {claim.smallest:g}{unit(claim.metric)}; it is by "
        f"{effect.value:+.3g} (95 % interval {effect.low:+.3g} to {effect.high:+.3g}), n = "
        f"{effect.episodes} episodes × {len(effect.seeds)} seed{'s' * (len(effect.seeds) != 1)} "
        f"({seeds})."
    )


def as_json(outcome: Outcome) -> dict[str, Any]:
    """What ``--json`` prints."""

    def number(value: float) -> float | None:
        return round(value, 6) if np.isfinite(value) else None

    def effect(of: Effect) -> dict[str, Any]:
        return {
            **{name: number(getattr(of, name)) for name in ("value", "low", "high")},
            "seeds": [number(value) for value in of.seeds],
            "episodes": of.episodes,
        }

    subjects = dict(outcome.runs) | {name: [of] for name, of in outcome.baselines.items()}
    return {
        "study": outcome.study.name,
        "scale": outcome.scale_name,
        "verdict": outcome.findings[0].verdict,
        "instrument_holds": outcome.holds,
        "claims": [
            {**f.claim.__dict__, "verdict": f.verdict, "effect": effect(f.effect)}
            for f in outcome.findings
        ],
        "table": [
            {"arm": arm, "metric": metric, "step": step, **effect(cell(runs, metric, step))}
            for arm, runs in subjects.items()
            for metric in outcome.study.metrics
            for step in outcome.scale.steps
        ],
        "core_minutes": round(core_minutes(outcome), 2),
    }


def core_minutes(outcome: Outcome) -> float:
    """Of all stored runs, judging included, tuning not."""
    return sum(r["cost"]["core_minutes"] for of_arm in outcome.runs.values() for r in of_arm)


def terminal_table(outcome: Outcome) -> str:
    """The table as text: an arm a line, each metric at each step."""
    subjects = dict(outcome.runs) | {name: [of] for name, of in outcome.baselines.items()}
    width = max(len(name) for name in subjects) + 2
    lines = []
    for metric in outcome.study.metrics:
        head = f"{metric}{unit(metric)}".ljust(width)
        lines.append(head + "".join(f"{f'step {s}':>10}" for s in outcome.scale.steps))
        for name, runs in subjects.items():
            means = [cell(runs, metric, step).value for step in outcome.scale.steps]
            cells = ("–" if not np.isfinite(x) else f"{x:.2f}" for x in means)
            lines.append(f"  {name:<{width - 2}}" + "".join(f"{c:>10}" for c in cells))
    return "\n".join(lines)
