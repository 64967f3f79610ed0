"""The page of a benchmark of frozen states, and its table on the terminal."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from wm_jax.evaluation import dots, parts, plot, report
from wm_jax.evaluation.benchmarks.readout_spec import CONTROLS, ReadOutBenchmark
from wm_jax.evaluation.benchmarks.readout_states import Key
from wm_jax.evaluation.rows import Row
from wm_jax.evaluation.summary import find, label

WIDE = 15  # characters of a column on a terminal
#: What no model is, in words.
NAMES = {
    "copy_last": "the last frame's pixels",
    "constant": "the training mean",
    "pose_alone": "the agent's pose alone",
    "majority": "the commoner label",
}
#: Colours of controls in pictures, by the names of `wm_jax.evaluation.page`.
STYLES = {
    "random_weights": "tested_3",
    "one_frame": "constant_velocity",
    "shuffled_labels": "mean_image",
}


def render(benchmark: ReadOutBenchmark, result: Mapping[str, Any], runs: Collection[str]) -> str:
    """HTML: what was measured, with the controls beside it, and what is published."""
    rows = result["rows"]
    title = f"{label(next(iter(runs)))} on {benchmark.name}"
    differs = "".join(f"<li>{escape(sentence)}</li>" for sentence in benchmark.differs)
    pieces = [
        f"<h1>{escape(title)}</h1>",
        f"<p>{escape(benchmark.about)}</p>",
        *(_table(benchmark, rows, variant, runs) for variant in benchmark.variants),
        f'<p class="note">{escape(benchmark.source)}</p>' if benchmark.source else "",
        _charts(benchmark, rows, list(runs)),
        _dots(benchmark, rows, list(runs)),
        f"<h2>Not as published</h2><ul>{differs}</ul>",
        parts.fold("Protocol", result["protocol"]),
        f"<pre>{escape(result['command'])}</pre>",
    ]
    return report.page(title, pieces)


def terminal_table(benchmark: ReadOutBenchmark, result: Mapping[str, Any]) -> str:
    """The same as text: a table for each variant."""
    wide = max(len(name_of(key)) for key in keys(result["rows"])) + 4
    lines = []
    for variant in benchmark.variants:
        names = (column.metric.removeprefix("accuracy_") for column in benchmark.columns)
        heads = (f"{name:>{WIDE}}" for name in names)
        lines.append(f"{benchmark.name}, {variant}".ljust(wide) + "".join(heads))
        for key in keys(result["rows"]):
            found = _cells(benchmark, result["rows"], key, variant)
            if any(found):
                lines.append(f"  {name_of(key)}".ljust(wide) + _written(benchmark, found))
        for who, values in benchmark.published.items():
            told = _told(benchmark, values, variant)
            found = [None if value is None else {"value": value} for value in told]
            lines.append(f"  {who} (published)".ljust(wide) + _written(benchmark, found))
    return "\n".join(lines)


def keys(rows: Sequence[Row]) -> list[Key]:
    """Models and what was done to them, in the order of the rows."""
    return list(dict.fromkeys((row["model"], row["control"]) for row in rows))


def name_of(key: Key) -> str:
    """A model under a control as a reader sees it."""
    model, control = key
    name = NAMES.get(model, label(model))
    return name if control is None else f"{name}, {CONTROLS[control]}"


def _cells(
    benchmark: ReadOutBenchmark, rows: Sequence[Row], key: Key, variant: str
) -> list[Row | None]:
    """A row for each column, of the variant or of what has none."""
    model, control = key
    return [
        find(rows, model, f"{column.metric}_{variant}", 0, control)
        or find(rows, model, column.metric, 0, control)
        for column in benchmark.columns
    ]


def _told(
    benchmark: ReadOutBenchmark, values: Mapping[str, float], variant: str
) -> list[float | None]:
    """What is published of one method, for each column."""
    names = [column.metric for column in benchmark.columns]
    return [values.get(f"{name}_{variant}", values.get(name)) for name in names]


def _written(benchmark: ReadOutBenchmark, found: Sequence[Mapping[str, Any] | None]) -> str:
    return "".join(
        f"{'–' if row is None else format(row['value'], column.form):>{WIDE}}"
        for row, column in zip(found, benchmark.columns, strict=True)
    )


def _table(
    benchmark: ReadOutBenchmark, rows: Sequence[Row], variant: str, runs: Collection[str]
) -> str:
    head = "<th></th>" + "".join(f"<th>{escape(c.title)}</th>" for c in benchmark.columns)
    body = ""
    for key in keys(rows):
        found = _cells(benchmark, rows, key, variant)
        if not any(found):
            continue
        pairs = zip(found, benchmark.columns, strict=True)
        cells = "".join(parts.cell(row, column.form) for row, column in pairs)
        kind = ' class="tested"' if key[0] in runs and key[1] is None else ""
        body += f'<tr{kind}><th scope="row">{escape(name_of(key))}</th>{cells}</tr>'
    for who, values in benchmark.published.items():
        told = zip(_told(benchmark, values, variant), benchmark.columns, strict=True)
        cells = "".join("<td>–</td>" if x is None else f"<td>{x:{c.form}}</td>" for x, c in told)
        body += f'<tr><th scope="row">{escape(who)} (published)</th>{cells}</tr>'
    caption = f"<caption>{escape(benchmark.variants[variant])}</caption>"
    table = f'<table class="numbers">{caption}<tr>{head}</tr>{body}</table>'
    return f'<div class="scroll">{table}</div>'


def _shown(rows: Sequence[Row], tested: Sequence[str]) -> list[Key]:
    """What pictures show: all but the controls of the second model and those that follow."""
    return [key for key in keys(rows) if key[1] is None or key[0] == tested[0]]


def _style(key: Key, tested: Sequence[str]) -> str:
    model, control = key
    return parts.style(tested, model) if control is None else STYLES[control]


def _charts(benchmark: ReadOutBenchmark, rows: Sequence[Row], tested: Sequence[str]) -> str:
    figures = ""
    for metric, words in benchmark.curves.items():
        lines = []
        for key in _shown(rows, tested):
            of = [r for r in rows if (r["metric"], r["model"], r["control"]) == (metric, *key)]
            of = [r for r in of if r["step"] > 0 and r["value"] is not None]
            if of:
                x, y, low, high = (
                    np.array([r[name] for r in of], float)
                    for name in ("step", "value", "low", "high")
                )
                style = _style(key, tested)
                strong = style.startswith("tested_") and key[1] is None
                name = name_of(key) if key[1] is None else CONTROLS[key[1]]
                lines.append(plot.Line(style, name, x, y, low, high, strong))
        drawn = plot.chart(lines, x_label="frames seen", title=words)
        figures += f"<figure><h3>{escape(words)}</h3>{drawn}</figure>"
    return f'<div class="charts">{figures}</div>' if figures else ""


def _dots(benchmark: ReadOutBenchmark, rows: Sequence[Row], tested: Sequence[str]) -> str:
    if not benchmark.dots:
        return ""
    variant = next(iter(benchmark.variants))
    series = []
    for key in _shown(rows, tested):
        found = _cells(benchmark, rows, key, variant)
        if any(found):
            columns = (
                np.array([np.nan if row is None else row[name] for row in found], float)
                for name in ("value", "low", "high")
            )
            series.append(dots.Series(_style(key, tested), name_of(key), *columns))
    none = np.full(len(benchmark.columns), np.nan)
    for who, values in benchmark.published.items():
        told = np.array(_told(benchmark, values, variant), float)
        if np.isfinite(told[1:]).any():
            series.append(dots.Series("see_then_simulate", f"{who} (published)", told, none, none))
    names = [column.title for column in benchmark.columns]
    form = ".0%" if benchmark.columns[0].form.endswith("%") else "g"
    drawn = dots.chart(series, names, title=benchmark.dots, x_range=benchmark.range, form=form)
    words = f"{benchmark.dots} <span>{escape(benchmark.variants[variant])}</span>"
    return f'<figure class="charts"><div><h3>{words}</h3>{drawn}</div></figure>'
