"""``wm-jax compile``: what a run would need of a TPU slice, without one."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from typing import Any

from wm_jax.errors import UserError

EPILOG = """\
examples:
  wm-jax compile --config experiments/configs/scale.py:7b --topology v5p:4x4x4
  wm-jax compile --config experiments/configs/scale.py:1b --topology v5e:16x16 \\
      --mesh data=4,fsdp=64 --batch 512 --json
  wm-jax compile --config experiments/configs/scale.py:200m --topology v5e:4x4 --sweep

No TPU is needed; the compiler is: pip install 'wm_jax[libtpu]'. Times are estimates at peak rates
(a roofline), not measurements. Keys of the config can be set as for train, for example
--config.model.remat=dots
"""

AXES = "data=N,fsdp=N,tensor=N,cells=N"


def main(argv: list[str]) -> int:
    """The verb."""
    args, overrides = _parser().parse_known_args(argv)
    from wm_jax.ahead.chips import topology

    where = topology(args.topology)
    # The chips are described, not here; and a TPU that is here belongs to others.
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    from wm_jax import config as configs
    from wm_jax.ahead import program

    config = configs.load(args.config, overrides)
    devices = program.devices(where)
    report = run(args, config, where, devices)
    if args.json:
        print(json.dumps(report))
    return 0


def run(args: argparse.Namespace, config: Any, where: Any, devices: list[Any]) -> dict[str, Any]:
    """One report: of the mesh that was asked for, or of the best one with all of them in ``sweep``.
    Tells people as it goes, unless ``--json``."""
    from wm_jax.ahead import report as reports

    batch = args.batch or -(-config.train.batch_size // where.size) * where.size
    task = reports.Task(config, where, devices, batch)

    def tell(line: str) -> None:
        print(line, file=sys.stderr if args.json else sys.stdout, flush=True)

    if args.sweep:
        found = reports.sweep(task, tell)
        out = dict(found[0])
        task = task.with_mesh(**out["mesh"])
    else:
        task = on_mesh(task, args.mesh, tell)
        found, out = [], reports.measure(task)
    if args.largest:
        out["largest_batch"] = reports.largest_batch(task, out)
    if not args.json:
        print(reports.text(out))
    return out | ({"sweep": found} if found else {})


def on_mesh(task: Any, text: str | None, tell: Callable[[str], None]) -> Any:
    """The task on the mesh that ``text`` names; None: the config's own."""
    from wm_jax.ahead import program
    from wm_jax.mesh_choice import Sizes, choose

    if text == "auto" or (text is None and task.config.mesh.auto):
        chosen, why = choose(program.needs(task.config, task.batch_size), task.chips)
        tell(why)
        return task.with_mesh(**chosen._asdict())
    if text is None:
        return task
    sizes = Sizes(-1, 1, 1)._asdict() | axes(text)
    if list(sizes.values()).count(-1) > 1:
        raise UserError(f"--mesh {text}: at most one axis may be -1 (all that are left).")
    return task.with_mesh(**sizes)


def axes(text: str) -> dict[str, int]:
    """``data=4,fsdp=16`` as sizes. Raises `UserError` for anything else."""
    from wm_jax.mesh_choice import Sizes

    out = {}
    for part in text.split(","):
        name, _, size = part.partition("=")
        if name.strip() not in Sizes._fields:
            raise UserError(f"--mesh {text}: there is no axis '{name}'; write auto, or {AXES}.")
        try:
            out[name.strip()] = int(size)
        except ValueError:
            raise UserError(
                f"--mesh {text}: '{size}' is not a number of chips; write {AXES}."
            ) from None
        if out[name.strip()] == 0 or out[name.strip()] < -1:
            raise UserError(f"--mesh {text}: {name} must be at least 1, or -1 for what is left.")
    return out


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="wm-jax compile",
        description="Compile the training step for a TPU slice that is not here: memory, FLOPs, "
        "collectives, and the step time and MFU at peak rates.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--config", required=True, metavar="FILE:VARIANT", help="a config file and its variant")
    add("--topology", required=True, metavar="KIND:AxB", help="v4, v5e, v5p or v6e, and its sides")
    add("--mesh", metavar="AXES", help=f"{AXES} or auto (default: the config's own)")
    add("--batch", type=_positive, help="windows an update (default: the config's, rounded up)")
    add("--sweep", action="store_true", help="try every mesh and report the best")
    add(
        "--largest",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="estimate the largest batch that fits, by a second compile (default: yes)",
    )
    add("--json", action="store_true", help="print the report as JSON")
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} must be at least 1")
    return number
