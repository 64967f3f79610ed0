"""``wm-jax train``: a config and a workdir from the command line."""

from __future__ import annotations

import argparse
import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path

import jax

from wm_jax import config as configs
from wm_jax import processes
from wm_jax.train import train

_EXAMPLES = """\
examples:
  wm-jax train --config experiments/configs/twins.py:quickstart --workdir runs/a
  wm-jax train --config experiments/configs/twins.py:small --workdir runs/b \\
      --config.train.batch_size=16 --config.optim.learning_rate=3e-4
  wm-jax train --config experiments/configs/twins.py:small --workdir runs/c \\
      --config.train.init_from=runs/b --config.optim.learning_rate=1e-3    fine-tunes b's weights

A workdir that holds a run resumes it. Ctrl-C saves a checkpoint and leaves with 0. After a NaN the
run goes back to its newest checkpoint and on with later data, three times; then it stops with 2. An
update that hangs for half an hour ends the process with 75: see hung_*.txt in the workdir.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """``wm-jax train``."""
    parser = argparse.ArgumentParser(
        prog="wm-jax train",
        usage="wm-jax train --config FILE.py:VARIANT --workdir DIR [--config.KEY=VALUE …] [--json]",
        description="Train a world model, or resume its run. Every knob of the config can be set.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--config", required=True, metavar="FILE.py:VARIANT")
    parser.add_argument(
        "--workdir",
        required=True,
        metavar="DIR",
        help="a folder, or a URL such as gs://bucket/runs/a",
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument(
        "--stopped-status",
        type=int,
        default=0,
        metavar="N",
        help="exit status of a run that a signal stopped before its end (default 0)",
    )
    arguments, overrides = parser.parse_known_args(argv)
    config = configs.load(arguments.config, overrides)
    processes.join()
    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        jax.config.update("jax_compilation_cache_dir", str(Path("~/.cache/wm_jax").expanduser()))
    # Orbax's threads log a traceback for what `Checkpoints` tells in one sentence.
    logging.getLogger("absl").setLevel(logging.CRITICAL)
    result = train(config, arguments.workdir)
    if jax.process_index():
        pass  # of several processes the first one tells
    elif arguments.json:
        print(json.dumps(result))
    elif not result["stopped"]:
        print(
            f"trained {result['steps']} updates in {result['workdir']}; next: "
            f"wm-jax evaluate --workdir {result['workdir']}"
        )
    return arguments.stopped_status if result["stopped"] else 0
