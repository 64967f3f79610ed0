"""``wm-jax evaluate``: scores a run on held-out episodes and writes its report."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shlex
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

from wm_jax.errors import UserError
from wm_jax.remote import fetched

SUITES = ("pixel", "temporal", "causal", "probes", "planning")
#: What a published benchmark fixes, and what it is where there is none.
RULES = {
    "suite": "pixel",
    "split": "test",
    "horizon": 60,
    "long_horizon": 480,
    "causal_horizon": 40,
}


def main(argv: list[str]) -> int:
    """The verb."""
    args = _parser().parse_args(argv)
    asked = _check(args)
    if args.contexts:
        return _write_contexts(args)
    command = shlex.join(["wm-jax", "evaluate", *argv])
    if args.benchmark:
        results, page, told = evaluate_benchmark(args, command)
        asked = [args.benchmark]
    else:
        results, page, told = evaluate(args, asked, command)
    out = args.out or args.workdir or Path("evaluated")
    written = {name: out / "evaluation" / f"{name}.json" for name in results}
    for name, path in written.items():
        write(path, to_text(results[name]))
    where = out / "report" / "index.html"
    write(where, page)
    if args.json:
        both = results if len(results) > 1 else results[asked[0]]
        print(json.dumps(both, allow_nan=False))
    else:
        print("\n".join(told))
        print("scores: " + ", ".join(str(path) for path in written.values()))
        print(f"report: {where}")
    return 0


def _check(args: argparse.Namespace) -> list[str]:
    """The suites that are asked for, once `RULES` has filled in what was not said. Raises
    `UserError` for what cannot be."""
    said = [name for name in RULES if getattr(args, name) is not None]
    if args.benchmark and said:
        options = " and ".join("--" + name.replace("_", "-") for name in said)
        raise UserError(f"--benchmark has its own rules; leave out {options}.")
    for name in RULES.keys() - said:
        setattr(args, name, RULES[name])
    asked = [name for name in SUITES if name in args.suite.split(",")]
    unknown = [name for name in args.suite.split(",") if name not in SUITES]
    if unknown:
        raise UserError(f"there is no suite '{unknown[0]}'; there are: {', '.join(SUITES)}.")
    if min(args.episodes, args.horizon, args.long_horizon) < 1:
        raise UserError("--episodes, --horizon and --long-horizon must be at least 1.")
    if "causal" in args.suite.split(",") and args.causal_horizon < 5:
        raise UserError(
            "--causal-horizon must be at least 5: the first 4 frames are the oracle's and are not "
            "scored."
        )
    if not (args.workdir or args.model or args.videos or args.contexts):
        raise UserError("name what to score: --workdir, --model or --videos.")
    if args.weights and not args.weights.is_dir():
        raise UserError(f"--weights={args.weights} is no folder; it holds PyTorch's files.")
    if not args.data and (args.contexts or args.benchmark or not args.workdir):
        raise UserError("--data must name the folder of the data set.")
    if args.route and not {"causal"} & set(asked):
        raise UserError("--route says how edits are made; only --suite causal makes any.")
    if args.videos and {"causal", "probes", "planning"} & set(asked):
        raise UserError(
            "a folder of videos takes no edits and shows no state; --suite pixel,temporal "
            "scores it."
        )
    return asked


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="wm-jax evaluate",
        description="Score a run on held-out episodes, beside every baseline, and write a report.",
        epilog="example: wm-jax evaluate --workdir runs/a --suite causal,probes --beside runs/b",
    )
    add = parser.add_argument
    add("--workdir", type=fetched, help="the run's folder, or its URL")
    add("--model", help="a model from outside: an exported folder, or FILE.py:FUNCTION")
    add("--videos", type=Path, help="a folder of predictions, one for each of --contexts")
    add("--contexts", type=Path, help="only write what is shown into this folder")
    add("--suite", help=_default(f"of {', '.join(SUITES)}, by commas", "suite"))
    add(
        "--benchmark",
        help="a published one, of files in --data: moving_mnist, obj3d, clevrer, cophy_blocktower, "
        "cophy_balls, cophy_collision, dmlab, dmlab_144, minecraft, minecraft_144, physion, "
        "memory_maze",
    )
    add("--data", type=Path, help="folder of the data set, if not the run's own")
    add("--split", help=_default("which episodes", "split"))
    add("--episodes", type=int, default=64, help="at most so many (default %(default)s)")
    add("--horizon", type=int, help=_default("frames to predict", "horizon"))
    add("--long-horizon", type=int, help=_default("of its coherence", "long_horizon"))
    add("--causal-horizon", type=int, help=_default("after an edit", "causal_horizon"))
    add(
        "--route",
        choices=("state", "trained"),
        help="how edits are made, of a run that takes them in more than one way (default: its "
        "first way; 'trained' tells it sentences as they stand, if it was trained to hear them)",
    )
    add("--weights", type=Path, help="folder of PyTorch's files, for LPIPS and FVD")
    add(
        "--beside", type=fetched, nargs="+", default=[], help="more runs to score on the same clips"
    )
    add(
        "--out",
        type=Path,
        help="folder for evaluation/ and report/ (default: workdir, or evaluated)",
    )
    add("--json", action="store_true", help="print the result as JSON")
    return parser


def _default(text: str, name: str) -> str:
    """The text of an option of `RULES`; its default there, so that what is said can be told."""
    return f"{text} (default {RULES[name]})"


def _write_contexts(args: argparse.Namespace) -> int:
    from wm_jax.evaluation.outside import write_contexts
    from wm_jax.evaluation.protocol import Protocol
    from wm_jax.evaluation.twins_world import modalities_of, open_world, resolution_of

    if args.benchmark:
        benchmark, clips = _benchmark(args)
        from wm_jax.evaluation.benchmarks.scoring import protocol_of

        rules = protocol_of(benchmark, clips, args.episodes)
        print(f"{write_contexts(clips, rules, args.contexts)} contexts: {args.contexts}")
        return 0
    directory = str(args.data)
    world = open_world(directory, resolution_of(directory), modalities_of(directory))
    rules = Protocol(horizon=args.horizon, split=args.split, episodes=args.episodes)
    clips = world.clips(rules.split, rules.length, rules.starts, rules.episodes)
    count = write_contexts(clips, rules, args.contexts)
    print(f"{count} contexts of {rules.context} frames: {args.contexts}")
    return 0


def _benchmark(args: argparse.Namespace) -> tuple[Any, Any]:
    from wm_jax.config import pick
    from wm_jax.evaluation.benchmarks import BENCHMARKS, READOUTS
    from wm_jax.evaluation.benchmarks.scoring import open_clips

    benchmark = pick({**BENCHMARKS, **READOUTS}, args.benchmark, "benchmark")
    if args.benchmark in READOUTS:
        raise UserError(
            f"--benchmark {args.benchmark} reads states, which a folder of videos doesn't show; "
            "name a run or --model."
        )
    return benchmark, open_clips(benchmark, args.data, args.episodes)


def evaluate_benchmark(
    args: argparse.Namespace, command: str
) -> tuple[dict[str, Any], str, list[str]]:
    """What is written, the page, and what is said of a published benchmark; see `evaluate`."""
    from wm_jax.evaluation import outside
    from wm_jax.evaluation.benchmarks import READOUTS
    from wm_jax.evaluation.benchmarks.page import render, terminal_table
    from wm_jax.evaluation.benchmarks.scoring import judge_benchmark
    from wm_jax.evaluation.judge import restore

    if args.benchmark in READOUTS and not args.videos:
        from wm_jax.evaluation.benchmarks.readout_run import evaluate_states

        return evaluate_states(READOUTS[args.benchmark], args, command)
    benchmark, clips = _benchmark(args)
    runs: dict[str, Any] = {}
    runs |= restore([*([args.workdir] if args.workdir else []), *args.beside])
    size = clips.frames.shape[2]
    for run in runs.values():
        if run.config.model.resolution != size:
            raise UserError(
                f"{run.workdir} is a model of {run.config.model.resolution} px and {benchmark.name}"
                f" has {size} px; train one with --config.model.resolution={size}."
            )
    if args.model:
        runs["outside"] = outside.load(args.model)
    if args.videos:
        runs["videos"] = outside.Videos(args.videos)
    result = judge_benchmark(benchmark, runs, clips, args.episodes, command, args.weights)
    page = render(benchmark, result, runs)
    return {benchmark.name: result}, page, [terminal_table(benchmark, result)]


def evaluate(
    args: argparse.Namespace, asked: list[str], command: str
) -> tuple[dict[str, Any], str, list[str]]:
    """Scores the runs that ``args`` names by the suites ``asked``: what is written as JSON, the
    page, and what is said on the terminal."""
    # Imported here so that --help answers without them.
    from wm_jax.evaluation import (
        causal_page,
        outside,
        planning_page,
        probes_page,
        report,
        summary,
        temporal_page,
    )
    from wm_jax.evaluation.judge import judge, judge_temporal, restore
    from wm_jax.evaluation.judge_causal import judge_causal
    from wm_jax.evaluation.judge_planning import judge_planning
    from wm_jax.evaluation.judge_probes import judge_probes
    from wm_jax.evaluation.protocol import (
        CausalProtocol,
        PlanningProtocol,
        ProbeProtocol,
        Protocol,
        TemporalProtocol,
    )
    from wm_jax.evaluation.twins_world import modalities_of, open_world, resolution_of

    trained = restore([*([args.workdir] if args.workdir else []), *args.beside], args.route)
    tested: dict[str, Any] = {}
    told = {modality for run in trained.values() for modality in run.config.data.conditions}
    if args.workdir:
        config = next(iter(trained.values())).config
        directory, resolution = str(args.data or config.data.directory), config.model.resolution
    else:
        directory, resolution = str(args.data), resolution_of(str(args.data))
    if args.model:
        model = outside.load(args.model)
        told |= set(model.told) & set(modalities_of(directory))
        tested["outside"] = model
    if args.videos:
        tested["videos"] = outside.Videos(args.videos)
    runs = {**trained, **tested} if args.workdir else {**tested, **trained}
    world = open_world(directory, resolution, tuple(sorted(told)))
    about = {
        "world": world.name,
        "split": args.split,
        "resolution": world.resolution,
        "episodes": args.episodes,
        "horizon": args.horizon,
    }
    results: dict[str, Any] = {}
    sections, said, pixel = [], [], None
    if "pixel" in asked:
        pixel, results["pixel"] = judge(runs, world, Protocol(**about), command, args.weights)
        said += [
            summary.terminal_table(pixel),
            summary.calibration_line(pixel.rows, pixel.protocol, pixel.holds),
        ]
    if "temporal" in asked:
        temporal, results["temporal"] = judge_temporal(
            runs, world, TemporalProtocol(**about, long_horizon=args.long_horizon), command
        )
        sections.append(temporal_page.section(temporal))
        said.append(temporal_page.terminal_table(temporal))
        said += [temporal_page.calibrated(temporal)] if pixel is None else []
    if "causal" in asked:
        rules = CausalProtocol(**{**about, "horizon": args.causal_horizon})
        causal, results["causal"] = judge_causal(runs, world, rules, command)
        sections.append(causal_page.section(causal))
        said += [causal_page.terminal_table(causal), causal_page.calibrated(causal)]
    if "probes" in asked:
        whole = ProbeProtocol()
        probed, results["probes"] = judge_probes(
            runs, world, ProbeProtocol(**{**about, "horizon": whole.horizon}), command
        )
        sections.append(probes_page.section(probed))
        said.append(probes_page.terminal_table(probed))
    if "planning" in asked:
        plans = PlanningProtocol()
        kept = {"horizon": plans.horizon, "episodes": min(args.episodes, plans.episodes)}
        plans = PlanningProtocol(**{**about, **kept})
        planned, results["planning"] = judge_planning(runs, world, plans, command)
        sections.append(planning_page.section(planned))
        said.append(planning_page.terminal_table(planned))
    if pixel is not None:
        return results, report.render(pixel, sections), said
    title = f"{next(iter(runs))} on {world.name}"
    parts = [f"<h1>{escape(title)}</h1>", *sections, f"<pre>{escape(command)}</pre>"]
    return results, report.page(title, parts), said


def to_text(result: dict[str, Any]) -> str:
    """The result as JSON, a row a line."""
    lines = ",\n".join(json.dumps(row, allow_nan=False) for row in result["rows"])
    head = json.dumps({**result, "rows": []}, indent=1, allow_nan=False)
    return head.removesuffix("[]\n}") + f"[\n{lines}\n]\n}}\n"


def write(path: Path, text: str) -> None:
    """Whole or not at all."""
    with _disk(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(path.name + ".part")
        part.write_text(text, encoding="utf-8")
        os.replace(part, path)


@contextlib.contextmanager
def _disk(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{path} can't be written ({error.strerror}); make room or choose another --out."
        ) from None
