"""``wm-jax launch``: one job description, rendered for the place where it shall run."""

from __future__ import annotations

import argparse
import importlib
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from wm_jax.errors import UserError
from wm_jax.launch import job as jobs

#: Places, each a module here with ``render(job)``, ``submit(job, folder)`` and, where it has a
#: table in the job's file, ``Options``.
TARGETS = ("local_hosts", "slurm", "tpu_vm", "jobset", "skypilot")

_EXAMPLES = """\
examples:
  wm-jax launch jobset --job launch/job.toml                 prints the manifest
  wm-jax launch jobset --job launch/job.toml --out rendered  writes rendered/NAME.jobset.yaml
  wm-jax launch slurm --job mine.toml --out rendered --submit

Nothing is submitted without --submit. launch/README.md goes from nothing to a running job.
"""


def render(target: str, path: str) -> tuple[jobs.Job, dict[str, str]]:
    """The job in the file ``path``, and its text for ``target``: file name to content."""
    job = jobs.read(path, TARGETS)
    return job, importlib.import_module(f"wm_jax.launch.{target}").render(job)


def main(argv: Sequence[str] | None = None) -> int:
    """Renders; writes with --out; submits with --submit. Returns the submission's status."""
    options = _parser().parse_args(argv)
    if options.submit and not options.out:
        raise UserError("--submit needs --out DIR, where what is submitted is kept.")
    job, files = render(options.target, options.job)
    result: dict[str, Any] = {"target": options.target, "job": job.name, "files": files}
    if options.out:
        folder = Path(options.out)
        result["paths"] = _write(folder, files)
    status = 0
    if options.submit:
        module = importlib.import_module(f"wm_jax.launch.{options.target}")
        result["submitted"] = module.submit(job, folder)
        status = result["status"] = _submit(result["submitted"])
    if options.json:
        print(json.dumps(result))
    else:
        _tell(result)
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="wm-jax launch",
        description="Render a job for a cluster, or for several processes of this machine.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("target", choices=TARGETS, metavar="TARGET", help=", ".join(TARGETS))
    parser.add_argument("--job", required=True, metavar="FILE", help="a job in TOML")
    parser.add_argument("--out", metavar="DIR", help="write there instead of printing")
    parser.add_argument("--submit", action="store_true", help="and submit it")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    return parser


def _write(folder: Path, files: dict[str, str]) -> list[str]:
    paths = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (folder / name).write_text(text)
            paths.append(str(folder / name))
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror}.") from error
    return paths


def _submit(command: list[str]) -> int:
    """Runs the command that submits; what it prints goes to stderr: stdout belongs to --json."""
    try:
        return subprocess.run(command, stdout=sys.stderr).returncode
    except FileNotFoundError as error:
        raise UserError(
            f"there is no {command[0]} here; submit from a machine that has it."
        ) from error


def _tell(result: dict[str, Any]) -> None:
    if "paths" not in result:
        print("\n".join(result["files"].values()), end="")
    for path in result.get("paths", ()):
        print(path)
