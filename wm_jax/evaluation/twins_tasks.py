"""Tasks for the hand in a world of twins: where an object shall be, and the simulator that says
where it is. A task is a function of (world, number, rules), so any process can make it again."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int, UInt8

from data_pipelines.twins.drives import KEYS, nearest_key
from data_pipelines.twins.generate import Recording, draw, record_scene
from data_pipelines.twins.geometry import project
from data_pipelines.twins.physics import Simulator
from data_pipelines.twins.world import World, get_world, scene_seed, stream
from wm_jax.asked import FORCE, actions_of, choices_of, drawn_of, knots_of
from wm_jax.evaluation.protocol import PlanningProtocol
from wm_jax.search import cross_entropy


@dataclasses.dataclass(frozen=True)
class Hand:
    """What the hand of a world can be asked to do, and numbers that a search draws for it: any
    velocity in each frame, or the way of one of its keys."""

    world: World

    @property
    def choices(self) -> int:
        """How many keys there are; 0: it takes any velocity."""
        return len(KEYS) if self.world.keys else 0

    @property
    def told_as(self) -> str:
        """The condition in which it is told what to do."""
        return "discrete_actions" if self.choices else "actions"

    @property
    def wide(self) -> float:
        """Standard deviation of what is drawn."""
        return 1.0 if self.choices else FORCE

    def velocities(self, drawn: Float[np.ndarray, " p"], steps: int) -> Float[np.ndarray, "k 2"]:
        """World units a frame."""
        if self.choices:
            return self.pressed(choices_of(drawn, steps, self.choices))
        return actions_of(drawn, steps)

    def pressed(self, keys: Int[np.ndarray, " k"]) -> Float[np.ndarray, "k 2"]:
        """The velocities that keys ask for."""
        return np.asarray(self.world.hand_speed * KEYS[keys], np.float32)

    def drawn_of(self, velocities: Float[np.ndarray, "k 2"]) -> Float[np.ndarray, " p"]:
        """The inverse of `velocities`."""
        if self.choices:
            return drawn_of(nearest_key(velocities, self.world.hand_speed), self.choices)
        return knots_of(velocities)

    def size(self, steps: int) -> int:
        """Numbers that are drawn for so many frames."""
        return self.drawn_of(np.zeros((steps, 2), np.float32)).size


class Task(NamedTuple):
    """A scene at the end of its context and what is asked of it: that the object in ``slot`` is at
    ``goal`` (world units) at the end of the horizon. ``run`` is what would happen by itself."""

    run: Recording
    simulator: Simulator
    slot: int
    goal: Float[np.ndarray, "2"]
    rules: PlanningProtocol

    @property
    def hand(self) -> Hand:
        return Hand(self.run.scene.world)

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
        actions, hand = self.run.actions, self.hand
        done = nearest_key(actions, hand.world.hand_speed) if hand.choices else actions
        return states | {hand.told_as: done}

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
        twin, first, rules, hand = self.simulator.copy(), None, self.rules, self.hand
        for begin in range(0, rules.horizon, rules.look):
            left = rules.horizon - begin
            known = _typical(twin) if typical else twin

            def cost(drawn: np.ndarray, known: Simulator = known, left: int = left) -> np.ndarray:
                plans = (hand.velocities(row, left) for row in drawn)
                return np.array([self.off(_done(known, plan)) for plan in plans])

            found = cross_entropy(cost, hand.size(left), hand.wide, seed + begin, first)
            plan = hand.velocities(found, left)
            for action in plan[: rules.look]:
                twin.step(action)
            first = hand.drawn_of(plan[rules.look :]) if left > rules.look else None
        return self.off(twin)


def acts(name: str) -> str:
    """The condition in which the hand of this world is told what to do."""
    return Hand(get_world(name)).told_as


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
    hand = Hand(run.scene.world)
    size = hand.size(rules.horizon)
    drawn = stream(run.scene.seed, name).normal(0, hand.wide, (count, size)).astype(np.float32)
    return [hand.velocities(row, rules.horizon) for row in drawn]


def _done(simulator: Simulator, actions: Float[np.ndarray, "k 2"]) -> Simulator:
    twin = simulator.copy()
    for action in actions:
        twin.step(action)
    return twin
