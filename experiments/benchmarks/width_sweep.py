"""Where the best learning rate lies for each width, and whether it moves: learning rates × widths.

    sweep=experiments/benchmarks/width_sweep.py configs=experiments/configs/twins.py
    python $sweep --config $configs:quickstart --data data/quickstart --json
    python $sweep --config $configs:quickstart --data data/quickstart --updates 30 \\
        --factors 0.5 1 --rates 1e-3 4e-3 1.6e-2 --seeds 0          # smoke: minutes

A width is a factor on all of ``--scale`` (config keys). Every run takes the same batches, and its
score is the mean loss of its last tenth of updates; a run that leaves the finite numbers scores
infinity. The optimum of a width is the lowest point of a parabola through the best rate and its
neighbours, in the logarithm of the rate. It ``moves`` if the optima of two widths lie more than one
step of the grid apart, or one lies at its edge.

What to expect (μP, Yang et al. 2022, arXiv 2203.03466, tables 3 and 8): with AdamW the best rate of
hidden matrices falls as 1 / width; Muon's updates are orthogonal and scaled by the longer side
(`wm_jax.optim`), which already takes width out. So a config is tuned at a small size and its rate
used at the large one as it is with Muon, and with AdamW only after this sweep.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from data_pipelines import window
from data_pipelines.input import open_loader
from wm_jax import config as configs
from wm_jax import mesh as meshes
from wm_jax import models, optim, train_step

SCALED = ("model.dynamics.width", "model.dynamics.hidden", "model.embed", "model.decoder_hidden")


def widened(config: Any, factor: float, keys: Sequence[str]) -> Any:
    """A copy of the config whose ``keys`` (those that it has) are ``factor`` times as large."""
    there = configs.flat(config)
    changes = {key: max(1, round(factor * there[key])) for key in keys if key in there}
    return configs.validate(configs.change(config.copy_and_resolve_references(), changes))


def curve(config: Any, rates: Sequence[float], seed: int, updates: int, source: Any) -> list[float]:
    """The score of each rate. One program serves all of them: the rate is an argument."""
    mesh = meshes.make_mesh(config.mesh)
    model, optimizer = models.build(config.model), optim.make_optimizer(config.optim)
    batch_size, frames = config.train.batch_size, config.data.window
    blank = meshes.shard_batch(window.blank(batch_size, frames, config.model.resolution), mesh)
    initial = train_step.init_state(model, optimizer, blank, seed, mesh)
    update = train_step.jit_train_step(train_step.make_train_step(model, optimizer), initial, mesh)
    scores = []
    for peak in rates:
        schedule = optim.learning_rate(_with_rate(config.optim, peak), updates)
        loader = open_loader(config.data, batch_size=batch_size, seed=seed, source=source)
        state, losses = jax.tree.map(lambda x: x.copy(), initial), []
        for step in range(updates):
            batch = meshes.shard_batch(next(loader), mesh)
            state, metrics = update(state, batch, np.float32(schedule(step)))
            losses.append(float(metrics["train/loss/total"]))
        loader.close()
        score = float(np.mean(losses[-max(1, updates // 10) :]))
        scores.append(score if math.isfinite(score) else math.inf)
    return scores


def optimum(rates: Sequence[float], scores: Sequence[float]) -> tuple[float, bool]:
    """The best rate, and whether it lies at an edge of the grid. ``rates`` rise by a factor."""
    best = int(np.argmin(scores))
    if best in (0, len(rates) - 1):
        return rates[best], True
    below, here, above = scores[best - 1 : best + 2]
    bend = below - 2 * here + above
    shift = 0.5 * (below - above) / bend if math.isfinite(bend) and bend > 0 else 0.0
    step = math.log(rates[best + 1] / rates[best])
    return rates[best] * math.exp(shift * step), False


def sweep(
    config: Any,
    factors: Sequence[float],
    rates: Sequence[float],
    seeds: Sequence[int],
    updates: int,
    keys: Sequence[str] = SCALED,
    source: Sequence[Mapping[str, Any]] | None = None,
) -> list[dict[str, Any]]:
    """A row a factor and rate (mean over seeds), one a factor with its optimum, and the verdict."""
    rows: list[dict[str, Any]] = []
    found = []
    common = {"model": config.model.name, "optimizer": config.optim.name, "updates": updates}
    for factor in factors:
        wide = widened(config, factor, keys)
        by_seed = np.array([curve(wide, rates, seed, updates, source) for seed in seeds])
        scores = by_seed.mean(0)
        for rate, score, each in zip(rates, scores, by_seed.T, strict=True):
            row = {"factor": factor, "learning_rate": rate, "loss": float(score)}
            rows.append(common | row | {"by_seed": each.tolist()})
        best, edge = optimum(rates, scores.tolist())
        found.append((best, edge))
        rows.append(common | {"factor": factor, "best_learning_rate": best, "at_edge": edge})
        print(f"width × {factor:g}: best learning rate {best:.2g}", file=sys.stderr, flush=True)
    spread = max(best for best, _ in found) / min(best for best, _ in found)
    moves = spread > rates[1] / rates[0] or any(edge for _, edge in found)
    rows.append(common | {"spread": spread, "moves": bool(moves), "seeds": len(seeds)})
    return rows


def _with_rate(section: Any, rate: float) -> Any:
    copy = section.copy_and_resolve_references()
    copy.learning_rate = rate
    return copy


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", required=True, metavar="FILE.py:VARIANT")
    parser.add_argument("--data", required=True, metavar="DIR")
    parser.add_argument("--factors", type=float, nargs="+", default=[0.5, 1.0, 2.0, 4.0])
    rates = [5e-4 * 2**i for i in range(7)]
    parser.add_argument("--rates", type=float, nargs="+", default=rates, help="rising by a factor")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--updates", type=int, default=400)
    parser.add_argument("--scale", nargs="+", default=list(SCALED), metavar="KEY")
    parser.add_argument("--json", type=Path, nargs="?", const="-", metavar="FILE")
    arguments, overrides = parser.parse_known_args(argv)
    config = configs.load(
        arguments.config, [f"--config.data.directory={arguments.data}", *overrides]
    )
    grid = arguments.factors, arguments.rates, arguments.seeds
    rows = sweep(config, *grid, arguments.updates, arguments.scale)
    if arguments.json is None:
        last = rows[-1]
        print(f"the optimum {'moves' if last['moves'] else 'stays'}: × {last['spread']:.2f}")
    elif str(arguments.json) == "-":
        print(json.dumps(rows))
    else:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
