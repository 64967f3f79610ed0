"""The temporal suite as a section of the report: curves, tables, a timeline of what was hidden."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import NamedTuple

import numpy as np

from wm_jax.evaluation import coherence, film, parts, permanence, plot, suite
from wm_jax.evaluation.protocol import TemporalProtocol
from wm_jax.evaluation.rows import Row
from wm_jax.evaluation.suite import Subject
from wm_jax.evaluation.summary import calibration_line, find, label, models_of
from wm_jax.evaluation.temporal import Long, Short
from wm_jax.evaluation.world import Clips

KINDS = {
    "context": "hidden when the context ends",
    "rollout": "hidden later",
    "struck": "touched while hidden",
}
ENDED = {
    "lost": "loses an object",
    "doubled": "shows too many",
    "swapped": "swaps two, or a shape",
    "astray": "too slow or too fast",
}
STRIP = (1, 10, 30, 60, 120, 240, 360, 480)


class TemporalReport(NamedTuple):
    """What the section is made of. ``subject`` predicts the ``clips`` of the long horizon; the
    instrument ``holds`` or failed on true frames."""

    rows: Sequence[Row]
    protocol: TemporalProtocol
    tested: Sequence[str]
    short: Mapping[str, Short]
    long: Mapping[str, Long]
    subject: Subject
    clips: Clips
    holds: bool


def headline(report: TemporalReport) -> str:
    """What was found, in a sentence."""
    model = report.tested[0]
    half = find(report.rows, model, "coherence_half_life", 0)
    back = find(report.rows, model, "permanence", 0)
    told = []
    if half is not None:
        steps, beyond = half["value"], half["value"] > report.protocol.long_horizon
        often = f"more than {report.protocol.long_horizon}" if beyond else f"{steps:.0f}"
        told.append(f"half of its rollouts keep every object for {often} frames")
    if back is not None:
        told.append(f"{back['value']:.0%} of what was hidden is where it should be when it is back")
    return f"{label(model)}: " + "; ".join(told) + "."


def calibrated(report: TemporalReport) -> str:
    """What the instrument is worth on these clips, in a sentence."""
    return calibration_line(report.rows, report.protocol, report.holds)


def terminal_table(report: TemporalReport) -> str:
    """The table as text: a model a line."""
    lines = [f"{'temporal':<22}{'half-life':>10}{'permanence':>11}{'error px':>9}{'flicker':>9}"]
    for model in models_of(report.rows):
        cells = ""
        for metric, width, form in (
            ("coherence_half_life", 10, ".0f"),
            ("permanence", 11, ".2f"),
            ("permanence_error", 9, ".2f"),
            ("flicker", 9, ".2f"),
        ):
            row = find(report.rows, model, metric, 0)
            cells += f"{'–' if row is None else format(row['value'], form):>{width}}"
        lines.append(f"  {model:<20}{cells}")
    return "\n".join(lines)


def section(report: TemporalReport) -> str:
    """HTML."""
    return "\n".join(
        [
            "<h2>Is it still there? The temporal suite</h2>",
            f"<p>{escape(headline(report))}</p>",
            f'<p class="note">{escape(calibrated(report))}</p>',
            _charts(report),
            _permanence(report),
            _ended(report),
            _strips(report),
            parts.fold("Protocol of the temporal suite", report.protocol.to_dict()),
        ]
    )


def _charts(report: TemporalReport) -> str:
    models = models_of(report.rows)
    curve = plot.chart(
        [parts.line(report.rows, report.tested, model, "coherence") for model in models],
        x_label="horizon step (frames)",
        title="Share of rollouts without a violation",
        y_range=(0, 1),
    )
    hidden = plot.chart(
        [parts.line(report.rows, report.tested, model, "permanence") for model in models],
        x_label="frames hidden, at most",
        title="Share of hidden objects found again",
        y_range=(0, 1),
    )
    return (
        '<div class="charts">'
        f"<figure><h3>Rollouts without a violation <span>higher is better</span></h3>{curve}"
        "</figure>"
        f"<figure><h3>Hidden objects found again <span>higher is better</span></h3>{hidden}"
        "</figure></div>"
    )


def _permanence(report: TemporalReport) -> str:
    bins = report.protocol.bins
    counts = report.short[report.tested[0]].events
    tables = []
    for kind, words in KINDS.items():
        of_kind = counts.kind == permanence.KINDS.index(kind)
        head = "<th></th><th>all</th>" + "".join(f"<th>{a}–{b} frames</th>" for a, b in bins)
        number = [int(of_kind.sum())]
        number += [
            int((of_kind & (counts.hidden >= a) & (counts.hidden <= b)).sum()) for a, b in bins
        ]
        body = "".join(
            f'<tr><th scope="row">{escape(label(model))}</th>'
            + "".join(
                parts.cell(find(report.rows, model, "permanence", step, kind))
                for step in (0, *(upper for _, upper in bins))
            )
            + "</tr>"
            for model in models_of(report.rows)
        )
        body += (
            '<tr><th scope="row">events</th>' + "".join(f"<td>{n}</td>" for n in number) + "</tr>"
        )
        caption = f"<caption>Found again: {words}</caption>"
        tables.append(f'<table class="numbers">{caption}<tr>{head}</tr>{body}</table>')
    return "".join(f'<div class="scroll">{table}</div>' for table in tables)


def _ended(report: TemporalReport) -> str:
    head = "<th></th><th>half-life</th>" + "".join(f"<th>{words}</th>" for words in ENDED.values())
    body = ""
    for model in models_of(report.rows):
        half = find(report.rows, model, "coherence_half_life", 0)
        cells = parts.cell(half, ".0f", last=report.protocol.long_horizon)
        cells += "".join(
            parts.cell(find(report.rows, model, "first_violation", 0, kind))
            for kind in coherence.KINDS
        )
        body += f'<tr><th scope="row">{escape(label(model))}</th>{cells}</tr>'
    last = report.protocol.long_horizon
    return (
        f'<div class="scroll"><table class="numbers"><caption>What ends a rollout of {last} frames '
        "first, share of rollouts; the truth says how often the instrument is wrong</caption>"
        f"<tr>{head}</tr>{body}</table></div>"
    )


def _strips(report: TemporalReport) -> str:
    """The shortest, a median and the longest of the first tested model's long rollouts."""
    found, clips = report.long[report.tested[0]], report.clips
    count = len(clips.frames)
    ends, kinds = found.violations.step[:count], found.violations.kind[:count]
    order = np.argsort(ends, kind="stable")
    steps = [s for s in STRIP if s <= report.protocol.long_horizon]
    head = "<th></th>" + "".join(f"<th>step {s}</th>" for s in steps)
    figures = []
    for title, index in (
        ("Shortest", order[0]),
        ("Median", order[count // 2]),
        ("Longest", order[-1]),
    ):
        batch = next(b for b in suite.batches(clips) if index in b)
        predicted = report.subject.predict(suite.take(clips, batch), 0).frames[index - batch[0]]
        future = clips.frames[index, report.protocol.context :]
        body = ""
        for name, frames in (("truth", future), ("prediction", predicted)):
            cells = "".join(
                f'<td><img alt="{name}" src="{film.picture(frames[s - 1])}"></td>' for s in steps
            )
            body += f'<tr><th scope="row">{name}</th>{cells}</tr>'
        kind = coherence.KINDS[kinds[index]] if kinds[index] >= 0 else None
        ended = f"{ENDED[kind]} at step {ends[index]}" if kind else "no violation"
        figures.append(
            f"<figure><figcaption>{title}: {ended}</figcaption>"
            f'<div class="scroll"><table class="strip"><tr>{head}</tr>{body}</table></div></figure>'
        )
    note = "Long rollouts of the first model. Places diverge, as they must; the objects should not."
    return f'<p class="note">{note}</p>' + "".join(figures)
