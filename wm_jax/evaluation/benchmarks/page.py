"""A benchmark's page and its table on the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from wm_jax.evaluation import parts, report
from wm_jax.evaluation.benchmarks.spec import UNITS, Benchmark
from wm_jax.evaluation.judge import Tested
from wm_jax.evaluation.summary import find, label


def render(benchmark: Benchmark, result: Mapping[str, Any], runs: Mapping[str, Tested]) -> str:
    """HTML: the table of what was measured and what is published."""
    models = list(dict.fromkeys(row["model"] for row in result["rows"]))
    names = [*models, *(name for name in benchmark.published)]
    head = "<th></th>" + "".join(
        f"<th>{metric}, {UNITS[metric]}</th>" for metric in benchmark.metrics
    )
    body = ""
    for name in names:
        cells = ""
        for metric in benchmark.metrics:
            row = find(result["rows"], name, metric, 0)
            told = benchmark.published.get(name, {}).get(metric)
            cells += parts.cell(row, ".3f") if told is None else f"<td>{told:g}</td>"
        kind = ' class="tested"' if name in runs else ""
        who = name if name in benchmark.published else label(name)
        note = " (published)" if name in benchmark.published else ""
        body += f'<tr{kind}><th scope="row">{escape(who)}{note}</th>{cells}</tr>'
    table = f'<table class="numbers"><tr>{head}</tr>{body}</table>'
    source = (
        f'<p class="note">Published: {escape(benchmark.source)}</p>' if benchmark.source else ""
    )
    note = f'<p class="note">{escape(benchmark.note)}</p>' if benchmark.note else ""
    title = f"{label(models[0])} on {benchmark.name}"
    command = f"<pre>{escape(result['command'])}</pre>"
    protocol = parts.fold("Protocol", result["protocol"])
    about = f"<p>{escape(benchmark.about)}</p>"
    pieces = [
        f"<h1>{escape(title)}</h1>",
        about,
        f'<div class="scroll">{table}</div>',
        source,
        note,
    ]
    return report.page(title, [*pieces, protocol, command])


def terminal_table(benchmark: Benchmark, result: Mapping[str, Any]) -> str:
    """The table as text, published figures below, with their source and what to know of them."""
    lines = [f"{benchmark.name:<24}" + "".join(f"{metric:>14}" for metric in benchmark.metrics)]
    for name in dict.fromkeys(row["model"] for row in result["rows"]):
        found = [find(result["rows"], name, metric, 0) for metric in benchmark.metrics]
        cells = (f"{'–' if r is None else format(r['value'], '.3f'):>14}" for r in found)
        lines.append(f"  {name:<22}" + "".join(cells))
    for name, values in benchmark.published.items():
        cells = (f"{values.get(metric, '–'):>14}" for metric in benchmark.metrics)
        lines.append(f"  {name + ' (published)':<22}" + "".join(cells))
    lines += [f"Published: {benchmark.source}"] * bool(benchmark.source)
    lines += [benchmark.note] * bool(benchmark.note)
    return "\n".join(lines)
