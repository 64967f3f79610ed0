"""The planning suite as a section of the report: how near plans come, and films of some."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw

from wm_jax.evaluation import film, parts
from wm_jax.evaluation.protocol import PlanningProtocol
from wm_jax.evaluation.rows import Row
from wm_jax.evaluation.summary import find, label

WORDS = {
    "plan_distance": "distance from the goal, 64ths of the arena",
    "plan_reached": "how often it is reached",
    "plan_gain": "share of the way from rest to the simulator's plans",
}
CALLED = {
    "rest": "a hand that rests",
    "random": "random actions",
    "truth": "planned in the true simulator",
    "typical": "planned in one with typical masses",
}
#: Frames from one picture of a film to the next.
EVERY = 4


class Execution(NamedTuple):
    """What came of a plan: the frames from the last one shown on, the goal (px), how far off it
    ended (world units), and whether the model had the object at all."""

    frames: UInt8[np.ndarray, "t h w 3"]
    goal: tuple[float, float]
    off: float
    known: bool


class PlanningReport(NamedTuple):
    """What the section is made of. ``films`` are some executions of the first model's plans."""

    rows: Sequence[Row]
    protocol: PlanningProtocol
    tested: Sequence[str]
    films: Sequence[tuple[str, Execution]]


def headline(report: PlanningReport) -> str:
    """What was found, in a sentence."""
    model, step = report.tested[0], report.protocol.horizon
    found = {metric: find(report.rows, model, metric, step) for metric in WORDS}
    distance, reached, gain = (found[metric] for metric in WORDS)
    if distance is None or reached is None or gain is None:
        return f"{label(model)} is told no actions, so it cannot plan any."
    rest = find(report.rows, "rest", "plan_distance", step)
    assert rest is not None
    return (
        f"By {label(model)}'s plans the object ends {distance['value']:.1f} 64ths of the arena "
        f"from its goal, within {report.protocol.near:g} in {reached['value']:.0%}; a hand that "
        f"rests leaves it at {rest['value']:.1f}. That is {gain['value']:.0%} of what planning in "
        "the true simulator gains."
    )


def _who(report: PlanningReport) -> list[tuple[str, str]]:
    return [*((name, label(name)) for name in report.tested), *CALLED.items()]


def terminal_table(report: PlanningReport) -> str:
    """The table as text."""
    step = report.protocol.horizon
    lines = [f"{'planning':<38}" + "".join(f"{m.removeprefix('plan_'):>24}" for m in WORDS)]
    for model, name in _who(report):
        cells = ""
        for metric in WORDS:
            row = find(report.rows, model, metric, step)
            text = "not supported"
            if row is not None:
                text = f"{row['value']:.2f} ({row['low']:.2f} to {row['high']:.2f})"
            cells += f"{text:>24}"
        lines.append(f"  {name:<36}{cells}")
    return "\n".join(lines)


def section(report: PlanningReport) -> str:
    """HTML."""
    step = report.protocol.horizon
    head = "<th></th>" + "".join(f"<th>{text}</th>" for text in WORDS.values())
    body = ""
    for model, name in _who(report):
        cells = "".join(parts.cell(find(report.rows, model, metric, step)) for metric in WORDS)
        body += f'<tr><th scope="row">{escape(name)}</th>{cells}</tr>'
    caption = (
        f"<caption>After {step} frames, {report.protocol.episodes} scenes <span>a dash: not "
        "supported, the model is told no actions</span></caption>"
    )
    table = f'<table class="numbers">{caption}<tr>{head}</tr>{body}</table>'
    return "\n".join(
        [
            "<h2>Can it be steered? The planning suite</h2>",
            f"<p>{escape(headline(report))}</p>",
            _films(report),
            f'<div class="scroll">{table}</div>',
            parts.fold("Protocol of the planning suite", report.protocol.to_dict()),
        ]
    )


def _films(report: PlanningReport) -> str:
    if not report.films:
        return ""
    body = ""
    for name, done in report.films:
        frames = [marked(frame, done.goal) for frame in done.frames[::EVERY]]
        text = f"{name}: {done.off:.1f} off" + ("" if done.known else ", not seen")
        pictures = "".join(
            f'<td><img alt="frame {EVERY * i} of the plan" src="{film.picture(frame)}"></td>'
            for i, frame in enumerate(frames)
        )
        body += f'<tr><th scope="row">{text}</th>{pictures}</tr>'
    count = len(report.films[0][1].frames[::EVERY])
    head = "<th></th>" + "".join(f"<th>{EVERY * i}</th>" for i in range(count))
    note = (
        f"What the true simulator made of {escape(label(report.tested[0]))}'s plans, every "
        f"{EVERY} frames; the cross is where the object shall be at the end."
    )
    return (
        f'<figure><figcaption>{note}</figcaption><div class="scroll"><table class="strip">'
        f"<tr>{head}</tr>{body}</table></div></figure>"
    )


def marked(
    frame: UInt8[np.ndarray, "h w 3"], goal: tuple[float, float], by: int = 2
) -> UInt8[np.ndarray, "h2 w2 3"]:
    """The frame, ``by`` times as large, with a cross at the goal (px)."""
    drawn = Image.fromarray(np.repeat(np.repeat(frame, by, 0), by, 1))
    pen, arm = ImageDraw.Draw(drawn), 0.05 * len(frame) * by
    x, y = (by * value for value in goal)
    for wide, ink in ((3, (255, 255, 255)), (1, (0, 0, 0))):
        pen.line((x - arm, y, x + arm, y), fill=ink, width=wide)
        pen.line((x, y - arm, x, y + arm), fill=ink, width=wide)
    return np.asarray(drawn)
