"""Pieces of a page that every suite's section is made of."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from wm_jax.evaluation import plot
from wm_jax.evaluation.rows import Row
from wm_jax.evaluation.summary import label


def style(tested: Sequence[str], model: str) -> str:
    """Tested models take their colours in order, baselines have one each."""
    return f"tested_{tested.index(model) + 1}" if model in tested else model


def line(rows: Iterable[Row], tested: Sequence[str], model: str, metric: str) -> plot.Line:
    """The curve of a metric over its steps, from 1 on."""
    wanted = (model, metric, None)
    of = [r for r in rows if (r["model"], r["metric"], r["control"]) == wanted and r["step"] > 0]

    def column(name: str) -> np.ndarray:
        return np.array([np.nan if r[name] is None else r[name] for r in of], np.float64)

    return plot.Line(
        style(tested, model), label(model), column("step"), column("value"), column("low"),
        column("high"), model in tested,
    )  # fmt: skip


def cell(row: Row | None, form: str = ".2f", kind: str = "", last: float = np.inf) -> str:
    """A number with its interval in a table; beyond the ``last`` step it is known to be more."""
    if row is None:
        return "<td>–</td>"

    def number(x: float) -> str:
        return f"&gt; {last}" if x > last else format(x, form)

    low, high = row["low"], row["high"]
    interval = "" if low is None else f"<small>{number(low)} to {number(high)}</small>"
    return f"<td{kind}>{number(row['value'])}{interval}</td>"


def fold(title: str, content: Mapping[str, Any]) -> str:
    """Something to open, as JSON."""
    text = escape(json.dumps(content, indent=2, default=str))
    return f"<details><summary>{escape(title)}</summary><pre>{text}</pre></details>"
