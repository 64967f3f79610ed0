"""The planning suite: goals that can be reached, and what each one makes of them."""

from types import SimpleNamespace

import numpy as np
import pytest

from wm_jax import planning
from wm_jax.errors import UserError
from wm_jax.evaluation import judge_planning, planning_page, twins_tasks
from wm_jax.evaluation.protocol import PlanningProtocol

RULES = PlanningProtocol(resolution=32, episodes=2, random=3, hidden=16)


@pytest.fixture(scope="module")
def task():
    tasks = (twins_tasks.make_task("twins:full", number, RULES) for number in range(40))
    return next(task for task in tasks if task is not None)


def steered(modalities):
    return SimpleNamespace(
        resolution=32,
        modalities=modalities,
        encode=lambda frames, **told: (frames.shape, set(told)),
    )


def test_a_goal_is_where_the_object_would_not_go_by_itself_and_can_be_seen(task):
    rest = task.after(np.zeros((RULES.horizon, 2)))
    assert RULES.far[0] < rest < RULES.far[1]
    place, goal = task.places()
    assert all(RULES.margin < x < 32 - RULES.margin for x in goal)
    assert all(0 < x < 32 for x in place)
    assert task.shown().shape == (RULES.context, 32, 32, 3)
    assert {name: len(x) for name, x in task.told().items()} == dict.fromkeys(
        ("light", "camera", "actions"), RULES.length
    )


def test_an_execution_is_what_the_simulator_does(task):
    act, twin = task.execution()
    frames = np.concatenate([act(np.zeros((8, 2))), act(np.zeros((16, 2)))])
    assert frames.shape == (24, 32, 32, 3)
    assert task.off(twin) == task.after(np.zeros((24, 2)))
    again = twins_tasks.draw(task.run, 32)["frames"]
    resting = not task.run.actions[RULES.context - 1 :].any()
    assert resting or (frames != again[RULES.context :]).any()


def test_what_is_told_typical_masses_is_in_the_same_state_with_others(task):
    simulator = task.simulator.copy()
    for action in (0.5, -0.5):
        simulator.step((action, 0.2))  # so that the hand moves
    known = twins_tasks._typical(simulator)
    true, told = simulator.state(), known.state()
    for name in ("position", "velocity", "angle", "angular_velocity", "hand", "gravity"):
        np.testing.assert_array_equal(told[name], true[name], err_msg=name)
    np.testing.assert_array_equal(known.hand.velocity, simulator.hand.velocity)
    assert {body.mass for body in known.bodies.values()} == {1.0}
    assert {known.objects["restitution"][slot] for slot in known.bodies} == {0.95}
    twin = known.copy()  # and so are its copies
    np.testing.assert_array_equal(twin.hand.velocity, known.hand.velocity)
    np.testing.assert_array_equal(twin.state()["position"], told["position"])


def test_the_plans_of_a_model_are_executed(task, monkeypatch):
    seen = {}

    def pursue(world, scene, goals, act, *, told, seed, look, doubts, choices):
        assert choices == 0
        seen.update(scene=scene, goals=goals, told=set(told), look=look, doubts=doubts)
        act(np.zeros((10, 2), np.float32))
        act(np.zeros((14, 2), np.float32))

    monkeypatch.setattr(planning, "pursue", pursue)
    done = judge_planning.execute(steered(("actions", "camera")), task, 0)
    assert done.known and done.frames.shape == (25, 32, 32, 3)
    assert done.off == task.after(np.zeros((24, 2)))
    assert seen["scene"] == ((16, 32, 32, 3), {"actions", "camera"})
    assert seen["told"] == {"camera"}
    assert (seen["look"], seen["doubts"]) == (RULES.look, RULES.doubts)
    (goal,) = seen["goals"]
    assert (goal.frame, goal.position) == (24, task.places()[1])


