"""What each part of the physics is worth: the true simulator without it, from the true state.

    python experiments/benchmarks/simulator_parts.py --episodes 64 --json

A model that lacks a part cannot predict better than this, whatever it learns. Test scenes are run
to the last context frame; from there a copy without the part goes on beside the truth, told the
same actions. Rows: the mean error of objects (world units, capped) and the share of scenes in which
every object is near enough, by step, with 95 % intervals over scenes.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from data_pipelines.twins.generate import Recording, record_scene
from data_pipelines.twins.physics import Simulator
from data_pipelines.twins.world import get_world, scene_seed
from wm_jax.errors import UserError
from wm_jax.evaluation.protocol import Protocol
from wm_jax.evaluation.statistics import estimate, sums_by_unit
from wm_jax.progress import Progress

STEPS = (1, 5, 10, 20, 40)
CAP, NEAR = 16.0, 8.0
CONTEXT = Protocol.context


def _spin(sim: Simulator) -> None:
    for body in sim.bodies.values():
        body.moment, body.angular_velocity = float("inf"), 0.0


def _friction(sim: Simulator) -> None:
    for body in sim.bodies.values():
        for shape in body.shapes:
            shape.friction = 0.0


def _bounce(sim: Simulator) -> None:
    mean = float(np.mean(sim.scene.world.restitution))
    for body in sim.bodies.values():
        for shape in body.shapes:
            shape.elasticity = mean


def _mass(sim: Simulator) -> None:
    for body in sim.bodies.values():
        body.moment, body.mass = body.moment / body.mass, 1.0


def _grip(sim: Simulator) -> None:
    mean = float(np.mean(sim.scene.world.friction))
    for body in sim.bodies.values():
        for shape in body.shapes:
            shape.friction = mean


def _unseen(sim: Simulator) -> None:
    for part in (_bounce, _mass, _grip):
        part(sim)


def _unseen_and_noise(sim: Simulator) -> None:
    _unseen(sim)
    _noise(sim)


def _gravity(sim: Simulator) -> None:
    sim.space.gravity = 0.0, 0.0


def _hand(sim: Simulator) -> None:
    if sim.hand is not None:
        sim.space.remove(sim.hand, *sim.hand.shapes)
        sim.hand = None


def _noise(sim: Simulator) -> None:
    rng = np.random.default_rng(sim.scene.seed)
    for body in sim.bodies.values():
        place, speed = 0.05 * rng.normal(size=2), 0.02 * rng.normal(size=2)
        body.position = body.position + tuple(place.tolist())
        body.velocity = body.velocity + tuple(speed.tolist())


#: What is left out: differences of bounce, mass and grip (friction), and as ``unseen`` of all
#: three, which no frame shows before a contact; all else wholly. ``noise`` is added instead: 0.05
#: units on places and 0.02 units a frame on velocities, about what a tracker leaves.
PARTS: dict[str, Callable[[Simulator], None]] = {
    "spin": _spin,
    "friction": _friction,
    "bounce": _bounce,
    "mass": _mass,
    "gravity": _gravity,
    "hand": _hand,
    "noise": _noise,
    "grip": _grip,
    "unseen": _unseen,
    "unseen, noise": _unseen_and_noise,
}


def errors(run: Recording, change: Callable[[Simulator], None]) -> tuple[np.ndarray, np.ndarray]:
    """Mean error at `STEPS` of the simulator that lacks a part, and whether all are near."""
    sim = Simulator(run.scene)
    for action in run.actions[: CONTEXT - 1]:
        sim.step(action)
    change(sim)
    means, near = [], []
    for frame in range(CONTEXT, CONTEXT + max(STEPS)):
        sim.step(run.actions[frame - 1])
        away = sim.state()["position"] - run.states["position"][frame]
        off = np.hypot(*away[run.states["present"][frame]].T)
        means.append(np.minimum(off, CAP).mean())
        near.append((off < NEAR).all())
    at = np.array(STEPS) - 1
    return np.array(means)[at], np.array(near, float)[at]


def measure(world: str, episodes: int) -> list[dict[str, Any]]:
    """The rows."""
    ranges, length = get_world(world), CONTEXT + max(STEPS)
    found: dict[str, list[Any]] = {name: [] for name in PARTS}
    with Progress(episodes, "simulate", "scenes") as bar:
        for index in range(episodes):
            run = record_scene(ranges, scene_seed(ranges.name, "test", index), length)
            for name, change in PARTS.items():
                found[name].append(errors(run, change))
            bar.update(index + 1)
    rows = []
    for name, pairs in found.items():
        for metric, values in zip(("error", "all_near"), zip(*pairs, strict=True), strict=True):
            got = estimate(sums_by_unit(np.array(values), np.arange(episodes)))
            for at, step in enumerate(STEPS):
                value, low, high = (round(float(x[at]), 4) for x in got[:3])
                row = {"without": name, "metric": metric, "step": step, "value": value}
                rows.append(row | {"low": low, "high": high, "n": episodes, "world": ranges.name})
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--world", default="twins:full", help="default %(default)s")
    parser.add_argument("--episodes", type=int, default=64, help="default %(default)s")
    parser.add_argument("--json", action="store_true", help="print the rows as JSON")
    args = parser.parse_args()
    try:
        rows = measure(args.world, args.episodes)
    except UserError as error:
        print(f"simulator_parts: {error}", file=sys.stderr)
        return 2
    if args.json:
        print(json.dumps(rows, indent=1))
        return 0
    for name in PARTS:
        for metric in ("error", "all_near"):
            mine = [r for r in rows if (r["without"], r["metric"]) == (name, metric)]
            print(f"{name:<10}{metric:<10}" + "".join(f"{row['value']:8.2f}" for row in mine))
    return 0


if __name__ == "__main__":
    sys.exit(main())
