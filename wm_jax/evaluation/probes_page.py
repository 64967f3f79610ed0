"""The probes suite as a section of the report: what can be read, with the controls beside it."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from wm_jax.evaluation import film, parts, plot, probes
from wm_jax.evaluation.protocol import ProbeProtocol
from wm_jax.evaluation.rows import Row
from wm_jax.evaluation.summary import find, label

WORDS = {
    "position": "where what is seen is",
    "velocity": "how fast it moves",
    "hidden_position": "where what is hidden is",
    "hidden_presence": "that it is there, hidden",
    "contact": "that it has just touched something",
    "mass": "its mass, after a meeting",
}


class ProbesReport(NamedTuple):
    """What the section is made of. ``films`` are some clips with what ``probe`` reads."""

    rows: Sequence[Row]
    protocol: ProbeProtocol
    tested: Sequence[str]
    probe: str
    films: Sequence[Sequence[UInt8[np.ndarray, "h w 3"]]]


def scores_of(report: ProbesReport) -> list[str]:
    """The scores that this world has."""
    there = {row["metric"] for row in report.rows}
    return [score for score in probes.SCORES if f"{score}_{report.probe}" in there]


def headline(report: ProbesReport) -> str:
    """What was found, in a sentence or two."""
    model, probe, last = report.tested[0], report.probe, report.protocol.ahead[-1]
    told = []
    for score in ("position", "velocity"):
        now, later = (find(report.rows, model, f"{score}_{probe}", at) for at in (0, last))
        if now is not None and later is not None:
            told.append(f"{now['value']:.0%} of the variance of {score} ({later['value']:.0%} "
                        f"{last} steps ahead)")  # fmt: skip
    text = f"Of {label(model)}'s state the {probe} read-out tells " + " and ".join(told)
    hidden = find(report.rows, model, f"hidden_position_error_{probe}", 0)
    straight = find(report.rows, "constant_velocity", "hidden_position_error", 0)
    if hidden is not None and straight is not None:
        text += (
            f"; it misplaces what is hidden by {hidden['value']:.1f} px, constant velocity by "
            f"{straight['value']:.1f} px"
        )
    return text + "."


def terminal_table(report: ProbesReport) -> str:
    """The table as text: a score and read-out a line, of posteriors."""
    lines = []
    for model in report.tested:
        columns = ((model, None, label(model)), *((model, *c) for c in probes.CONTROLS.items()),
                   ("truth", None, "truth"))  # fmt: skip
        lines.append(
            f"{'explained share (posterior)':<30}" + "".join(f"{c[2]:>17}" for c in columns)
        )
        for score in scores_of(report):
            for probe in report.protocol.probes:
                found = [find(report.rows, who, f"{score}_{probe}", 0, c) for who, c, _ in columns]
                cells = (f"{'–' if r is None else format(r['value'], '.2f'):>17}" for r in found)
                lines.append(f"  {score}, {probe}".ljust(30) + "".join(cells))
    return "\n".join(lines)


def section(report: ProbesReport) -> str:
    """HTML."""
    return "\n".join(
        [
            "<h2>Does the state hold the scene? The probes suite</h2>",
            f"<p>{escape(headline(report))}</p>",
            _pictures(report),
            _charts(report),
            *(_table(report, model) for model in report.tested),
            _in_px(report),
            parts.fold("Protocol of the probes suite", report.protocol.to_dict()),
        ]
    )


def _charts(report: ProbesReport) -> str:
    model, figures, steps = report.tested[0], [], (0, *report.protocol.ahead)
    curves = (
        ("tested_1", label(model), model, None),
        ("tested_3", "random weights", model, "random_weights"),
        ("copy_last", "one frame", model, "one_frame"),
        ("mean_image", "labels shuffled", model, "shuffled_labels"),
        ("see_then_simulate", "truth", "truth", None),
    )
    for score in scores_of(report):
        lines = []
        for style, name, who, control in curves:
            metric = f"{score}_{report.probe}"
            rows = [find(report.rows, who, metric, step, control) for step in steps]
            known = [row for row in rows if row is not None]
            if known:
                x, y, low, high = (
                    np.array([row[column] for row in known], float)
                    for column in ("step", "value", "low", "high")
                )
                lines.append(plot.Line(style, name, x, y, low, high, style == "tested_1"))
        drawn = plot.chart(
            lines, x_label="steps after the last frame seen", title=WORDS[score], y_range=(-0.25, 1)
        )
        figures.append(
            f"<figure><h3>{escape(WORDS[score].capitalize())} <span>share of variance explained, "
            f"{report.probe}</span></h3>{drawn}</figure>"
        )
    return '<div class="charts">' + "".join(figures) + "</div>"


def _table(report: ProbesReport, model: str) -> str:
    columns = (
        (model, None, "as trained"),
        *((model, *control) for control in probes.CONTROLS.items()),
        ("copy_last", None, "the last frame's pixels"),
        ("truth", None, "the true scene"),
    )
    head = "<th></th><th></th>" + "".join(f"<th>{name}</th>" for *_, name in columns)
    head += "<th>selectivity</th>"
    body = ""
    for score in scores_of(report):
        for probe in report.protocol.probes:
            cells = "".join(
                parts.cell(find(report.rows, who, f"{score}_{probe}", 0, control))
                for who, control, _ in columns
            )
            cells += parts.cell(find(report.rows, model, f"{score}_{probe}_selectivity", 0))
            title = escape(WORDS[score]) if probe == report.protocol.probes[0] else ""
            body += f'<tr><th scope="row">{title}</th><td>{probe}</td>{cells}</tr>'
    caption = (
        f"<caption>{escape(label(model))}: share of variance explained, posteriors <span>0: no "
        "better than the mean, 1: all of it; below 0: what was learned misleads</span></caption>"
    )
    table = f'<table class="numbers">{caption}<tr>{head}</tr>{body}</table>'
    return f'<div class="scroll">{table}</div>'


def _in_px(report: ProbesReport) -> str:
    steps = (0, *report.protocol.ahead)
    head = "<th></th><th></th>" + "".join(
        f"<th>{'posterior' if step == 0 else f'{step} ahead'}</th>" for step in steps
    )
    body = ""
    for score in probes.IN_PX:
        metric = f"{score}_error_{report.probe}"
        who: list[tuple[str, str, str | None]] = [(model, metric, None) for model in report.tested]
        who += [(report.tested[0], metric, control) for control in probes.CONTROLS]
        who.append(("constant_velocity", f"{score}_error", None))
        for model, metric, control in who:
            found = [find(report.rows, model, metric, step, control) for step in steps]
            if any(found):
                name = probes.CONTROLS[control] if control else label(model)
                cells = "".join(parts.cell(row) for row in found)
                title = escape(WORDS[score]) if model == report.tested[0] and not control else ""
                body += f'<tr><th scope="row">{title}</th><td>{escape(name)}</td>{cells}</tr>'
    caption = f"<caption>Misplaced by, px <span>{report.probe}; lower is better</span></caption>"
    table = f'<table class="numbers">{caption}<tr>{head}</tr>{body}</table>'
    return f'<div class="scroll">{table}</div>'


def _pictures(report: ProbesReport) -> str:
    steps = (0, *report.protocol.ahead)
    head = "".join(f"<th>{'last frame seen' if k == 0 else f'{k} ahead'}</th>" for k in steps)
    body = "".join(
        "<tr>"
        + "".join(f'<td><img alt="read-out" src="{film.picture(frame)}"></td>' for frame in clip)
        + "</tr>"
        for clip in report.films
    )
    note = (
        f"True frames of the first test clips; a ring is where the {report.probe} read-out of "
        f"{escape(label(report.tested[0]))}'s state says the object of that colour is, hidden or "
        "not."
    )
    return (
        f'<figure><figcaption>{note}</figcaption><div class="scroll"><table class="strip">'
        f"<tr>{head}</tr>{body}</table></div></figure>"
    )
