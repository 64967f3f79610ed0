"""Tasks for the hand in a world of twins: where an object shall be, and the simulator that says
where it is. A task is a function of (world, number, rules), so any process can make it again."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from data_pipelines.twins.generate import Recording, draw, record_scene
from data_pipelines.twins.geometry import project
from data_pipelines.twins.physics import Simulator
from data_pipelines.twins.world import get_world, scene_seed, stream
from wm_jax.asked import FORCE, actions_of, knot_count, knots_of
from wm_jax.evaluation.protocol import PlanningProtocol
from wm_jax.search import cross_entropy


class Task(NamedTuple):
    """A scene at the end of its context and what is asked of it: that the object in ``slot`` is at
    ``goal`` (world units) at the end of the horizon. ``run`` is what would happen by itself."""

    run: Recording
    simulator: Simulator
    slot: int
    goal: Float[np.ndarray, "2"]
    rules: PlanningProtocol

    def off(self, simulator: Simulator) -> float:
        """How far the object is from the goal, world units."""
        return float(np.linalg.norm(np.array(simulator.bodies[self.slot].position) - self.goal))

    def after(self, actions: Float[np.ndarray, "k 2"]) -> float:
        """The same after these actions."""
        return self.off(_done(self.simulator, actions))

    def shown(self) -> UInt8[np.ndarray, "t h w 3"]:
        """The context."""
        return draw(self.run, self.rules.resolution)["frames"][: self.rules.context]

    def told(self) -> dict[str, np.ndarray]:
        """Light, camera and actions of every frame, as nobody planned them."""
        states = {name: self.run.states[name] for name in ("light", "camera")}
        return states | {"actions": self.run.actions}

    def places(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """Where the object is at the end of the context and where it shall be at the end, px."""
        states, now = self.run.states, self.rules.context - 1
        both = (states["position"][now, self.slot], now), (self.goal, -1)
        x, y = (project(at, states["camera"][frame], self.rules.resolution) for at, frame in both)
        return (float(x[0]), float(x[1])), (float(y[0]), float(y[1]))

    def execution(
        self,
    ) -> tuple[Callable[[Float[np.ndarray, "k 2"]], UInt8[np.ndarray, "k h w 3"]], Simulator]:
        """What does actions and shows what came of them, and the simulator that it does them in."""
        twin = self.simulator.copy()

        def act(actions: np.ndarray) -> np.ndarray:
            rows = []
            for action in actions:
                twin.step(action)
                rows.append(twin.state())
            states = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
            recording = dataclasses.replace(self.run, states=states)
            return draw(recording, self.rules.resolution)["frames"]

        return act, twin

    def planned_by_simulator(self, seed: int, typical: bool = False) -> float:
        """How far off the same search ends, with as many looks, that has the truth as its model;
        ``typical``: the truth but for what no frame shows (`_typical`)."""
        twin, first, rules = self.simulator.copy(), None, self.rules
        for begin in range(0, rules.horizon, rules.look):
            left = rules.horizon - begin
            known = _typical(twin) if typical else twin

            def cost(drawn: np.ndarray, known: Simulator = known, left: int = left) -> np.ndarray:
                return np.array([self.off(_done(known, actions_of(row, left))) for row in drawn])

            knots = cross_entropy(cost, 2 * knot_count(left), FORCE, seed + begin, first)
            plan = actions_of(knots, left)
            for action in plan[: rules.look]:
                twin.step(action)
            first = knots_of(plan[rules.look :]) if left > rules.look else None
        return self.off(twin)


def make_task(name: str, index: int, rules: PlanningProtocol) -> Task | None:
    """That of a test scene; None where it has no hand, or no hidden sequence of actions moves
    anything as far as is asked."""
    world = get_world(name)
    run = record_scene(world, scene_seed(world.name, rules.split, index), rules.length)
    if not run.scene.hand[2]:
        return None
    simulator = Simulator(run.scene)
    for action in run.actions[: rules.context - 1]:
        simulator.step(action)
    still = _done(simulator, np.zeros((rules.horizon, 2)))
    camera, side = run.states["camera"][-1], rules.resolution
    low, high = rules.far
    for actions in _drawn(run, rules, "plan", rules.hidden):
        twin = _done(simulator, actions)
        for slot in simulator.bodies:
            goal = np.array(twin.bodies[slot].position)
            at = project(goal, camera, side)
            inside = (at > rules.margin).all() and (at < side - rules.margin).all()
            if inside and low < np.linalg.norm(goal - still.bodies[slot].position) < high:
                return Task(run, simulator, slot, goal, rules)
    return None


def without_model(name: str, index: int, rules: PlanningProtocol) -> dict[str, list[float]] | None:
    """Distances from the goal that need no model; None where there is no task."""
    task = make_task(name, index, rules)
    if task is None:
        return None
    drawn = _drawn(task.run, rules, "random plans", rules.random)
    return {
        "rest": [task.after(np.zeros((rules.horizon, 2)))],
        "random": [task.after(actions) for actions in drawn],
        "typical": [task.planned_by_simulator(index, typical=True)],
        "truth": [task.planned_by_simulator(index)],
    }


def _typical(simulator: Simulator) -> Simulator:
    """The same scene in the same state, but that every object has the middle of what its world
    draws in place of its own mass, friction and restitution: no frame shows them before a touch."""
    scene, state, hand = simulator.scene, simulator.state(), simulator.hand
    there = scene.mass > 0

    def each(value: Any) -> np.ndarray:
        return np.where(there, value, 0.0)

    scene = dataclasses.replace(
        scene,
        mass=each(1.0),
        inertia=each(scene.inertia / np.where(there, scene.mass, 1.0)),
        friction=each(sum(scene.world.friction) / 2),
        restitution=each(sum(scene.world.restitution) / 2),
    )
    twin = Simulator(scene)
    place, speed = state["position"], state["velocity"]
    moving = None if hand is None else (hand.position, hand.velocity)
    twin.set_state(place, speed, state["angle"], state["angular_velocity"], moving)
    return twin


def _drawn(run: Recording, rules: PlanningProtocol, name: str, count: int) -> list[np.ndarray]:
    size = 2 * knot_count(rules.horizon)
    knots = stream(run.scene.seed, name).normal(0, FORCE, (count, size)).astype(np.float32)
    return [actions_of(row, rules.horizon) for row in knots]


def _done(simulator: Simulator, actions: Float[np.ndarray, "k 2"]) -> Simulator:
    twin = simulator.copy()
    for action in actions:
        twin.step(action)
    return twin
