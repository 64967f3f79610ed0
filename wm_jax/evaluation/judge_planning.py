"""The planning suite: is a goal reached by a model's plan, executed in the true simulator?"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import hashlib
import multiprocessing
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from wm_jax import planning
from wm_jax.asked import At
from wm_jax.errors import UserError
from wm_jax.evaluation import twins_tasks
from wm_jax.evaluation.judge import Tested
from wm_jax.evaluation.planning_page import Execution, PlanningReport
from wm_jax.evaluation.protocol import PlanningProtocol
from wm_jax.evaluation.rows import Row, make_rows
from wm_jax.evaluation.statistics import Estimate, Sums, estimate, interval, resamples
from wm_jax.evaluation.twins_world import TwinsWorld
from wm_jax.progress import Progress
from wm_jax.world import World

#: Beside the models: a hand that rests, random actions, and the same search in the simulator, not
#: told what no frame shows, and told everything.
BESIDE = ("rest", "random", "typical", "truth")
#: Scenes in a row without a task after which there is no hope of one.
HOPELESS = 64


def judge_planning(
    runs: Mapping[str, Tested],
    world: TwinsWorld,
    rules: PlanningProtocol,
    command: str,
    workers: int | None = None,
) -> tuple[PlanningReport, dict[str, Any]]:
    """What the suite's section of the page is made of, and the result as JSON."""
    numbers, found = _tasks(world.name, rules, workers or os.cpu_count() or 1)
    digest = hashlib.sha256(repr(numbers).encode()).hexdigest()[:16]
    rules = dataclasses.replace(rules, episodes=len(numbers), split_hash=digest)
    off = {name: np.array([one[name] for one in found]) for name in BESIDE}
    shown: list[Execution] = []
    for name, run in runs.items():
        steered = getattr(run, "steered", lambda: None)()
        if steered is None or twins_tasks.acts(world.name) not in steered.modalities:
            off[name] = np.full((len(numbers), 1), np.nan)
            continue
        done: list[Execution] = []
        with Progress(len(numbers), f"{name} plans", "scenes") as bar:
            for count, number in enumerate(numbers, 1):
                task = twins_tasks.make_task(world.name, number, rules)
                assert task is not None
                done.append(execute(steered, task, number))
                bar.update(count)
        off[name] = np.array([[one.off] for one in done])
        shown = shown or done
    seed = next(iter(runs.values())).seed
    rows = rows_of(off, rules, seed)
    result = {
        "protocol": rules.to_dict(),
        "models": {name: run.about(1) for name, run in runs.items()},
        "command": command,
        "scenes": numbers,
        "rows": rows,
    }
    return PlanningReport(rows, rules, list(runs), _told(shown)), result


def _tasks(
    name: str, rules: PlanningProtocol, workers: int
) -> tuple[list[int], list[dict[str, list[float]]]]:
    """Numbers of the scenes that have a task, and what became of it without a model."""
    numbers: list[int] = []
    found: list[dict[str, list[float]]] = []
    spawned = multiprocessing.get_context("spawn")
    with (
        concurrent.futures.ProcessPoolExecutor(workers, spawned) as pool,
        Progress(rules.episodes, "the simulator plans", "scenes") as bar,
    ):
        begin = 0
        while len(found) < rules.episodes:
            last = numbers[-1] if numbers else 0
            if begin - last > HOPELESS:
                raise UserError(
                    f"{name} has {len(found)} scenes in which a hand can bring something where it "
                    "would not go; the planning suite needs a world with a hand, as twins:full."
                )
            chunk = list(range(begin, begin + 2 * workers))
            each = [pool.submit(twins_tasks.without_model, name, n, rules) for n in chunk]
            for number, future in zip(chunk, each, strict=True):
                one = future.result()
                if one is not None:
                    numbers.append(number)
                    found.append(one)
            begin += len(chunk)
            bar.update(min(len(found), rules.episodes))
    return numbers[: rules.episodes], found[: rules.episodes]


def execute(world: World, task: twins_tasks.Task, seed: int) -> Execution:
    """The model plans and the simulator does it."""
    rules = task.rules
    told = {name: value for name, value in task.told().items() if name in world.modalities}
    frames = task.shown()
    context: dict[str, Any] = {name: value[: rules.context] for name, value in told.items()}
    scene = world.encode(frames, **context)
    act, twin = task.execution()
    seen = [frames[-1:]]

    def watched(actions: np.ndarray):
        seen.append(act(task.hand.pressed(actions) if choices else actions))
        return seen[-1]

    place, goal = task.places()
    choices = task.hand.choices
    future = {n: value[rules.context :] for n, value in told.items() if n != task.hand.told_as}
    known, asked = True, [At(place, rules.horizon, goal)]
    try:
        look, doubts = rules.look, rules.doubts
        how: dict[str, Any] = {"look": look, "doubts": doubts, "choices": choices}
        planning.pursue(world, scene, asked, watched, seed=seed, told=future, **how)
    except UserError:  # there is nothing near that place
        known = False
        seen.append(act(np.zeros((rules.horizon, 2), np.float32)))
    return Execution(np.concatenate(seen), goal, task.off(twin), known)


def rows_of(
    off: Mapping[str, Float[np.ndarray, "n d"]], rules: PlanningProtocol, seed: int | None
) -> list[Row]:
    """Of distances from the goal (world units), some draws in each scene: their mean, how many are
    near, and the share of the way from a hand that rests to the simulator's plans. NaN: none."""
    rows: list[Row] = []

    def sums(values: np.ndarray) -> Sums:
        real = ~np.isnan(values)
        total = np.where(real, values, 0.0).sum(1, keepdims=True)
        return Sums(total, real.sum(1, keepdims=True).astype(float))

    drawn = resamples(len(off["rest"]), rules.seed)
    mean = {name: values.mean(1) for name, values in off.items()}
    every = np.concatenate([np.ones((1, len(off["rest"]))), drawn])  # the first: as they are
    most = every @ (mean["rest"] - mean["truth"])
    for name, values in off.items():
        near = np.where(np.isnan(values), np.nan, values <= rules.near)
        gain = (every @ (mean["rest"] - mean[name]) / most)[:, None]
        low, high = interval(gain[1:])
        count = np.array([int((~np.isnan(mean[name])).sum())])
        for metric, unit, found in (
            ("plan_distance", "1/64 of the arena", estimate(sums(values), rules.seed)),
            ("plan_reached", "1", estimate(sums(near), rules.seed)),
            ("plan_gain", "1", Estimate(gain[0], low, high, count)),
        ):
            rows += make_rows(
                found, rules, model=name, metric=metric, unit=unit, seed=seed, steps=[rules.horizon]
            )
    return rows


def _told(done: list[Execution]) -> list[tuple[str, Execution]]:
    """The best, the median and the worst of them."""
    if not done:
        return []
    order = np.argsort([one.off for one in done])
    picks = {"best": order[0], "median": order[len(order) // 2], "worst": order[-1]}
    return [(name, done[int(index)]) for name, index in picks.items()]
