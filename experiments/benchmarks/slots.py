"""One object a slot? Masks of a model's slots against the true segmentation.

    python experiments/benchmarks/slots.py --workdir runs/small --episodes 64 --json

Test episodes are shown from their first frame on. After ``--context`` frames, and again after steps
of imagining, each pixel belongs to the slot that paints the most of it, and every frame is a scene:

  foreground_ari  adjusted Rand index over the pixels of objects
  bound_share     of the objects that are seen by half or more: those with a slot of their own
                  (it wins over half of the object's pixels, of no other object's, and of the
                  background)
  one_a_slot      share of scenes in which all of them have one

with 95 % bootstrap intervals over episodes. --workdir is a run, or an export of one, of a model
whose decoder is 'slots' or 'mixture'.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from data_pipelines import window
from data_pipelines.twins import open_source
from wm_jax import checkpoint, models, programs, shapes
from wm_jax.config import from_json
from wm_jax.errors import MissingExtra, UserError
from wm_jax.evaluation import statistics
from wm_jax.evaluation.segmentation import Binding, binding
from wm_jax.mesh import to_batch

AHEAD = (0, 1, 5, 10)  # imagined steps after the context at which masks are compared
BATCH = 16  # episodes at once


def weights(folder: Path) -> tuple[Any, Any]:
    """(parameters, config) of a run or of an export. Raises `UserError` where there is neither."""
    if not (folder / "model.safetensors").is_file():
        params, config, _ = checkpoint.restore_params(folder)
        return params, config
    try:
        import safetensors.numpy
    except ImportError:
        raise MissingExtra("safetensors", "export") from None
    flat = safetensors.numpy.load_file(folder / "model.safetensors")
    params = programs.unflatten({k: jnp.asarray(v, jnp.float32) for k, v in flat.items()})
    return params, from_json((folder / "config.json").read_text())


def episodes(directory: str, conditions: tuple[str, ...], skip: int, count: int, length: int):
    """Frames and conditions of test episodes as batches of `BATCH`, and what is true of them."""
    truths = ("truth/segmentation", "truth/visible_fraction")
    source = open_source(directory, "test", (*window.fields(conditions), "branch", *truths))
    chosen = [
        episode
        for episode in (source[i] for i in range(skip, min(skip + count, len(source))))
        if int(episode["branch"]) == 0
    ]
    if not chosen:
        raise UserError(f"{directory} has no test episodes after the first {skip}.")
    for first in range(0, len(chosen), BATCH):
        some = chosen[first : first + BATCH]
        cuts = [window.cut(window.trim(e, conditions), 0, length) for e in some]
        yield to_batch(window.collate(cuts)), [[e[name][:length] for name in truths] for e in some]


def masks_ahead(model: Any, context: int):
    """A jitted function from parameters and a batch to masks (b, len(AHEAD), m, h, w)."""

    @jax.jit
    def run(params: Any, batch: shapes.Batch):
        shown = jax.tree.map(lambda x: x[:, :context], batch.conditions)
        state = shapes.encode(model, params, batch.frames[:, :context], shown)
        told = shapes.conditions_for_steps(batch.conditions)
        found = [model.masks(params, state)]
        for step in range(max(AHEAD)):
            state = model.step(params, state, shapes.at_time(told, context + step))
            if step + 1 in AHEAD:
                found.append(model.masks(params, state))
        return jnp.stack(found, 1)

    return run


def measure(model: Any, params: Any, batches: Any, context: int):
    """The rows."""
    run, found = masks_ahead(model, context), []
    for batch, truths in batches:
        for masks, (segmentation, visible) in zip(
            np.asarray(run(params, batch)), truths, strict=True
        ):
            at = [context - 1 + step for step in AHEAD]
            found.append(
                [
                    binding(segmentation[t], mask, visible[t])
                    for t, mask in zip(at, masks, strict=True)
                ]
            )
    values = np.array(found)  # (episodes, steps, metrics)
    rows: list[dict[str, Any]] = []
    for index, metric in enumerate(Binding._fields):
        value = values[..., index]
        sums = statistics.sums_by_unit(value, np.arange(len(value)), ~np.isnan(value))
        mean = statistics.estimate(sums)
        for i, step in enumerate(AHEAD):
            row = {"metric": metric, "unit": "1", "step": step, "n": int(mean.n[i])}
            row |= {k: float(getattr(mean, k)[i]) for k in ("value", "low", "high")}
            rows.append(row)
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workdir", required=True, type=Path, help="a run, or an export of one")
    parser.add_argument("--data", help="folder of the data set, if not the run's own")
    parser.add_argument("--skip", type=int, default=0, help="test episodes to leave out first")
    parser.add_argument("--episodes", type=int, default=64, help="at most so many after them")
    parser.add_argument("--context", type=int, default=16, help="frames shown")
    parser.add_argument("--json", action="store_true", help="print the rows as JSON")
    args = parser.parse_args()
    try:
        params, config = weights(args.workdir)
        if config.model.decoder not in ("slots", "mixture"):
            raise UserError(
                f"{args.workdir} is a run of {config.model.name}, which paints no slots; name one "
                "of grid_slots or slot_attention."
            )
        conditions, length = tuple(config.data.conditions), args.context + max(AHEAD)
        data = args.data or config.data.directory
        batches = episodes(data, conditions, args.skip, args.episodes, length)
        rows = measure(models.build(config.model), params, batches, args.context)
    except UserError as error:
        print(f"slots: {error}", file=sys.stderr)
        return 2
    if args.json:
        print(json.dumps(rows))
        return 0
    for row in rows:
        where = "after the context" if not row["step"] else f"{row['step']} steps on"
        bounds = f"{row['low']:.3f} to {row['high']:.3f}"
        print(f"{row['metric']:16s} {where:18s} {row['value']:.3f} ({bounds}; n = {row['n']})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
