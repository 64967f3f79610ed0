"""Plans with the hand, made in a model's latent space and executed in the true simulator.

    python experiments/benchmarks/plan.py --model runs/small_full --json

A scene of twins:full is watched for 16 frames. A goal is an object and the place where it ends 24
frames later under one of 32 hidden sequences of actions; it is chosen so that it can be reached and
is not where the object goes by itself (6 to 24 units from there; the first of the sequences for
which there is such an object). The same search (`wm_jax.search`, as many candidates, rounds and
looks) plans with the model and with a copy of the true simulator, which is told everything; then
the simulator does what each has planned. Beside them: a hand that rests, and random actions drawn
as the candidates of the first round are.

Rows: mean distance from the goal (world units, frame 24), how often it is at most 4, and the share
of the way from `rest` to `simulator` that each one goes; 95 % bootstrap over scenes.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import multiprocessing
import sys
from concurrent import futures
from typing import Any, NamedTuple

import numpy as np

import wm_jax
from data_pipelines.twins.generate import Recording, draw, record_scene
from data_pipelines.twins.geometry import project
from data_pipelines.twins.physics import Simulator
from data_pipelines.twins.world import ARENA, get_world, scene_seed, stream
from wm_jax.asked import FORCE, At, actions_of, knot_count, knots_of
from wm_jax.errors import UserError
from wm_jax.planning import LOOK, pursue
from wm_jax.progress import Progress
from wm_jax.search import cross_entropy

CONTEXT, STEPS, HIDDEN = 16, 24, 32
#: How far a goal is from where the object would go, world units; and from the frame's edge, px.
FAR, MARGIN = (6.0, 24.0), 4.0
NEAR = 4.0
RANDOM = 16
SIZE = 2 * knot_count(STEPS)


class Task(NamedTuple):
    """A scene at the end of its context and what is asked of it: that ``slot`` is at ``goal``
    (world units) STEPS frames later. ``run`` is what would happen by itself."""

    run: Recording
    simulator: Simulator
    slot: int
    goal: np.ndarray


def end_of(simulator: Simulator, actions: np.ndarray, slot: int) -> np.ndarray:
    twin = simulator.copy()
    for action in actions:
        twin.step(action)
    return np.array(twin.bodies[slot].position)


def make_task(index: int, resolution: int) -> Task | None:
    """None where no hidden sequence moves anything as far as is asked."""
    world = get_world("full")
    run = record_scene(world, scene_seed(world.name, "test", index), CONTEXT + STEPS)
    if not run.scene.hand[2]:
        return None
    simulator = Simulator(run.scene)
    for action in run.actions[: CONTEXT - 1]:
        simulator.step(action)
    rest = {s: end_of(simulator, np.zeros((STEPS, 2)), s) for s in simulator.bodies}
    camera = run.states["camera"][CONTEXT : CONTEXT + STEPS]
    rng = stream(run.scene.seed, "plan")
    for _ in range(HIDDEN):
        hidden = actions_of(rng.normal(0, FORCE, SIZE).astype(np.float32), STEPS)
        for slot, still in rest.items():
            goal = end_of(simulator, hidden, slot)
            at = project(goal, camera[-1], resolution)
            inside = (at > MARGIN).all() and (at < resolution - MARGIN).all()
            if inside and FAR[0] < np.linalg.norm(goal - still) < FAR[1]:
                return Task(run, simulator, slot, goal)
    return None


def by_model(world: Any, task: Task, seed: int) -> tuple[np.ndarray, bool]:
    """Where the object ends, and whether the model had it at all."""
    side, run, now = world.resolution, task.run, CONTEXT - 1
    told = {name: run.states[name] for name in ("light", "camera")} | {"actions": run.actions}
    told = {name: value for name, value in told.items() if name in world.modalities}
    frames = draw(run, side)["frames"][:CONTEXT]
    scene = world.encode(frames, **{name: value[:CONTEXT] for name, value in told.items()})
    twin = task.simulator.copy()

    def act(actions: np.ndarray) -> np.ndarray:
        rows = []
        for action in actions:
            twin.step(action)
            rows.append(twin.state())
        states = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
        return draw(dataclasses.replace(run, states=states), side)["frames"]

    camera = run.states["camera"]
    place, goal = (
        tuple(map(float, project(at, camera[frame], side)))
        for at, frame in ((run.states["position"][now, task.slot], now), (task.goal, -1))
    )
    future = {name: told[name][CONTEXT:] for name in told if name != "actions"}
    try:
        pursue(world, scene, [At(place, STEPS, goal)], act, seed=seed, told=future)
    except UserError:  # there is nothing near that place
        act(np.zeros((STEPS, 2)))
        return np.array(twin.bodies[task.slot].position), False
    return np.array(twin.bodies[task.slot].position), True


def by_simulator(task: Task, seed: int) -> np.ndarray:
    """The same search and looks with the truth as the model."""
    twin, first = task.simulator.copy(), None
    for begin in range(0, STEPS, LOOK):
        left = STEPS - begin

        def cost(drawn: np.ndarray, twin: Simulator = twin, left: int = left) -> np.ndarray:
            ends = [end_of(twin, actions_of(row, left), task.slot) for row in drawn]
            return np.linalg.norm(np.stack(ends) - task.goal, axis=-1)

        size = 2 * knot_count(left)
        knots = cross_entropy(cost, size, FORCE, seed + begin, first)
        plan = actions_of(knots, left)
        for action in plan[:LOOK]:
            twin.step(action)
        first = knots_of(plan[LOOK:]) if left > LOOK else None
    return np.array(twin.bodies[task.slot].position)


def without_model(index: int, resolution: int) -> dict[str, Any] | None:
    """Distances that need no model; None where there is no task."""
    task = make_task(index, resolution)
    if task is None:
        return None
    rng = stream(task.simulator.scene.seed, "random plans")
    drawn = actions_of(rng.normal(0, FORCE, (RANDOM, SIZE)).astype(np.float32), STEPS)

    def off(place: np.ndarray) -> float:
        return float(np.linalg.norm(place - task.goal))

    rest = end_of(task.simulator, np.zeros((STEPS, 2)), task.slot)
    return {
        "index": index,
        "rest": off(rest),
        "random": [off(end_of(task.simulator, actions, task.slot)) for actions in drawn],
        "simulator": off(by_simulator(task, index)),
    }


def measure(model: str, scenes: int, workers: int, name: str) -> dict[str, Any]:
    world = wm_jax.load(model)
    if "actions" not in world.modalities:
        raise UserError(f"{model} is not told actions; plan with a model of twins:full.")
    found: list[dict[str, Any]] = []
    side = world.resolution
    with (
        futures.ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool,
        Progress(scenes, "the simulator plans", "scenes") as bar,
    ):
        for begin in range(0, 100 * scenes, 4 * workers):
            chunk = range(begin, begin + 4 * workers)
            found += [x for x in pool.map(without_model, chunk, [side] * len(chunk)) if x]
            bar.update(min(len(found), scenes))
            if len(found) >= scenes:
                break
    found = found[:scenes]
    with Progress(scenes, "the model plans", "scenes") as bar:
        for done, one in enumerate(found):
            task = make_task(one["index"], side)
            assert task is not None
            place, known = by_model(world, task, one["index"])
            one["model"], one["known"] = float(np.linalg.norm(place - task.goal)), known
            bar.update(done + 1)
    return {
        "protocol": {
            "context": CONTEXT, "steps": STEPS, "look": LOOK, "scenes": len(found),
            "arena": ARENA, "near": NEAR, "model": name,
        },
        "rows": rows_of(found),
        "scenes": [{**one, "random": float(np.mean(one["random"]))} for one in found],
    }  # fmt: skip


def rows_of(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    drawn = np.array([one["random"] for one in found])  # (n, RANDOM); of the rest (n, 1)
    off = {k: np.array([one[k] for one in found])[:, None] for k in ("rest", "model", "simulator")}
    off["random"] = drawn
    sample = np.random.default_rng(0).integers(0, len(found), (1000, len(found)))
    sample = np.concatenate([np.arange(len(found))[None], sample])  # first, all as they are
    mean = {name: x.mean(1)[sample].mean(1) for name, x in off.items()}
    reached = {name: (x <= NEAR).mean(1)[sample].mean(1) for name, x in off.items()}
    most = mean["rest"] - mean["simulator"]
    rows = []
    for name in ("rest", "random", "model", "simulator"):
        gain = (mean["rest"] - mean[name]) / most
        for metric, values in (
            ("distance", mean[name]), ("reached", reached[name]), ("share of the gain", gain)
        ):  # fmt: skip
            low, high = np.quantile(values[1:], (0.025, 0.975))
            numbers = {"value": values[0], "low": low, "high": high}
            numbers = {k: round(float(v), 3) for k, v in numbers.items()}
            rows.append({"metric": metric, "who": name, **numbers, "n": len(found)})
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", required=True, help="a run, or an export, of twins:full")
    parser.add_argument("--scenes", type=int, default=48)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--name", default="", help="what the result calls the model")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    try:
        result = measure(args.model, args.scenes, args.workers, args.name or args.model)
    except UserError as error:
        print(f"plan: {error}", file=sys.stderr)
        return 2
    if args.json:
        print(json.dumps(result, indent=1))
        return 0
    for one in result["rows"]:
        spread = f"({one['low']:.2f} to {one['high']:.2f})"
        print(f"{one['metric']:<30} {one['who']:<10} {one['value']:.2f} {spread}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
