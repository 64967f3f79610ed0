"""A study's page: verdicts, curves of all arms, table, what differs, where numbers come from."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from wm_jax import config as configs
from wm_jax.evaluation import plot
from wm_jax.evaluation.page import STYLE
from wm_jax.evaluation.suite import METRICS
from wm_jax.studies import verdict
from wm_jax.studies.outcome import Finding, Outcome, Stored, cell, core_minutes, sentence, unit
from wm_jax.studies.study import SET_BY_RUNNER

#: Colours of arms in their order, light and dark; told apart also by those who do not see red.
_LIGHT = (
    *("#1d4ed8", "#b4235a", "#0e7c86", "#c2650c", "#7c3aed"),
    *("#15803d", "#a16207", "#64748b", "#be185d", "#0369a1"),
)
_DARK = (
    *("#7aa2ff", "#f472a6", "#4fd1c5", "#f0a050", "#b794f6"),
    *("#5cc98a", "#e3c04b", "#9fb0c6", "#f9a8d4", "#7dd3fc"),
)
_KINDS = {verdict.CONFIRMED: "confirmed", verdict.NOT_CONFIRMED: "refused"}


def render(outcome: Outcome, command: str) -> str:
    """The page: one file that needs nothing but itself."""
    study = outcome.study
    failed = '<p class="verdict refused">The instrument failed on this data: its positions cannot '
    parts = [
        f'<p class="eyebrow">{escape(_scope(outcome))}</p>',
        f"<h1>{escape(study.claims[0].sentence)}</h1>",
        _findings(outcome.findings),
        "" if outcome.holds else failed + "be trusted, and neither can a verdict.</p>",
        _by_horizon(outcome),
        _by_time(outcome),
        _table(outcome),
        _runs(outcome),
        _differences(outcome),
        "<h2>How this was made</h2>",
        f"<pre>{escape(command)}</pre>",
        *(_fold(title, content) for title, content in _sources(outcome).items()),
    ]
    body = "\n".join(part for part in parts if part)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(study.name)}, {outcome.scale_name}</title>\n"
        f"<style>{STYLE}{_style(outcome)}</style>\n</head>\n<body>\n<main>\n{body}\n</main>\n"
        "</body>\n</html>\n"
    )


def _style(outcome: Outcome) -> str:
    def colours(palette: Sequence[str]) -> str:
        names = enumerate(outcome.runs)
        return "".join(f"--arm-{i + 1}:{palette[i % len(palette)]};" for i, _ in names)

    return (
        f":root{{{colours(_LIGHT)}}}"
        f"@media (prefers-color-scheme: dark){{:root{{{colours(_DARK)}}}}}"
        ".verdict{display:block;border-color:var(--soft)}.verdict.confirmed{border-color:"
        "var(--good)}.verdict.refused{border-color:var(--bad)}.verdict .note{display:block}"
        ".charts figure{max-width:560px}:root{--copy-last:#9a9da4;--constant-velocity:#8a8d94;"
        "--see-then-simulate:#7a7d84}"  # arms have the colours, baselines are grey
    )


def _scope(outcome: Outcome) -> str:
    scale, data = outcome.scale, outcome.scale.data
    compiling = ", compiling included" if scale.budget.minutes else ""
    tuned = "no tuning"
    if scale.tuning:
        rates = len(next(iter(outcome.study.arms.values())).rates)
        tuned = f"{rates} learning rates tried for {scale.tuning} each"
    return (
        f"Study {outcome.study.name}, scale {outcome.scale_name} · {data.world} at "
        f"{data.resolution} px · every run {scale.budget}{compiling}, {tuned} · "
        f"{core_minutes(outcome):.1f} core-minutes in all"
    )


def _findings(findings: Sequence[Finding]) -> str:
    out = []
    for finding in findings:
        kind = _KINDS.get(finding.verdict, "")
        text = escape(sentence(finding)).replace(finding.verdict, f"<b>{finding.verdict}</b>", 1)
        out.append(
            f'<p class="verdict {kind}">{text} '
            f'<span class="note">{escape(finding.claim.source)}</span></p>'
        )
    if len(findings) > 1:
        out.append(
            '<p class="note">The first claim is the study\'s own; the intervals are not widened '
            "for there being several.</p>"
        )
    return "\n".join(out)


def _by_horizon(outcome: Outcome) -> str:
    figures = []
    for metric in outcome.study.metrics:
        lines = [_seed_mean(outcome, arm, metric) for arm in outcome.runs]
        lines += [_baseline(name, of, metric) for name, of in outcome.baselines.items()]
        title = _title(metric)
        shown = [line for line in lines if line is not None]
        svg = plot.chart(shown, x_label="frames ahead", title=title)
        figures.append(f"<figure><h3>{_heading(metric)}</h3>{svg}</figure>")
    return (
        '<h2>By horizon</h2>\n<p class="note">Means over seeds; bands span the 95 % intervals over '
        f'episodes of all seeds.</p><div class="charts">{"".join(figures)}</div>'
    )


def _title(metric: str) -> str:
    return metric.replace("_", " ") + ("," if unit(metric) else "") + unit(metric)


def _heading(metric: str) -> str:
    better = "higher is better" if METRICS[metric][1] else "lower is better"
    return f"{escape(_title(metric))} <span>{better}</span>"


def _seed_mean(outcome: Outcome, arm: str, metric: str) -> plot.Line | None:
    curves = [run["curves"][metric] for run in outcome.runs[arm] if not run["failed"]]
    if not curves:
        return None
    value, low, high = (
        np.stack([_numbers(curve[key]) for curve in curves]) for key in ("value", "low", "high")
    )
    x = np.arange(1, value.shape[1] + 1, dtype=np.float64)
    # A step counts where every seed has a number: a gap is honest, half a mean is not.
    return plot.Line(_colour(outcome, arm), arm, x, value.mean(0), low.min(0), high.max(0), True)


def _baseline(name: str, of: Stored, metric: str) -> plot.Line:
    value, low, high = (_numbers(of["curves"][metric][key]) for key in ("value", "low", "high"))
    x = np.arange(1, len(value) + 1, dtype=np.float64)
    return plot.Line(name, name.replace("_", "-"), x, value, low, high)


def _numbers(values: Sequence[float | None]) -> np.ndarray:
    return np.array([np.nan if v is None else v for v in values], np.float64)


def _colour(outcome: Outcome, arm: str) -> str:
    return f"arm-{list(outcome.runs).index(arm) + 1}"


def _by_time(outcome: Outcome) -> str:
    """Error on validation against seconds of training, one line a run, named once an arm."""
    lines = []
    for arm, runs in outcome.runs.items():
        for number, run in enumerate(run for run in runs if not run["failed"]):
            points = [p for p in run["time"] if p["value"] is not None]
            if not points:
                continue
            # An empty point at 0, so that the axis begins there.
            x = np.array([0.0, *(p["seconds"] / 60 for p in points)])
            y = np.array([np.nan, *(p["value"] for p in points)])
            none = np.full(len(x), np.nan)
            name = arm if number == 0 else ""
            lines.append(plot.Line(_colour(outcome, arm), name, x, y, none, none))
    if not lines:
        return ""
    metric = outcome.study.claims[0].metric
    title = f"{_title(metric)}, on validation"
    svg = plot.chart(lines, x_label="minutes of training, compiling included", title=title)
    return (
        '<h2>By wall-clock</h2>\n<p class="note">The mean over the validation horizon, at '
        "checkpoints that were kept; one line a seed.</p>"
        f'<div class="charts"><figure><h3>{escape(title)}</h3>{svg}</figure></div>'
    )


def _table(outcome: Outcome) -> str:
    study, steps = outcome.study, outcome.scale.steps
    tables = []
    for metric in study.metrics:
        head = "<th></th>" + "".join(f"<th>step {s}</th>" for s in steps)
        body = ""
        for arm, runs in outcome.runs.items():
            swatch = (
                f'<span class="swatch" style="background:{plot.colour(_colour(outcome, arm))}">'
            )
            body += _row(f"{swatch}</span>{escape(arm)}", runs, metric, steps, "tested")
        for name, of in outcome.baselines.items():
            body += _row(escape(name.replace("_", "-")), [of], metric, steps, "")
        caption = f"<caption>{_heading(metric)}</caption>"
        table = f'<table class="numbers">{caption}<tr>{head}</tr>{body}</table>'
        tables.append(f'<div class="scroll">{table}</div>')
    note = (
        "Means over seeds with 95 % intervals; a dash where there is nothing to average. "
        "see-then-simulate is told masses, friction and shapes: a ceiling, not a rival."
    )
    return f'<h2>Numbers</h2>\n<p class="note">{note}</p>{"".join(tables)}'


def _row(name: str, runs: Sequence[Stored], metric: str, steps: Sequence[int], kind: str) -> str:
    cells = ""
    for step in steps:
        effect = cell(runs, metric, step)
        if not np.isfinite(effect.value):
            cells += "<td>–</td>"
            continue
        interval = f"<small>{effect.low:.2f} to {effect.high:.2f}</small>"
        cells += f"<td>{effect.value:.2f}{interval}</td>"
    return f'<tr class="{kind}"><th scope="row">{name}</th>{cells}</tr>'


def _runs(outcome: Outcome) -> str:
    """One line a run: rate, updates, size, cost."""
    body = ""
    for arm, runs in outcome.runs.items():
        for run in runs:
            tried = ", ".join(
                f"{rate}: {'–' if value is None else format(value, '.3g')}"
                for rate, value in run.get("tuning", {}).get("rates", {}).items()
            )
            last = f"{run['time'][-1]['seconds'] / 60:.2f}" if run.get("time") else "–"
            size = f"{run['parameters'] / 1e6:.3f}" if "parameters" in run else "–"
            columns = [
                run["seed"], f"{run['rate']:g}", tried or "–", run.get("updates", "–"), size, last,
                f"{run['cost']['core_minutes']:.1f}", run["failed"] or "",
            ]  # fmt: skip
            cells = "".join(f"<td>{escape(str(column))}</td>" for column in columns)
            body += f'<tr><th scope="row">{escape(arm)}</th>{cells}</tr>'
    names = (
        *("seed", "rate", "tried: score on validation", "updates", "M parameters"),
        *("minutes", "core-minutes", ""),
    )
    head = "<th></th>" + "".join(f"<th>{name}</th>" for name in names)
    table = f'<table class="numbers"><tr>{head}</tr>{body}</table>'
    note = "Core-minutes are processor time of the whole run, judging included, tuning not."
    return f'<h2>Runs</h2>\n<p class="note">{note}</p><div class="scroll">{table}</div>'


def _differences(outcome: Outcome) -> str:
    """Keys in which the arms' configs differ from one another."""
    seed, scale = outcome.scale.seeds[0], outcome.scale
    flats = {
        name: configs.flat(outcome.study.config(scale, name, seed, arm.rates[0]))
        for name, arm in outcome.study.arms.items()
    }
    keys = sorted({key for values in flats.values() for key in values} - set(SET_BY_RUNNER))
    rows = ""
    for key in keys:
        values = [flat.get(key, "") for flat in flats.values()]
        if any(value != values[0] for value in values):
            cells = "".join(f"<td>{escape(str(value))}</td>" for value in values)
            rows += f'<tr><th scope="row">{escape(key)}</th>{cells}</tr>'
    head = "<th></th>" + "".join(f"<th>{escape(name)}</th>" for name in flats)
    table = f'<table class="numbers"><tr>{head}</tr>{rows}</table>'
    note = f"All else is {escape(outcome.study.base)}. An empty cell: that arm has no such knob."
    return f'<h2>What differs</h2>\n<p class="note">{note}</p><div class="scroll">{table}</div>'


def _sources(outcome: Outcome) -> Mapping[str, Any]:
    """Versions and hardware, each said once where all runs agree; the protocol."""
    runs = [run for of_arm in outcome.runs.values() for run in of_arm]

    def distinct(name: str) -> list[Any]:
        texts = dict.fromkeys(json.dumps(run[name], sort_keys=True) for run in runs)
        return [json.loads(text) for text in texts]

    protocols = [run["protocol"] for run in runs if "protocol" in run]
    return {
        "Versions": distinct("versions"),
        "Hardware": distinct("hardware"),
        "Rules of the verdict": (verdict.__doc__ or "").splitlines(),
        "Protocol": protocols[0] if protocols else {},
    }


def _fold(title: str, content: Any) -> str:
    text = escape(json.dumps(content, indent=2, default=str, ensure_ascii=False))
    return f"<details><summary>{escape(title)}</summary><pre>{text}</pre></details>"
