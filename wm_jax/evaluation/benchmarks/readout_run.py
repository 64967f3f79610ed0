"""A benchmark of frozen states from the options of ``wm-jax evaluate`` to what is written."""

from __future__ import annotations

import argparse
from typing import Any

from wm_jax.evaluation import outside
from wm_jax.evaluation.benchmarks.readout_page import render, terminal_table
from wm_jax.evaluation.benchmarks.readout_spec import ReadOutBenchmark
from wm_jax.evaluation.judge import restore


def evaluate_states(
    benchmark: ReadOutBenchmark, args: argparse.Namespace, command: str
) -> tuple[dict[str, Any], str, list[str]]:
    """The result by the benchmark's name, the page, and what is said on the terminal."""
    trained = restore([*([args.workdir] if args.workdir else []), *args.beside])
    tested: dict[str, Any] = {"outside": outside.load(args.model)} if args.model else {}
    runs = {**trained, **tested} if args.workdir else {**tested, **trained}
    result = benchmark.result(runs, args.data, args.episodes, command)
    page = render(benchmark, result, runs)
    return {benchmark.name: result}, page, [terminal_table(benchmark, result)]
