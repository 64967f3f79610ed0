"""The model card of an export: its data, its size, its scores and its limits."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

#: Horizon steps that a card shows, of those that were scored.
STEPS = (1, 5, 10, 20, 40)
#: Metrics that a card shows; evaluation/pixel.json has the others.
METRICS = ("psnr", "position_error", "matched_share")

LIMITS = """\
## Limits

- It has seen only the data named above; on anything else its predictions mean nothing.
- Errors grow with the horizon, and beyond the last step scored above nothing was measured.
- The programs load with the jax named in manifest.json and with those up to six months newer.
  After that, model.safetensors and config.json rebuild the model in wm_jax.
"""


def from_run(workdir: Path, config: Mapping[str, Any], step: int, parameters: int) -> str:
    """The card, in Markdown, of the run in ``workdir`` after ``step`` updates."""
    scores = workdir / "evaluation" / "pixel.json"
    rows = json.loads(scores.read_text())["rows"] if scores.is_file() else []
    plan = Path(config["data"]["directory"]) / "build.json"
    data = json.loads(plan.read_text())["plan"] if plan.is_file() else {}
    return "\n".join([_about(config, data, step, parameters), _scores(rows), LIMITS])


def _about(config: Mapping[str, Any], plan: Mapping[str, Any], step: int, parameters: int) -> str:
    model, data, train = config["model"], config["data"], config["train"]
    world = plan.get("world", data["directory"])
    scenes = ", ".join(f"{count:,} {split}" for split, count in plan.get("scenes", {}).items())
    version = f", version {plan['version']}, seed {plan['seed']}: {scenes} scenes" if plan else ""
    return f"""\
# {model["name"]} on {world}

A video world model: it encodes frames into a latent state, steps that state forward, and decodes
it. `load.py` beside this card runs it with jax alone.

## Data

`{world}` at {model["resolution"]} px{version}.
{step:,} updates of {train["batch_size"]} windows of {data["window"]} frames.

## Size

{parameters:,} parameters, stored in float16 and computed in float32. `encode` takes
{config["eval"]["context"]} frames of context at a time.
"""


def _scores(rows: Iterable[Mapping[str, Any]]) -> str:
    """One table for each metric: a model a line, a horizon step a column."""
    shown = [row for row in rows if row["step"] in STEPS and row["value"] is not None]
    shown = [row for row in shown if row["metric"] in METRICS and not row["control"]]
    if not shown:
        return "## Scores\n\nNot evaluated yet: run `wm-jax evaluate`, then export again.\n"
    parts = ["## Scores\n", "Mean and 95 % interval over held-out episodes, by horizon step.\n"]
    steps = sorted({row["step"] for row in shown})
    for metric in METRICS:
        found = {(row["model"], row["step"]): row for row in shown if row["metric"] == metric}
        if found:
            unit, split = next((row["unit"], row["split"]) for row in found.values())
            parts += [f"{metric} ({unit}), {split} split\n", _line(["model", *map(str, steps)])]
            parts.append(_line(["---"] * (len(steps) + 1)))
        for model in dict.fromkeys(model for model, _ in found):
            parts.append(_line([model, *(_cell(found.get((model, step))) for step in steps)]))
        parts.append("")
    return "\n".join(parts)


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(row: Mapping[str, Any] | None) -> str:
    if row is None:
        return "–"
    return f"{row['value']:.2f} ({row['low']:.2f}–{row['high']:.2f})"
