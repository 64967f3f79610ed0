"""The report: one self-contained HTML file with films, curves, tables and the rules behind them."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np
from jaxtyping import UInt8

from wm_jax.evaluation import film, parts, plot
from wm_jax.evaluation.page import SCRIPT, STYLE
from wm_jax.evaluation.rows import Row
from wm_jax.evaluation.suite import METRICS, PAIRED
from wm_jax.evaluation.summary import (
    CEILING,
    TABLE_STEPS,
    Report,
    calibration_line,
    find,
    headline,
    label,
    models_of,
)

STRIP_STEPS = (1, 2, 5, 10, 20, 40)

#: metric -> what the page calls it, and the ends of its axis
TITLES: dict[str, tuple[str, tuple[float | None, float | None]]] = {
    "position_error": ("Position error of visible objects, px", (0, None)),
    "matched_share": ("Share of clips with every object matched", (0, 1)),
    "psnr": ("PSNR, dB", (None, None)),
    "ssim": ("SSIM", (None, 1)),
    "position_error_touched": ("Position error after a touch, px", (0, None)),
    "missed_share": ("Share of visible objects not found", (0, None)),
}
#: What the page's tables show.
TABLED = ("position_error", "psnr", "ssim", "matched_share", "position_error_touched")


def render(report: Report, sections: Sequence[str] = ()) -> str:
    """The page; ``sections`` are what other suites have to show."""
    protocol = report.protocol
    verdict = "verdict" if report.holds else "verdict failed"
    calibrated = calibration_line(report.rows, protocol, report.holds)
    body = [
        f'<p class="eyebrow">{escape(_about(report))}</p>',
        f"<h1>{escape(headline(report))}</h1>",
        f"<p>{escape(_scope(report))}</p>",
        f'<p class="{verdict}">{escape(calibrated)}</p>',
        _players(report),
        _strips(report),
        _charts(report),
        _tables(report),
        _differences(report),
        *sections,
        "<h2>How this was made</h2>",
        f"<pre>{escape(report.command)}</pre>",
        parts.fold("Protocol", {**protocol.to_dict()}),
        parts.fold("Config of the run", report.config),
    ]
    return page(f"{report.tested[0]} on {protocol.world}", body)


def page(title: str, pieces: Sequence[str]) -> str:
    """One file that opens from disk, of ``pieces`` of HTML."""
    body = "\n".join(pieces)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n{body}\n</main>\n"
        f"<script>{SCRIPT}</script>\n</body>\n</html>\n"
    )


def _about(report: Report) -> str:
    told = []
    for name, run in report.about.items():
        known = [str(run["backbone"])]
        known += [f"{run[what]:,} {what}" for what in ("parameters", "updates") if what in run]
        told.append(f"{name}: {', '.join([*known, str(run['workdir'])])}")
    return " · ".join(told)


def _scope(report: Report) -> str:
    protocol = report.protocol
    row = find(report.rows, report.tested[0], "psnr", 1)
    episodes = row["n"] if row else 0
    return (
        f"Open-loop prediction on {episodes} episodes of the {protocol.split} split of "
        f"{protocol.world} at {protocol.resolution} px: {protocol.context} frames are shown, then "
        f"{protocol.horizon} are predicted without another look. Ranges are 95 % bootstrap "
        "intervals over episodes."
    )


def _players(report: Report) -> str:
    if not report.films:
        return ""
    context, length = report.protocol.context, report.protocol.length
    players = []
    for item in report.films:
        shown = np.concatenate([item.truth[:context], item.predicted])
        rows = {
            "truth": item.truth,
            "prediction": shown,
            "error": film.error_map(item.truth, shown),
        }
        screens = "".join(
            f'<div class="screen"><img alt="{name}" src="{film.sprite(frames)}">'
            f"<span>{name}</span></div>"
            for name, frames in rows.items()
        )
        players.append(
            f'<div class="player"><h3>{escape(item.title)}</h3>'
            f'<p class="note">{item.error:.1f} px on average</p>'
            f'<div class="rows">{screens}</div></div>'
        )
    return (
        "<h2>What it predicts</h2>\n"
        '<p class="note">Clips with objects in sight, in order of their mean position error. '
        "During the context the model is shown the truth; after it, nothing.</p>\n"
        f'<figure><div class="players" style="--frames:{length};--frame:{context}">'
        f"{''.join(players)}</div>"
        f'<div class="controls"><button type="button">Play</button>'
        f'<input type="range" min="0" max="{length - 1}" value="{context}" '
        f'data-context="{context}" aria-label="frame"><output></output></div></figure>'
    )


def _strips(report: Report) -> str:
    protocol = report.protocol
    steps = [s for s in STRIP_STEPS if s <= protocol.horizon]
    if protocol.horizon not in steps:
        steps.append(protocol.horizon)
    figures = []
    for item in report.films:
        head = "<th></th><th>last shown</th>" + "".join(f"<th>step {s}</th>" for s in steps)
        last = item.truth[protocol.context - 1]
        future = item.truth[protocol.context :]
        rows = (
            ("truth", future, last),
            ("prediction", item.predicted, None),
            ("error", film.error_map(future, item.predicted), None),
        )
        body = ""
        for name, frames, first in rows:
            cells = (
                "<td></td>" if first is None else f'<td class="shown">{_image(first, name)}</td>'
            )
            cells += "".join(f"<td>{_image(frames[s - 1], name)}</td>" for s in steps)
            body += f'<tr><th scope="row">{name}</th>{cells}</tr>'
        figures.append(
            f"<figure><figcaption>{escape(item.title)}, {item.error:.1f} px on average</figcaption>"
            f'<div class="scroll"><table class="strip"><tr>{head}</tr>{body}</table></div></figure>'
        )
    if not figures:
        return ""
    note = "Error is the largest absolute difference of a pixel's channels: black none, pale most."
    return f'<h2>Frame by frame</h2>\n<p class="note">{note}</p>\n' + "\n".join(figures)


def _image(frame: UInt8[np.ndarray, "h w 3"], name: str) -> str:
    return f'<img alt="{name}" src="{film.picture(frame)}">'


def _charts(report: Report) -> str:
    figures = []
    for metric, (title, y_range) in TITLES.items():
        lines = [
            parts.line(report.rows, report.tested, model, metric)
            for model in models_of(report.rows)
        ]
        svg = plot.chart(lines, x_label="horizon step (frames)", title=title, y_range=y_range)
        figures.append(f"<figure><h3>{_titled(metric)}</h3>{svg}</figure>")
    return f'<h2>By horizon</h2>\n<div class="charts">{"".join(figures)}</div>'


def _titled(metric: str) -> str:
    better = "higher is better" if METRICS[metric][1] else "lower is better"
    return f"{escape(TITLES[metric][0])} <span>{better}</span>"


def _tables(report: Report) -> str:
    steps = [s for s in TABLE_STEPS if s <= report.protocol.horizon]
    tables = []
    for metric in TABLED:
        head = "<th></th>" + "".join(f"<th>step {s}</th>" for s in steps)
        body = ""
        for model in models_of(report.rows):
            kind = ' class="tested"' if model in report.tested else ""
            colour = plot.colour(parts.style(report.tested, model))
            swatch = f'<span class="swatch" style="background:{colour}">'
            cells = "".join(parts.cell(find(report.rows, model, metric, s)) for s in steps)
            name = f"{swatch}</span>{escape(label(model))}"
            body += f'<tr{kind}><th scope="row">{name}</th>{cells}</tr>'
        caption = f"<caption>{_titled(metric)}</caption>"
        tables.append(f'<table class="numbers">{caption}<tr>{head}</tr>{body}</table>')
    tables += _likeness(report)
    note = f"{label(CEILING)} is told masses, friction and shapes: a ceiling, not a rival."
    joined = "".join(f'<div class="scroll">{table}</div>' for table in tables)
    return f'<h2>Numbers</h2>\n<p class="note">{note}</p>{joined}'


def _likeness(report: Report) -> list[str]:
    """LPIPS where it was measured, and distances of the sets of clips."""
    tables = []
    for metric, words in (
        ("lpips_alex", "LPIPS (AlexNet)"),
        ("lpips_vgg", "LPIPS (VGG)"),
        ("fvd", "Fréchet video distance (I3D)"),
        ("motion_distance", "Fréchet distance of how things move"),
    ):
        of = [row for row in report.rows if row["metric"] == metric]
        steps = sorted({row["step"] for row in of if row["value"] is not None})
        if not steps:
            continue
        head = "<th></th>" + "".join(f"<th>{f'step {s}' if s else 'all steps'}</th>" for s in steps)
        body = "".join(
            f'<tr><th scope="row">{escape(label(model))}</th>'
            + "".join(parts.cell(find(report.rows, model, metric, s), ".3f") for s in steps)
            + "</tr>"
            for model in models_of(of)
        )
        caption = f"<caption>{words} <span>lower is better</span></caption>"
        tables.append(f'<table class="numbers">{caption}<tr>{head}</tr>{body}</table>')
    return tables


def _differences(report: Report) -> str:
    """Paired differences of the first tested model from every other subject."""
    model = report.tested[0]
    steps = [s for s in TABLE_STEPS if s <= report.protocol.horizon]
    tables, shown = [], 0
    for metric in PAIRED:
        more_is_better = METRICS[metric][1]
        head = "<th></th>" + "".join(f"<th>step {s}</th>" for s in steps)
        body = ""
        for control in models_of(report.rows):
            if control == model:
                continue
            cells = ""
            for step in steps:
                row = find(report.rows, model, f"{metric}_difference", step, control)
                cells += parts.cell(row, "+.2f", _judgement(row, more_is_better))
                shown += row is not None
            body += f'<tr><th scope="row">minus {escape(label(control))}</th>{cells}</tr>'
        caption = f"<caption>{_titled(metric)}</caption>"
        tables.append(f'<table class="numbers">{caption}<tr>{head}</tr>{body}</table>')
    joined = "".join(f'<div class="scroll">{table}</div>' for table in tables)
    return (
        f"<h2>{escape(label(model))} against each baseline</h2>\n"
        '<p class="note">Paired differences on the same episodes. Coloured where the interval '
        'leaves zero out: <span class="good">better</span>, <span class="bad">worse</span>. '
        f"These are {shown} comparisons, each at 95 %: with no difference anywhere, about "
        f"{round(0.05 * shown)} would be coloured by chance.</p>"
        f"{joined}"
    )


def _judgement(row: Row | None, more_is_better: bool) -> str:
    if row is None or row["low"] is None or row["low"] <= 0 <= row["high"]:
        return ""
    return ' class="good"' if (row["low"] > 0) == more_is_better else ' class="bad"'
