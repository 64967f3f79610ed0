"""The studies' block in the README, rebuilt from stored runs and from nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from wm_jax.errors import UserError
from wm_jax.studies import outcome as outcomes
from wm_jax.studies import study as studies
from wm_jax.studies.outcome import Outcome, Stored, cell, core_minutes, sentence, unit

BEGIN = "<!-- studies: begin; wm-jax reproduce --tables writes this block from stored runs -->"
END = "<!-- studies: end -->"
BEFORE = "## Use it"  # a block that is not there yet goes above this line


def block(results: Path) -> str:
    """Markers included; empty where nothing is stored. A smoke run is no result."""
    parts = [
        section(outcomes.read(study, scale, results / name / scale), results / name / scale)
        for name in studies.names()
        for study in [studies.load(name)]
        for scale in study.scales
        if scale != "smoke" and any((results / name / scale).glob("*.json"))
    ]
    return "\n\n".join([BEGIN, *parts, END]) if parts else ""


def section(outcome: Outcome, folder: Path) -> str:
    """Verdicts, the table of what the claims speak of, and its terms, in Markdown. All metrics are
    on the study's page and in its runs."""
    scale = outcome.scale
    claimed = {claim.metric for claim in outcome.study.claims}
    metrics = [metric for metric in outcome.study.metrics if metric in claimed]
    columns = [(metric, step) for metric in metrics for step in scale.steps]
    names = [f"{metric.replace('_', ' ')}{unit(metric)} at {step}" for metric, step in columns]
    rows = [f"| {' | '.join(['arm', *names])} |", "| --- " * (len(names) + 1) + "|"]
    for arm, runs in outcome.runs.items():
        rows.append(_row(arm, runs, columns))
    for name, of in outcome.baselines.items():
        rows.append(_row(name.replace("_", " "), [of], columns))
    counts = sorted({len(runs) for runs in outcome.runs.values()})
    seeds = f"{counts[-1]} seed{'s' * (counts[-1] != 1)}"
    if len(counts) > 1:  # not all of it has been run
        seeds = f"{counts[0]} to {counts[-1]} seeds so far"
    compiling = " (compiling included)" if scale.budget.minutes else ""
    terms = (
        f"`{outcome.scale.data.world}` at {scale.data.resolution} px, {scale.budget} a run"
        f"{compiling}, {seeds}, {scale.episodes} test episodes, "
        f"{core_minutes(outcome):.0f} core-minutes; runs in [{folder.as_posix()}]"
        f"({folder.as_posix()}), made by `wm-jax reproduce {outcome.study.name} --scale "
        f"{outcome.scale_name}`."
    )
    verdicts = "\n".join(f"- {_bold(sentence(finding))}" for finding in outcome.findings)
    table = "\n".join(rows)
    return f"### Study: {outcome.study.name}\n\n{verdicts}\n\n{table}\n\n{terms}"


def _bold(text: str) -> str:
    verdict, rest = text.split(":", 1)
    return f"**{verdict}**:{rest}"


def _row(name: str, runs: Sequence[Stored], columns: Sequence[tuple[str, int]]) -> str:
    cells = []
    for metric, step in columns:
        effect = cell(runs, metric, step)
        number = f"{effect.value:.2f} ({effect.low:.2f}–{effect.high:.2f})"
        cells.append(number if np.isfinite(effect.value) else "–")
    return f"| {' | '.join([name, *cells])} |"


def current(text: str) -> str:
    """The block that ``text`` holds, or nothing. Raises `UserError` for half a block."""
    begins, ends = text.count(BEGIN), text.count(END)
    if (begins, ends) not in ((0, 0), (1, 1)):
        raise UserError("the README's studies block has lost a marker; restore it, or remove both.")
    return BEGIN + text.split(BEGIN)[1].split(END)[0] + END if begins else ""


def rewrite(text: str, results: Path) -> str:
    """``text`` with its block replaced, added or removed."""
    new, old = block(results), current(text)
    if old:
        return text.replace(old, new) if new else text.replace(f"{old}\n\n", "")
    if not new:
        return text
    if f"\n{BEFORE}\n" not in text:
        raise UserError(f"the README has no line '{BEFORE}' above which the block would go.")
    return text.replace(f"\n{BEFORE}\n", f"\n{new}\n\n{BEFORE}\n", 1)
