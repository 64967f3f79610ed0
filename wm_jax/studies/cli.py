"""``wm-jax reproduce``: runs a study and prints its verdict, or rebuilds the README's tables."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from pathlib import Path
from typing import Any

from wm_jax.errors import UserError

_EXAMPLES = """\
examples:
  wm-jax reproduce                                      which studies there are
  wm-jax reproduce backbones --dry-run                  what would run, and for how long
  wm-jax reproduce backbones --scale smoke              does it work, in two minutes
  wm-jax reproduce experiments/studies/latents.py --seeds 0,1,2,3,4
  wm-jax reproduce --tables                             rewrite the README's block from stored runs

Run again after a kill, it goes on: what is finished is not done again. A verdict needs three seeds.
"""


def main(argv: list[str]) -> int:
    """The verb."""
    options = _parser().parse_args(argv)
    if options.tables:
        return _tables(options)
    if options.study is None:
        return _list(options)
    from wm_jax.studies import study as studies

    study = studies.load(options.study)
    scale = studies.check(study, options.scale)
    plan = _plan(options, study, scale)
    if options.dry_run:
        told = _dry(plan)
        print(json.dumps(told) if options.json else _dry_text(told))
        return 0
    return _reproduce(plan, options, shlex.join(["wm-jax", "reproduce", *argv]))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="wm-jax reproduce",
        description="Run all arms of a study with all seeds, and say whether its claim holds.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("study", nargs="?", metavar="STUDY", help="a name under experiments/studies, or a path")
    add("--scale", default="small", help="smoke, small or paper (default %(default)s)")
    add("--seeds", type=_seeds, help="by commas, in place of the study's own")
    add(
        "--out", type=Path, default=Path("runs/studies"), help="runs and page (default %(default)s)"
    )
    add("--results", type=Path, help="stored runs (default experiments/results/studies; a smoke "
        "run's stay under --out)")  # fmt: skip
    add("--jobs", type=int, help="runs at a time, each on its share of the cores")
    add("--dry-run", action="store_true", help="check the study and say what would run")
    add("--tables", action="store_true", help="rewrite the studies' block in --readme")
    add("--readme", type=Path, default=Path("README.md"), help="default: %(default)s")
    add("--json", action="store_true", help="print the result as JSON")
    return parser


def _seeds(text: str) -> tuple[int, ...]:
    try:
        return tuple(dict.fromkeys(int(seed) for seed in text.split(",")))
    except ValueError:
        raise UserError(f"--seeds {text} is not whole numbers by commas, as 0,1,2.") from None


def _plan(options: argparse.Namespace, study: Any, scale: Any) -> Any:
    from wm_jax.studies.plan import RESULTS, Plan
    from wm_jax.studies.study import TUNING_SEED

    out = options.out / study.name / options.scale
    results = (options.results or RESULTS) / study.name / options.scale
    if options.scale == "smoke" and options.results is None:
        results = out / "results"
    if options.seeds and TUNING_SEED in options.seeds:
        raise UserError(f"seed {TUNING_SEED} is that of the tuning runs; choose another.")
    return Plan(study, options.scale, scale, options.seeds or scale.seeds, out, results)


def _list(options: argparse.Namespace) -> int:
    from wm_jax.studies import study as studies

    found = {name: studies.load(name).claims[0].sentence for name in studies.names()}
    if options.json:
        print(json.dumps(found))
    else:
        print("\n".join(f"{name:<14}{claim}" for name, claim in found.items()))
    return 0


def _tables(options: argparse.Namespace) -> int:
    from wm_jax.studies import tables
    from wm_jax.studies.plan import RESULTS

    if not options.readme.is_file():
        raise UserError(f"there is no {options.readme}; name the file with --readme.")
    old = options.readme.read_text()
    new = tables.rewrite(old, options.results or RESULTS)
    if new != old:
        options.readme.write_text(new)
    told = {"readme": str(options.readme), "changed": new != old}
    state = "rewritten" if new != old else "is as the stored runs say"
    print(json.dumps(told) if options.json else f"{options.readme} {state}")
    return 0


def _dry(plan: Any) -> dict[str, Any]:
    """What would run. The rates of runs are the first ones: which win is not known before."""
    study, scale = plan.study, plan.scale
    tuning, runs = plan.tuning(), plan.runs({a: (of.rates[0], {}) for a, of in study.arms.items()})

    def minutes(jobs: list[Any], budget: Any) -> float:
        return len(jobs) * budget.minutes if jobs else 0.0

    return {
        "study": study.name,
        "scale": plan.scale_name,
        "claims": [claim.__dict__ for claim in study.claims],
        "budget": str(scale.budget),
        "tuning_budget": str(scale.tuning) if tuning else None,
        "seeds": list(plan.seeds),
        "data": str(scale.data.directory()),
        "tuning_runs": len(tuning),
        "runs": len(runs),
        "training_minutes": minutes(runs, scale.budget) + minutes(tuning, scale.tuning) or None,
        "arms": {
            name: {**study.changes(scale, name), "optim.learning_rate": list(arm.rates)}
            for name, arm in study.arms.items()
        },
    }


def _dry_text(told: dict[str, Any]) -> str:
    first = told["claims"][0]
    lines = [
        f"{told['study']}: {first['sentence']} ({first['source']})",
        f"scale {told['scale']}: {told['runs']} runs of {told['budget']} (seeds "
        f"{', '.join(map(str, told['seeds']))})"
        + (f" and {told['tuning_runs']} of {told['tuning_budget']}" if told["tuning_runs"] else ""),
    ]
    if told["training_minutes"]:
        lines.append(f"training takes {told['training_minutes']:g} minutes, one run at a time")
    lines += [f"data in {told['data']}, built if it is not there", "arms, beside the base config:"]
    for arm, changes in told["arms"].items():
        own = ", ".join(f"{key}={value}" for key, value in changes.items())
        lines.append(f"  {arm}: {own}")
    return "\n".join(lines)


def _reproduce(plan: Any, options: argparse.Namespace, command: str) -> int:
    from wm_jax.studies import outcome as outcomes
    from wm_jax.studies import page, runner

    path = plan.out / "index.html"
    runner.run(plan, options.jobs)
    found = outcomes.read(plan.study, plan.scale_name, plan.results, plan.seeds)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page.render(found, command), encoding="utf-8")
    if options.json:
        told = {**outcomes.as_json(found), "page": str(path), "results": str(plan.results)}
        print(json.dumps(told, allow_nan=False))
        return 0
    print(outcomes.terminal_table(found))
    for finding in found.findings:
        print(outcomes.sentence(finding))
    if not found.holds:
        print("The instrument failed on this data: positions cannot be trusted.", file=sys.stderr)
    print(f"runs: {plan.results}\npage: {path}")
    return 0
