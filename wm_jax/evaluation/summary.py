"""What a finished evaluation says in words and on a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8

from wm_jax.evaluation.protocol import Protocol
from wm_jax.evaluation.rows import Row
from wm_jax.evaluation.suite import METRICS

TABLE_STEPS = (1, 5, 10, 20, 40)
CEILING = "see_then_simulate"
#: The same, told of masses, friction and restitution no more than what is usual.
TYPICAL = "see_then_simulate_typical"


class Film(NamedTuple):
    """One clip of the films: its truth with the context, and the prediction of the horizon."""

    title: str
    truth: UInt8[np.ndarray, "t h w 3"]
    predicted: UInt8[np.ndarray, "s h w 3"]
    error: float  # px, mean over the horizon


class Report(NamedTuple):
    """What a page is made of. ``tested`` names the models under test, the first one foremost;
    ``about`` says of each of them what it is."""

    rows: Sequence[Row]
    protocol: Protocol
    tested: Sequence[str]
    films: Sequence[Film]
    holds: bool
    about: Mapping[str, Mapping[str, Any]]
    command: str
    config: Mapping[str, Any]


def find(
    rows: Iterable[Row], model: str, metric: str, step: int, control: str | None = None
) -> Row | None:
    """The one row of these, if it has a value."""
    wanted = (model, metric, step, control)
    for row in rows:
        if (row["model"], row["metric"], row["step"], row["control"]) == wanted:
            return row if row["value"] is not None else None
    return None


def models_of(rows: Iterable[Row]) -> list[str]:
    """Names of the subjects, in the order of the rows."""
    return list(dict.fromkeys(r["model"] for r in rows if r["model"] != "instrument"))


def headline(report: Report) -> str:
    """What was found, in a sentence."""
    step = max(s for s in (1, 5, 10) if s <= report.protocol.horizon)
    model = report.tested[0]
    own = find(report.rows, model, "position_error", step)
    if own is None:
        return f"{model} has no score at step {step}."
    text = (
        f"{step} frame{'s' * (step > 1)} ahead, the model misplaces objects by "
        f"{own['value']:.1f} px "
        f"({own['low']:.1f}–{own['high']:.1f})"
    )
    told = []
    for name in ("copy_last", "constant_velocity"):
        row = find(report.rows, name, "position_error", step)
        if row is not None:
            told.append(f"{label(name)} by {row['value']:.1f}")
    ceiling = find(report.rows, CEILING, "position_error", step)
    text += "; " + ", ".join(told) if told else ""
    if ceiling is not None:
        text += f". The true simulator, started from what can be seen, by {ceiling['value']:.1f}"
    return text + "."


def calibration_line(rows: Sequence[Row], protocol: Protocol, holds: bool) -> str:
    """What the instrument is worth on this data, in a sentence."""

    def value(metric: str, control: str) -> float:
        row = find(rows, "instrument", f"calibration_{metric}", 0, control)
        return float("nan") if row is None else row["value"]

    verdict = "The instrument holds" if holds else "The instrument failed"
    return (
        f"{verdict}: on true frames it misplaces visible objects by "
        f"{value('position_error', 'true'):.3f} px (below {protocol.calibration:g} asked) and "
        f"names {value('identity', 'true'):.2%} right (above {protocol.calibration_identity:.1%} "
        "asked); "
        f"blurred by {protocol.unit:g} px {value('position_error', 'blur_1'):.3f} px and "
        f"{value('identity', 'blur_1'):.2%}, by {2 * protocol.unit:g} px "
        f"{value('position_error', 'blur_2'):.3f} px and {value('identity', 'blur_2'):.2%}; faded "
        f"half into the mean image {value('position_error', 'half_mean_image'):.3f} px and "
        f"{value('identity', 'half_mean_image'):.2%}. In the mean image it sees "
        f"{value('objects', 'mean_image'):.0f} objects."
    )


def terminal_table(report: Report) -> str:
    """The table as text: a model a line, position error and PSNR by horizon step."""
    lines = []
    steps = [s for s in TABLE_STEPS if s <= report.protocol.horizon]
    for metric in ("position_error", "psnr", "matched_share"):
        unit = METRICS[metric][0].replace("1", "share")
        name = metric if unit == "share" else f"{metric} ({unit})"
        lines.append(f"{name:<22}" + "".join(f"{f'step {s}':>9}" for s in steps))
        for model in models_of(report.rows):
            found = [find(report.rows, model, metric, s) for s in steps]
            cells = (f"{'–' if r is None else format(r['value'], '.2f'):>9}" for r in found)
            lines.append(f"  {model:<20}" + "".join(cells))
    return "\n".join(lines)


def label(name: str) -> str:
    """A name as a reader sees it."""
    return name.replace("_", "-")
