"""The causal suite as a section of the report: success by intervention, what the edit must not
touch, and filmstrips of twins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from wm_jax.evaluation import causal, film, parts, plot
from wm_jax.evaluation.protocol import CausalProtocol
from wm_jax.evaluation.rows import Row
from wm_jax.evaluation.summary import CEILING, TYPICAL, calibration_line, label
from wm_jax.evaluation.summary import find as find_control

STRIP = (1, 5, 10, 15, 20, 30, 40)
WORDS = {
    "sequence": "three in a row",
    "undone": "recoloured, then taken back",
}


class Film(NamedTuple):
    """One clip and its twin, over the horizon: both truths, and both rollouts of a model."""

    scenario: str
    success: float  # of this clip, over the steps that count
    factual: UInt8[np.ndarray, "t h w 3"]
    twin: UInt8[np.ndarray, "t h w 3"]
    unedited: UInt8[np.ndarray, "t h w 3"]
    edited: UInt8[np.ndarray, "t h w 3"]


class CausalReport(NamedTuple):
    """What the section is made of. ``spans`` are the mean predictable steps by scenario; the
    instrument ``holds`` or failed on true frames, those of twins included."""

    rows: Sequence[Row]
    protocol: CausalProtocol
    tested: Sequence[str]
    scenarios: Sequence[str]
    spans: Mapping[str, float]
    films: Sequence[Film]
    holds: bool


def find(
    report: CausalReport, model: str, metric: str, scenario: str, step: int, control: str | None
) -> Row | None:
    """The one row of these, if it has a value."""
    wanted = (model, metric, scenario, step, control)
    for row in report.rows:
        of = (row["model"], row["metric"], row["intervention"], row["step"], row["control"])
        if of == wanted:
            return row if row["value"] is not None else None
    return None


def middle_step(report: CausalReport) -> int:
    """The step that is told in words: 20, or the last there is."""
    return max(step for step in causal.STEPS if step <= min(20, report.protocol.horizon))


def headline(report: CausalReport) -> str:
    """What was found, in a sentence or two."""
    model, step = report.tested[0], middle_step(report)
    kinds = [s for s in report.scenarios if s in report.protocol.kinds]
    told = {s: find(report, model, "edit_success_common", s, step, None) for s in kinds}
    some = {s: row["value"] for s, row in told.items() if row is not None}
    if not some:
        return f"{label(model)} cannot be edited: only what it does after seeing an edit is told."
    best, worst = max(some, key=some.__getitem__), min(some, key=some.__getitem__)
    text = (
        f"{step} frames after a change of the scene, {label(model)}'s future has made "
        f"{min(some.values()):.0%} ({worst}) to {max(some.values()):.0%} ({best}) of the way from "
        "the unchanged future to the real one"
    )
    null = find(report, model, "null_change", "null", 0, "null")
    if null is not None:
        text += f"; an edit that changes nothing moves a pixel by {null['value']:.0f} grey levels"
    missing = [s for s in kinds if told[s] is None]
    return text + (f"; it takes no {', '.join(missing)}." if missing else ".")


def calibrated(report: CausalReport) -> str:
    """What the instrument is worth on these clips and on their twins, in a sentence or two."""
    text = calibration_line(report.rows, report.protocol, report.holds)
    told = []
    for scenario in report.scenarios:
        wanted = (f"calibration_{name}" for name in ("position_error", "identity"))
        error, named = (
            find_control(report.rows, "instrument", metric, 0, f"twin_{scenario}")
            for metric in wanted
        )
        if error is not None and named is not None:
            told.append(f"{scenario} {error['value']:.3f} px and {named['value']:.2%}")
    return f"{text} On true twins: {', '.join(told)}."


def terminal_table(report: CausalReport) -> str:
    """The table as text: an intervention a line."""
    step, lines = middle_step(report), []
    for model in report.tested:
        lines.append(
            f"{f'edit success, {label(model)}':<30}{'edit':>7}{'oracle':>8}{'shuffled':>10}"
            f"{'simulator: shuffled':>21}{'seen':>7}{'locality':>10}{'in words: happens':>19}"
        )
        for scenario in report.scenarios:
            if scenario == "undone":
                continue
            columns = (
                (model, "edit_success_common", None, 7),
                (model, "edit_success_common", "oracle", 8),
                (model, "edit_success_common", "shuffled", 10),
                ("truth", "edit_success_common", "shuffled", 21),
                (CEILING, "edit_success_common", None, 7),
                (model, "locality", None, 10),
            )
            cells = ""
            for who, metric, control, width in columns:
                row = find(report, who, metric, scenario, step, control)
                cells += f"{'–' if row is None else format(row['value'], '.2f'):>{width}}"
            said = find(report, model, "prompt_adherence", scenario, 0, "sentence")
            cells += f"{'–' if said is None else format(said['value'], '.2f'):>19}"
            lines.append(f"  {_name(scenario)} at {step}".ljust(30) + cells)
    lines.append(
        "  (edit_success_common: from the true unchanged future; edit_success in causal.json is "
        "from the model's own)"
    )
    return "\n".join(lines)


def section(report: CausalReport) -> str:
    """HTML."""
    return "\n".join(
        [
            "<h2>What if? The causal suite</h2>",
            f"<p>{escape(headline(report))}</p>",
            f'<p class="note">{escape(calibrated(report))}</p>',
            _success(report),
            _charts(report),
            _words(report),
            _side_effects(report),
            _physics(report),
            _sound(report),
            _films(report),
            parts.fold("Protocol of the causal suite", report.protocol.to_dict()),
        ]
    )


def _name(scenario: str) -> str:
    if scenario.startswith("push_x"):
        return f"push, × {scenario.removeprefix('push_x')}"
    return WORDS.get(scenario, scenario)


def _success(report: CausalReport) -> str:
    step = middle_step(report)
    out = []
    for model in report.tested:
        columns: list[tuple[str, str, str | None]] = [
            ("edit", model, None),
            ("oracle: sees the change", model, "oracle"),
            ("shuffled edit", model, "shuffled"),
            ("simulator, shuffled edit", "truth", "shuffled"),
            ("see-then-simulate, edit", CEILING, None),
            ("told typical masses", TYPICAL, None),
            ("simulator, edit", "truth", None),
        ]
        if not any(row["model"] == TYPICAL for row in report.rows):
            columns = [column for column in columns if column[1] != TYPICAL]
        head = "<th></th>" + "".join(f"<th>{name}</th>" for name, _, _ in columns)
        head += "<th>clips that count</th><th>predictable frames</th>"
        body = ""
        for scenario in report.scenarios:
            if scenario == "undone":
                continue
            cells = ""
            for _, who, control in columns:
                row = find(report, who, "edit_success_common", scenario, step, control)
                missing = who == model and control is None and row is None
                cells += "<td>not supported</td>" if missing else parts.cell(row)
            any_row = find(report, model, "edit_success_common", scenario, step, "oracle")
            share = "–" if any_row is None else f"{any_row['share']:.0%}"
            cells += f"<td>{share}</td><td>{report.spans[scenario]:.0f}</td>"
            body += f'<tr><th scope="row">{escape(_name(scenario))}</th>{cells}</tr>'
        caption = (
            f"<caption>{escape(label(model))}: edit success {step} frames on <span>0: as if nothing"
            " was changed, 1: the real future; by objects, over the distance of both truths</span>"
            "</caption>"
        )
        out.append(f'<table class="numbers">{caption}<tr>{head}</tr>{body}</table>')
    return "".join(f'<div class="scroll">{table}</div>' for table in out)


def _words(report: CausalReport) -> str:
    """What becomes of a sentence."""
    step = middle_step(report)
    head = "<th></th><th></th>" + "".join(
        f"<th>{name}</th>"
        for name in (
            "it happens, after the sentence",
            "after the edit itself",
            "after another edit of the kind",
            "clips asked",
            f"edit success by sentence, at {step}",
            "by one with all numbers",
            "by the edit itself",
        )
    )
    body = ""
    for scenario in report.scenarios:
        for model in (*report.tested, CEILING):
            rows = [
                find(report, model, "prompt_adherence", scenario, 0, control)
                for control in ("sentence", None, "shuffled")
            ]
            if rows[1] is None:
                continue
            rows += [
                find(report, model, "edit_success_common", scenario, step, control)
                for control in ("sentence", "numbers", None)
            ]
            cells = [parts.cell(row) for row in rows]
            cells.insert(3, f"<td>{rows[1]['share']:.0%}</td>")
            body += (
                f'<tr><th scope="row">{escape(_name(scenario))}</th><td>{escape(label(model))}</td>'
                f"{''.join(cells)}</tr>"
            )
    caption = (
        "<caption>Told in words <span>share of the clips, of those whose true twin shows it, in "
        "which what the sentence says happens, to the object it names. Most sentences do not say "
        "how hard a push is or how far a move, so their edit success is less</span></caption>"
    )
    table = f'<table class="numbers">{caption}<tr>{head}</tr>{body}</table>'
    return f'<div class="scroll">{table}</div>' if body else ""


def _charts(report: CausalReport) -> str:
    model, figures = report.tested[0], []
    curves = (
        ("tested_1", "edit", model, None, True),
        ("tested_3", "oracle", model, "oracle", False),
        ("copy_last", "shuffled", model, "shuffled", False),
        (CEILING, "see-then-simulate", CEILING, None, False),
    )
    for scenario in report.scenarios:
        if scenario == "undone" or scenario.startswith("push_x"):
            continue
        lines = []
        for style, name, who, control, strong in curves:
            rows = [
                find(report, who, "edit_success_common", scenario, step, control)
                for step in causal.STEPS
            ]
            known = [row for row in rows if row is not None]
            if known:
                x, y, low, high = (
                    np.array([np.nan if row[c] is None else row[c] for row in known], float)
                    for c in ("step", "value", "low", "high")
                )
                lines.append(plot.Line(style, name, x, y, low, high, strong))
        drawn = plot.chart(
            lines, x_label="frames after the change", title=f"Edit success of {scenario}",
            y_range=(-0.5, 1),
        )  # fmt: skip
        figures.append(f"<figure><h3>{escape(_name(scenario))}</h3>{drawn}</figure>")
    return '<div class="charts">' + "".join(figures) + "</div>"


def _side_effects(report: CausalReport) -> str:
    step = middle_step(report)
    columns = (
        (f"untouched objects move by, px at {step}", "locality", step, ".2f"),
        ("others diverge within 2 frames of the truth, share", "onset_within", 0, ".2f"),
        ("they diverge late by, frames", "onset_error", 0, ".1f"),
        ("they never do, share", "onset_missing", 0, ".2f"),
    )
    head = "<th></th><th></th>" + "".join(f"<th>{name}</th>" for name, *_ in columns)
    body = ""
    for scenario in report.scenarios:
        for model in (*report.tested, CEILING, "truth"):
            if find(report, model, "locality", scenario, step, None) is None:
                continue
            cells = "".join(
                parts.cell(find(report, model, metric, scenario, at, None), form)
                for _, metric, at, form in columns
            )
            body += (
                f'<tr><th scope="row">{escape(_name(scenario))}</th><td>{escape(label(model))}</td>'
                f"{cells}</tr>"
            )
    undone = [
        f"{label(model)} {row['value']:.2f} px"
        for model in report.tested
        if (row := find(report, model, "undo_error", "undone", step, None)) is not None
    ]
    note = (
        f"<p class='note'>A recolouring taken back after {report.protocol.undone_after} frames "
        f"leaves objects further from the truth than no edit by: {', '.join(undone)}.</p>"
        if undone
        else ""
    )
    caption = "<caption>What an edit must not touch, and when it must arrive</caption>"
    table = f'<table class="numbers">{caption}<tr>{head}</tr>{body}</table>'
    return (f'<div class="scroll">{table}</div>' if body else "") + note


def _physics(report: CausalReport) -> str:
    columns = [
        ("px in a wall, at its worst", "wall_penetration", ".2f"),
        ("energy over the truth's", "energy_ratio", ".2f"),
        ("restitution off walls wrong by", "restitution_error", ".3f"),
        ("momentum of two wrong by, share", "momentum_error", ".3f"),
    ]
    if any(row["metric"] == "action_sensitivity" for row in report.rows):
        columns += [("error if told other actions, over error", "action_sensitivity", ".2f")]
    head = "<th></th>" + "".join(f"<th>{name}</th>" for name, *_ in columns)
    body = ""
    for model in (*report.tested, "copy_last", CEILING, "truth"):
        cells = ""
        for _, metric, form in columns:
            wanted = (
                row for row in report.rows if (row["model"], row["metric"]) == (model, metric)
            )
            cells += parts.cell(next((r for r in wanted if r["value"] is not None), None), form)
        body += f'<tr><th scope="row">{escape(label(model))}</th>{cells}</tr>'
    caption = (
        "<caption>Physics of the unedited rollouts <span>the truth says what the instrument errs "
        "by</span></caption>"
    )
    table = f'<table class="numbers">{caption}<tr>{head}</tr>{body}</table>'
    return f'<div class="scroll">{table}</div>'


def _sound(report: CausalReport) -> str:
    """Nothing where nothing is struck out of sight, or nobody is told sound."""
    columns = [
        ("px off, hearing it", "struck_error", None),
        ("hearing nothing", "struck_error", "silent"),
        ("another episode", "struck_error", "shuffled"),
        ("gained, px", "sound_gain", None),
        ("gained by another episode, px", "sound_gain", "shuffled"),
    ]
    body = ""
    for model in (*report.tested, CEILING, "truth"):
        found = [
            next(
                (
                    row
                    for row in report.rows
                    if (row["model"], row["metric"], row["control"]) == (model, metric, control)
                    and row["step"] == 0
                    and row["value"] is not None
                ),
                None,
            )
            for _, metric, control in columns
        ]
        if any(found):
            cells = "".join(parts.cell(row, ".2f") for row in found)
            body += f'<tr><th scope="row">{escape(label(model))}</th>{cells}</tr>'
    if not body:
        return ""
    head = "<th></th>" + "".join(f"<th>{name}</th>" for name, *_ in columns)
    caption = (
        "<caption>Use of sound: what was struck out of sight, once it is seen again <span>the "
        "simulator is told when it was struck, and by what impulse</span></caption>"
    )
    table = f'<table class="numbers">{caption}<tr>{head}</tr>{body}</table>'
    return f'<div class="scroll">{table}</div>'


def _films(report: CausalReport) -> str:
    steps = [s for s in STRIP if s <= report.protocol.horizon]
    head = "<th></th>" + "".join(f"<th>step {s}</th>" for s in steps)
    figures = []
    for one in report.films:
        body = ""
        for name, frames in (
            ("truth", one.factual),
            ("truth, changed", one.twin),
            ("model", one.unedited),
            ("model, edited", one.edited),
        ):
            cells = "".join(
                f'<td><img alt="{name}" src="{film.picture(frames[s - 1])}"></td>' for s in steps
            )
            body += f'<tr><th scope="row">{name}</th>{cells}</tr>'
        figures.append(
            f"<figure><figcaption>{escape(_name(one.scenario))}: the median clip, edit success "
            f"{one.success:.2f}</figcaption>"
            f'<div class="scroll"><table class="strip"><tr>{head}</tr>{body}</table></div></figure>'
        )
    return "".join(figures)
