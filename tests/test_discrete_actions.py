"""Discrete actions, from a world whose hand goes by keys to a model that is told which."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data_pipelines import window
from data_pipelines.episode import validate
from data_pipelines.twins import make_episode
from data_pipelines.twins.drives import HELD, KEYS, nearest_key
from tests.test_planning import SIZE as SIDE
from tests.test_planning import Puck, Table
from wm_jax import edit_cli, mesh, models, shapes, telling
from wm_jax.asked import At, choices_of, drawn_of
from wm_jax.config import base_config, change
from wm_jax.constraints import solve
from wm_jax.errors import UserError
from wm_jax.evaluation import counterfactual
from wm_jax.evaluation.protocol import CausalProtocol
from wm_jax.evaluation.twins_world import TwinsWorld
from wm_jax.models.conditioning import Conditioning, flat_size, flatten
from wm_jax.planning import pursue
from wm_jax.shapes import CHOICES, Signal
from wm_jax.world import World

NAME = "discrete_actions"


@pytest.fixture(scope="module")
def episode():
    return make_episode("twins:keys", 2, length=64, resolution=32)


def test_a_hand_on_keys_goes_where_they_say(episode):
    validate(episode)
    keys, actions = episode[NAME], episode["actions"]
    assert keys.dtype == np.int32 and keys.shape == (64,) and len(set(keys.tolist())) > 3
    np.testing.assert_allclose(actions, 1.6 * KEYS[keys], atol=1e-6)
    turns = np.flatnonzero(np.diff(keys)) + 1
    assert len(turns) and not (turns % HELD).any(), "a key is held"
    hand = episode["truth/hand"][:, :2]
    last = keys[HELD - 1 :: HELD][:-1]
    moved = np.diff(hand, axis=0)[HELD - 1 :: HELD]  # by then it has its speed
    free = (last > 0) & (np.abs(hand[HELD::HELD][: len(last)] - 32) < 26).all(1)
    along = (moved[: len(last)] * KEYS[last]).sum(1)[free]
    assert free.sum() > 5 and np.median(along) == pytest.approx(1.6, abs=0.2)


def test_the_nearest_key_is_that_of_the_way_or_none():
    for key, way in enumerate(KEYS):
        assert nearest_key(1.6 * way, 1.6) == key
    assert nearest_key(np.array([[0.2, 0.1], [1.0, -0.1], [3.0, 3.0]]), 1.6).tolist() == [0, 1, 2]


def test_other_worlds_have_none():
    assert NAME not in make_episode("twins:full", 3, length=40, resolution=32)
    with pytest.raises(UserError, match="an episode lacks discrete_actions"):
        window.trim(make_episode("twins:motion", 0, length=8, resolution=32), (NAME,))


def test_windows_and_batches_carry_them(episode):
    cut = window.cut(window.trim(episode, (NAME,)), 8, 16)
    arrays = window.collate([cut, cut])
    batch = mesh.to_batch(arrays)
    signal = batch.conditions.discrete_actions
    assert signal.value.shape == (2, 16, 1) and signal.mask.all()
    np.testing.assert_array_equal(signal.value[0, :, 0], episode[NAME][8:24])
    assert not batch.conditions.actions.mask.any()
    later = shapes.conditions_for_steps(batch.conditions, batch.is_first).discrete_actions
    np.testing.assert_array_equal(later.value[0, 1:, 0], episode[NAME][8:23])
    for wrong in (CHOICES, -1, 0.5):
        with pytest.raises(UserError, match=f"have {wrong:g}; they are whole numbers from 0 to 31"):
            mesh.to_batch(arrays | {NAME: np.full_like(arrays[NAME], wrong)})


def said(*which):
    """Conditions (1, t) of these actions; None: absent."""
    value = jnp.array([[[0.0 if x is None else x] for x in which]])
    there = jnp.array([[x is not None for x in which]])
    return shapes.no_conditions(1, len(which))._replace(discrete_actions=Signal(value, there))


def test_each_has_a_vector_of_its_own_and_an_absent_one_none():
    told = np.asarray(flatten(said(0, 1, 31, None), (NAME,)))[0]
    assert told.shape == (4, flat_size((NAME,))) == (4, CHOICES + 1)
    np.testing.assert_array_equal(told[:3, :CHOICES], np.eye(CHOICES)[[0, 1, 31]])
    assert not told[3].any() and (told[:3, -1] == 1).all()

    net = Conditioning((NAME, "light"), 8)
    params = net.init(jax.random.key(0), said(0))
    heard = np.asarray(net.apply(params, said(0, 1, 2, None, 1)))[0]
    np.testing.assert_array_equal(heard[1], heard[4])
    apart = np.abs(heard[:4, None] - heard[None, :4]).max(-1)
    assert (apart[~np.eye(4, dtype=bool)] > 1e-3).all()


@pytest.fixture(scope="module")
def world():
    sizes = {"embed": 8, "decoder_hidden": 8, "patch": 8, "resolution": 16, "told_width": 8}
    sizes |= {"dynamics.width": 8, "dynamics.hidden": 8, "modalities": (NAME,)}
    config = change(base_config("grid_gru"), {f"model.{k}": v for k, v in sizes.items()})
    model = models.build(config.model)
    frames, first = jnp.zeros((1, 2, 16, 16, 3), jnp.uint8), jnp.array([[True, False]])
    batch = shapes.Batch(frames, first, first | True, shapes.no_conditions(1, 2))
    made = jax.eval_shape(model.init, jax.random.key(0), batch)
    random = np.random.default_rng(0)
    params = jax.tree.map(lambda x: jnp.asarray(0.4 * random.normal(size=x.shape), x.dtype), made)
    return World(model, params, 16, (NAME,), path="runs/keys")


def test_a_world_is_steered_by_numbers(world):
    frames = np.random.default_rng(1).integers(0, 255, (4, 16, 16, 3), np.uint8)
    scene = world.encode(frames, discrete_actions=[1, 1, 2, 0])
    futures = [
        world.rollout(scene, 3, discrete_actions=np.full(3, key)).frames.tobytes() for key in (1, 5)
    ]
    column = world.rollout(scene, 3, discrete_actions=np.full((3, 1), 5)).frames.tobytes()
    silent = world.rollout(scene, 3).frames.tobytes()
    assert column == futures[1] and len({*futures, silent}) == 3
    with pytest.raises(UserError, match="discrete_actions told to runs/keys have 40; they are"):
        world.rollout(scene, 3, discrete_actions=[0, 40, 0])
    with pytest.raises(UserError, match=r"runs/keys is not told actions; it is told discrete_acti"):
        world.rollout(scene, 3, actions=np.zeros((3, 2)))


def test_values_may_come_without_their_last_axis():
    told = telling.conditions({NAME: [3, 1]}, (2, 2), (NAME,), "it")
    assert told.discrete_actions.value[..., 0].tolist() == [[3, 1], [3, 1]]
    with pytest.raises(UserError, match=r"discrete_actions has shape \(3, 1\); give \(2, 1\)"):
        telling.conditions({NAME: [3, 1, 1]}, (1, 2), (NAME,), "it")


def test_the_verb_tells_those_that_act_during_a_step(episode, monkeypatch):
    monkeypatch.setattr("data_pipelines.twins.open_source", lambda *_: [episode])
    source = {"video": None, "data": "d", "split": "test", "episode": 0, "start": 0, "frames": 12}
    _, told, ahead = edit_cli.read(source, (NAME,), 5)
    np.testing.assert_array_equal(told[NAME][:, 0], episode[NAME][:12])
    np.testing.assert_array_equal(ahead[NAME][:, 0], episode[NAME][11:16])


def test_told_another_clips_actions_means_these_too():
    episodes = [make_episode("twins:keys", seed, length=24, resolution=32) for seed in (3, 4, 5)]
    rules = CausalProtocol(resolution=32, context=6, horizon=8, episodes=3, starts=(0,))
    world = TwinsWorld("twins:keys", 32, lambda split, fields: episodes, (NAME,))
    facts = world.clips("test", rules.length, (0,), 3)
    other = counterfactual.acted_otherwise(facts, world, rules)
    keys, others = (
        np.asarray(clips.conditions.discrete_actions.value)[..., 0] for clips in (facts, other)
    )
    np.testing.assert_array_equal(others[:, :5], keys[:, :5])
    np.testing.assert_array_equal(others[:, 5:], np.roll(keys[:, 5:], 1, axis=0))
    np.testing.assert_allclose(other.actions, 1.6 * KEYS[others.astype(int)], atol=1e-6)


class KeyPuck(Puck):
    """Its red thing goes the way of the key."""

    def step(self, params, state, told, frame=None, key=None):
        which = told.discrete_actions.value[:, 0].astype(jnp.int32)
        way = jnp.asarray(KEYS, jnp.float32)[which]
        return super().step(params, state, telling_way(told, way), frame, key)


def telling_way(told, way):
    return told._replace(actions=Signal(way, told.discrete_actions.mask))


class KeyTable(Table):
    """The true world, in which the thing goes half as far."""

    def __call__(self, keys):
        assert keys.dtype == np.int32
        return super().__call__(KEYS[keys])


def test_a_plan_chooses_among_them_and_looks_again():
    world = World(KeyPuck(), {}, SIDE, (NAME,), path="puck")
    begin = KeyTable((16.5, 16.5))(np.zeros(2, np.int32))
    scene = world.encode(begin, discrete_actions=[0, 0])
    goal = (20.5, 12.5)  # up and to the right
    table = KeyTable((16.5, 16.5))
    done = pursue(world, scene, [At("red", 24, goal)], table, choices=len(KEYS))
    assert done.actions.shape == (24,) and set(done.actions) <= set(range(len(KEYS)))
    assert table.asked == [8, 8, 8] and done.promised[0][0].met
    # Three plans that each do half of what they promise leave 5/16 of the way; one leaves 1/2.
    off, way = np.linalg.norm(table.place - goal), np.linalg.norm(np.subtract(goal, 16.5))
    assert off < 0.35 * way

    found = solve(world, scene, [At("red", 12, goal)], NAME, choices=len(KEYS))
    assert found.met and not found.changes
    clip = world.rollout(found.scene, 12, discrete_actions=found.actions)
    place = SIDE * np.asarray(clip.objects.place)[0, -1, 0]
    assert np.linalg.norm(place - goal) == pytest.approx(found.reports[0].off, abs=1e-3)
    again = solve(world, scene, [At("red", 12, goal)], NAME, first=found.actions, choices=9)
    assert again.reports[0].off <= found.reports[0].off

    for ask, says in (
        (lambda: solve(world, scene, [At("red", 3, goal)], NAME), "choices=0: say how many there"),
        (lambda: solve(world, scene, [At("red", 3, goal)], NAME, choices=33), "2 to 32"),
        (lambda: solve(world, scene, [At("red", 3, goal)], "actions"), "puck is not told actions"),
        (
            lambda: solve(world, scene, [At("red", 3, goal)], NAME, choices=9, method="gradient"),
            "does not search over='discrete_actions'",
        ),
    ):
        with pytest.raises(UserError, match=says):
            ask()


def test_choices_and_what_is_searched_for_them_say_the_same():
    drawn = np.array([[0.1, 0.9, 0.2, 0.5, 0.4, 0.3], [2, 1, 0, 0, 1, 2]], np.float32)
    which = choices_of(drawn, 6, 3)
    assert which.tolist() == [[1, 1, 1, 1, 0, 0], [0, 0, 0, 0, 2, 2]]
    np.testing.assert_array_equal(choices_of(drawn_of(which[0], 3), 6, 3), which[0])