def test_a_hand_on_keys_has_plans_of_keys(monkeypatch):
    tasks = (twins_tasks.make_task("twins:keys", number, RULES) for number in range(40))
    task = next(task for task in tasks if task is not None)
    speed = task.hand.world.hand_speed
    keys = np.array([1, 1, 1, 1, 5, 5, 5, 5, 0, 0], np.int32)
    ways = task.hand.pressed(keys)
    np.testing.assert_allclose(ways[:, 0], speed * np.array([1] * 4 + [-1] * 4 + [0] * 2))
    drawn = task.hand.drawn_of(ways)
    assert drawn.size == task.hand.size(10)
    np.testing.assert_array_equal(task.hand.velocities(drawn, 10), ways)
    assert {name: x.shape for name, x in task.told().items()} == {
        "light": (RULES.length, 3), "camera": (RULES.length, 3),
        "discrete_actions": (RULES.length,),
    }  # fmt: skip
    by_simulator = task.planned_by_simulator(0)
    assert by_simulator < 0.3 * task.after(np.zeros((24, 2)))

    seen = {}

    def pursue(world, scene, goals, act, *, told, seed, look, doubts, choices):
        seen.update(scene=scene, told=set(told), choices=choices)
        act(np.full(24, 5, np.int32))

    monkeypatch.setattr(planning, "pursue", pursue)
    world = steered(("discrete_actions", "camera"))
    done = judge_planning.execute(world, task, 0)
    assert done.off == task.after(task.hand.pressed(np.full(24, 5)))
    assert seen["scene"][1] == {"discrete_actions", "camera"}
    assert seen["told"] == {"camera"} and seen["choices"] == 9
    assert twins_tasks.acts("twins:full") == "actions"


def test_of_what_a_model_does_not_have_the_hand_rests(task, monkeypatch):
    def pursue(*_, **__):
        raise UserError("there is nothing near that place.")

    monkeypatch.setattr(planning, "pursue", pursue)
    done = judge_planning.execute(steered(("actions",)), task, 0)
    assert not done.known and done.off == task.after(np.zeros((24, 2)))


def test_gain_goes_from_rest_to_the_simulator():
    off = {
        "model": np.array([[6.0], [3.0]]),
        "deaf": np.full((2, 1), np.nan),
        "rest": np.array([[10.0], [10.0]]),
        "random": np.array([[12.0, 8.0], [16.0, 4.0]]),
        "typical": np.array([[4.0], [2.0]]),
        "truth": np.array([[1.0], [1.0]]),
    }
    rows = judge_planning.rows_of(off, RULES, None)
    found = {(r["model"], r["metric"]): r for r in rows}
    gain = {model: found[model, "plan_gain"]["value"] for model in off}
    assert gain == {"model": 0.611111, "deaf": None, "rest": 0.0, "random": 0.0,
                    "typical": 0.777778, "truth": 1.0}  # fmt: skip
    assert found["model", "plan_distance"]["value"] == 4.5
    assert found["random", "plan_reached"]["value"] == 0.25
    assert found["deaf", "plan_distance"]["n"] == 0 and found["model", "plan_gain"]["n"] == 2
    frames = np.zeros((25, 32, 32, 3), np.uint8)
    films = [("best", planning_page.Execution(frames, (4.0, 5.0), 6.0, True))]
    report = planning_page.PlanningReport(rows, RULES, ["model", "deaf"], films)
    assert "6" in planning_page.headline(report) and "61%" in planning_page.headline(report)
    assert "not supported" in planning_page.terminal_table(report)
    page = planning_page.section(report)
    assert page.count("data:image/png") == 7 and "<td>–</td>" in page
    deaf = report._replace(tested=["deaf"])
    assert "told no actions" in planning_page.headline(deaf)


def test_the_cross_is_at_the_goal():
    frame = planning_page.marked(np.full((32, 32, 3), 128, np.uint8), (10.0, 20.0))
    ink = np.argwhere((frame == 0).all(-1))
    np.testing.assert_allclose(ink.mean(0), (40, 20), atol=0.5)


@pytest.mark.slow
def test_the_suite_from_scenes_to_a_result():
    run = SimpleNamespace(seed=3, about=lambda samples: {"samples": samples})
    world = SimpleNamespace(name="twins:full")
    report, result = judge_planning.judge_planning({"deaf": run}, world, RULES, "command", 2)
    found = {(r["model"], r["metric"]): r["value"] for r in result["rows"]}
    assert found["truth", "plan_distance"] < found["rest", "plan_distance"]
    assert found["typical", "plan_distance"] < found["rest", "plan_distance"]
    assert found["truth", "plan_gain"] == 1 and found["deaf", "plan_gain"] is None
    assert len(result["scenes"]) == 2 and not report.films
    assert result["protocol"]["episodes"] == 2


@pytest.mark.slow
def test_a_world_without_a_hand_has_no_task():
    run = SimpleNamespace(seed=3)
    with pytest.raises(UserError, match="needs a world with a hand, as twins:full"):
        judge_planning.judge_planning(
            {"deaf": run}, SimpleNamespace(name="twins:motion"), RULES, "command", 2
        )
