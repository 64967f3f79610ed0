"""A plan that looks again on the way gets where one that trusts its model does not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wm_jax import naming, shapes
from wm_jax.asked import At, Meet, actions_of, knot_count, knots_of
from wm_jax.constraints import solve
from wm_jax.edit import Objects
from wm_jax.errors import UserError
from wm_jax.planning import LOOK, pursue
from wm_jax.search import cross_entropy, descend
from wm_jax.world import World

SIZE = 32


class Puck:
    """A model of one red thing that goes as far as the action says, in px of 64; frames show where
    it is as the brightest pixel."""

    def initial(self, params, batch):
        place = jnp.full((batch, 1, 2), 0.5)
        return shapes.LatentState(place, place, None, jnp.zeros(batch, jnp.int32))

    def step(self, params, state, told, frame=None, key=None):
        place = state.carry + told.actions.value[:, None] / 64
        if frame is not None:
            spot = jnp.argmax(frame[..., 0].reshape(len(frame), -1), 1)
            place = (jnp.stack([spot % SIZE, spot // SIZE], -1)[:, None] + 0.5) / SIZE
        return state._replace(carry=place, tokens=place, step=state.step + 1)

    def decode(self, params, state, key=None):
        return jnp.zeros((state.carry.shape[0], SIZE, SIZE, 3))

    def nudged(self, params, state, place, speed):
        return state._replace(carry=state.carry + place, tokens=state.tokens + place)

    def objects(self, params, state):
        one = jnp.ones(state.carry.shape[:2])
        colour = jnp.broadcast_to(naming.colour_of("red"), (*one.shape, 3))
        coverage = jnp.ones((*one.shape, 4, 4))
        return Objects(state.carry, 0 * state.carry, one, colour, coverage, one)


class Ledge(Puck):
    """What goes too far to the right falls off."""

    def step(self, params, state, told, frame=None, key=None):
        state = super().step(params, state, told, frame, key)
        x, y = state.carry[..., 0], state.carry[..., 1]
        place = jnp.stack([jnp.where(x > 20 / SIZE, 1.0, x), y], -1)
        return state._replace(carry=place, tokens=place)


class Table:
    """The true world, in which everything goes half as far as the model thinks."""

    def __init__(self, place):
        self.place, self.asked = np.array(place, float), []

    def __call__(self, actions):
        self.asked.append(len(actions))
        return np.stack([self.after(action) for action in actions])

    def after(self, action):
        self.place += 0.5 * action * SIZE / 64
        frame = np.zeros((SIZE, SIZE, 3), np.uint8)
        column, row = np.clip(self.place.astype(int), 0, SIZE - 1)
        frame[row, column, 0] = 255
        return frame


@pytest.fixture(scope="module")
def world():
    return World(Puck(), {}, SIZE, ("actions", "camera"), path="puck")


@pytest.fixture(scope="module")
def scene(world):
    return world.encode(Table((16.5, 16.5))(np.zeros((2, 2))), actions=np.zeros((2, 2)))


def test_a_plan_that_looks_again_gets_nearer(world, scene):
    goal, steps = (24.5, 12.5), 3 * LOOK
    table = Table((16.5, 16.5))
    done = pursue(world, scene, [At("red", steps, goal)], table)
    assert table.asked == [LOOK] * 3 and done.actions.shape == (steps, 2)
    assert len(done.promised) == 3 and done.promised[0][0].met
    blind = Table((16.5, 16.5))
    trusted = solve(world, scene, [At("red", steps, goal)], "actions").actions
    blind(trusted)
    off, blindly = (np.linalg.norm(t.place - goal) for t in (table, blind))
    # Three plans that each do half of what they promise leave 5/16 of the way; one leaves 1/2.
    assert off < 0.75 * blindly
    # The scene that is handed back has seen the last frame.
    seen = SIZE * np.asarray(world.objects(done.scene).place)[0, 0]
    np.testing.assert_allclose(seen, table.place, atol=0.6)


def test_goals_that_are_over_are_left_behind(world, scene):
    table = Table((16.5, 16.5))
    goals = [At("red", 4, (17.5, 16.5)), Meet("red", "red", by=LOOK + 3)]
    done = pursue(world, scene, goals, table, told={"camera": np.zeros((LOOK + 3, 3))})
    assert table.asked == [LOOK, 3]
    assert [len(reports) for reports in done.promised] == [2, 1]


def test_whom_a_goal_is_about_is_settled_at_the_start(world, scene):
    """Named by the point where it is, it is still meant when it has left that point."""
    table, goal = Table((16.5, 16.5)), (26.5, 16.5)
    done = pursue(world, scene, [At((16.5, 16.5), 3 * LOOK, goal)], table)
    assert len(done.promised) == 3 and all(reports[0].met for reports in done.promised[:2])
    assert table.place[0] > 21


def test_what_cannot_be_pursued_is_said_before_anything_is_done(world, scene):
    table = Table((16.5, 16.5))
    with pytest.raises(UserError, match="there is no green"):
        pursue(world, scene, [At("green", 4, (3.0, 3.0))], table)
    with pytest.raises(UserError, match="no constraint"):
        pursue(world, scene, [], table)
    assert table.asked == []


def test_actions_are_smooth_and_known_by_their_knots():
    knots = np.array([0.0, 0.0, 1.0, -1.0, 9.0, 0.5], np.float32)
    actions = actions_of(knots, 9)
    assert knot_count(9) == 3
    np.testing.assert_allclose(actions[:5, 0], [0, 0.25, 0.5, 0.75, 1.0])
    assert actions.max() == pytest.approx(1.6)  # no hand is asked for more
    short = actions_of(np.zeros(2 * knot_count(1)), 1)
    assert short.shape == (1, 2)
    for steps in (1, 4, 6, 9):
        some = 0.3 * np.random.default_rng(steps).normal(size=2 * knot_count(steps))
        np.testing.assert_allclose(knots_of(actions_of(some, steps))[:2], some[:2], atol=1e-6)


def test_the_search_finds_the_least_and_is_never_worse_than_its_start():
    aim = np.array([0.7, -1.2, 0.1], np.float32)
    found = cross_entropy(lambda x: np.square(x - aim).sum(-1), 3, 1.0, seed=3)
    np.testing.assert_allclose(found, aim, atol=0.05)
    kept = cross_entropy(lambda x: np.square(x - aim).sum(-1), 3, 1.0, first=aim, rounds=1)
    np.testing.assert_array_equal(kept, aim)


def test_watching_on_is_watching_all_of_it(world):
    frames = Table((10.5, 10.5))(np.ones((6, 2)))
    actions = np.ones((6, 2), np.float32)
    whole = world.encode(frames, actions=actions)
    part = world.watch(
        world.encode(frames[:4], actions=actions[:4]), frames[4:], actions=actions[:2]
    )
    jax.tree.map(np.testing.assert_array_equal, whole.carry, part.carry)
    assert int(part.step[0]) == 6


def test_a_plan_that_doubts_keeps_away_from_where_little_makes_much():
    world = World(Ledge(), {}, SIZE, ("actions",), path="ledge")
    begin = Table((16.5, 16.5))(np.zeros((2, 2)))
    scene = world.encode(begin, actions=np.zeros((2, 2)))
    rng = np.random.default_rng(5)
    wrong = [(0.3 / 64 * rng.normal(size=(1, 1, 2)), np.zeros((1, 1, 2))) for _ in range(32)]

    def falls(doubts):
        goal = [At("red", 6, (20.0, 16.5))]
        found = solve(world, scene, goal, "actions", doubts=doubts)
        assert found.reports[0].off < (0.3 if doubts == 1 else 4.0)  # as the model believes it
        ends = []
        for by in wrong:
            there = world.model.nudged({}, scene, *map(np.float32, by))
            clip = world.rollout(there, 6, actions=found.actions)
            ends.append(np.asarray(clip.objects.place)[0, -1, 0, 0] == 1.0)
        return np.mean(ends)

    trusting, doubting = falls(1), falls(16)
    assert trusting > 0.2 and doubting < trusting / 2, (trusting, doubting)


def test_a_gradient_finds_the_way_too(world, scene):
    goal = [At("red", LOOK, (20.5, 12.5)), Meet("red", "red", by=2)]
    for method in ("cem", "gradient"):
        found = solve(world, scene, goal, "actions", method=method)
        assert found.met, method
        clip = world.rollout(scene, LOOK, actions=found.actions)
        end = SIZE * np.asarray(clip.objects.place)[0, -1, 0]
        np.testing.assert_allclose(end, (20.5, 12.5), atol=1.0)
    with pytest.raises(UserError, match="does not search over='actions'"):
        solve(world, scene, goal, "actions", method="newton")
    with pytest.raises(UserError, match="at least one scene"):
        solve(world, scene, goal, "actions", doubts=0)


def test_a_descent_goes_down_and_keeps_the_best_that_it_saw():
    aim = np.array([0.3, -0.4], np.float32)
    found = descend(lambda x: (np.square(x - aim).sum(-1), 2 * (x - aim)), 2, 1.0)
    np.testing.assert_allclose(found, aim, atol=0.1)
    away = descend(lambda x: (np.square(x - aim).sum(-1), -(x - aim)), 2, 1.0, first=aim)
    np.testing.assert_array_equal(away, aim)
