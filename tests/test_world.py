"""A scene is edited by name, in pixels, and what cannot be done is said in a sentence."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import wm_jax
from tests.models.test_grid_slots import BLUE, RED, SIZE, SMALL, TIME, clip, draw
from wm_jax import edit_cli, models, shapes
from wm_jax.config import base_config, change
from wm_jax.edit import Add, Camera, Light, Move, Push, Recolour, Remove
from wm_jax.errors import UserError
from wm_jax.export import export
from wm_jax.timeline import Timeline, read
from wm_jax.world import World


def make_config(**changes):
    return change(base_config(), {**SMALL, "eval.context": TIME, **changes})


def make_world(**changes):
    config = make_config(**changes)
    model = models.build(config.model)
    first = jnp.zeros((1, 2), bool).at[:, 0].set(True)
    frames = jnp.zeros((1, 2, SIZE, SIZE, 3), jnp.uint8)
    batch = shapes.Batch(frames, first, jnp.ones((1, 2), bool), shapes.no_conditions(1, 2))
    params = jax.jit(model.init)(jax.random.key(0), batch)
    return World(
        model, params, SIZE, tuple(config.model.modalities), context=TIME, path="runs/a", updates=7
    )


@pytest.fixture(scope="module")
def world():
    return make_world()


@pytest.fixture(scope="module")
def lit():
    """One that is told light and camera."""
    return make_world(**{"model.modalities": ("light", "camera")})


@pytest.fixture(scope="module")
def scene(world):
    return world.encode(clip()[0])


def named(world, scene, stream=0):
    return {thing.hue: thing for thing in world.things(scene, stream)}


def test_things_have_names_places_and_velocities(world, scene):
    there = named(world, scene)
    assert set(there) == {"red", "blue"}
    assert there["red"].name == "red square"
    assert there["red"].place == pytest.approx((8 + TIME - 1, 8), abs=0.6)
    assert there["red"].velocity == pytest.approx((1.0, 0.0), abs=0.3)
    assert there["blue"].place == pytest.approx((20, 24), abs=0.6)


def test_edits_are_in_pixels_and_leave_the_old_scene_alone(world, scene):
    before = named(world, scene)
    fork = world.edit(scene, [Push("red box", (0.0, 2.0)), Move("blue", (5.0, 6.0))])
    after = named(world, fork)
    assert named(world, scene) == before
    assert after["blue"].place == pytest.approx((5.0, 6.0), abs=1e-3)
    pushed = np.subtract(after["red"].velocity, before["red"].velocity)
    np.testing.assert_allclose(pushed, (0.0, 2.0), atol=1e-3)
    assert set(named(world, world.edit(scene, Remove((20.0, 24.0))))) == {"red"}
    assert set(named(world, world.edit(scene, Recolour("blue", "green")))) == {"red", "green"}
    added = world.edit(scene, Add("a pink ball", (26.0, 6.0), velocity=(0.5, 0.0)))
    pink = named(world, added)["pink"]
    assert pink.place == pytest.approx((26.0, 6.0), abs=0.1)
    assert pink.velocity == pytest.approx((0.5, 0.0), abs=1e-3)


def test_a_sentence_is_the_change_it_means(world, scene):
    said = world.edit(scene, "the red box is pushed down by 2")
    done = world.edit(scene, Push("red box", (0.0, 2.0)))
    jax.tree.map(np.testing.assert_array_equal, said, done)


def test_in_a_batch_names_mean_what_is_there(world):
    other = np.stack([draw([(24 - t, 20, RED), (8, 8, BLUE)]) for t in range(TIME)])
    scenes = world.encode(np.stack([clip()[0], other]))
    fork = world.edit(scenes, Move("red", (16.0, 16.0)))
    for stream in range(2):
        assert named(world, fork, stream)["red"].place == pytest.approx((16.0, 16.0), abs=1e-3)
        blue = [named(world, s, stream)["blue"].place for s in (scenes, fork)]
        assert blue[0] == blue[1]


def test_a_future_in_two_parts_is_the_future_in_one_and_text_is_said_in_time(world, scene):
    whole = world.rollout(scene, 4)
    first = world.rollout(scene, 2)
    second = world.rollout(first.state, 2)
    assert whole.frames.shape == (1, 4, SIZE, SIZE, 3) and whole.frames.dtype == np.uint8
    np.testing.assert_array_equal(whole.frames[:, 2:], second.frames)
    assert whole.objects.place.shape == (1, 4, 3, 2)
    told = world.rollout(scene, 4, text={2: "the red box disappears"})
    np.testing.assert_array_equal(told.frames[:, :2], whole.frames[:, :2])
    assert set(named(world, told.state)) == {"blue"}


def test_light_and_camera_hold_until_told_otherwise(lit):
    told = {"light": np.tile([0.8, 0, 0], (TIME, 1)), "camera": np.zeros((TIME, 3))}
    scene = lit.encode(clip()[0], **told)
    np.testing.assert_allclose(scene.pending.light.value, [[0.8, 0, 0]])
    dim = lit.edit(scene, [Light(gain=0.6), Camera(pan=(2.0, 0.0)), Camera(zoom=2.0)])
    np.testing.assert_allclose(dim.pending.light.value, [[0.6, 0, 0]])
    np.testing.assert_allclose(dim.pending.camera.value, [[2.0, 0, np.log(2)]], rtol=1e-6)
    np.testing.assert_allclose(
        lit.edit(scene, "the light gets dimmer").pending.light.value[0, 0], 0.6
    )
    same = lit.rollout(scene, 2, light=np.tile([0.8, 0, 0], (2, 1)))
    np.testing.assert_array_equal(lit.rollout(scene, 2).frames, same.frames)
    after = lit.rollout(dim, 2)
    np.testing.assert_allclose(after.state.pending.light.value, [[0.6, 0, 0]])
    by_path = lit.rollout(
        scene, 2, light=np.tile([0.6, 0, 0], (2, 1)), camera=np.tile([2, 0, np.log(2)], (2, 1))
    )
    np.testing.assert_array_equal(after.frames, by_path.frames)


def test_what_cannot_be_done_is_said(world, lit, scene):
    grey = np.zeros((TIME, SIZE, SIZE, 3), np.uint8)
    for act, said in (
        (
            lambda: world.edit(scene, "the green ball disappears"),
            "there is no green ball; there is",
        ),
        (lambda: world.edit(scene, Push("box", (1.0, 0.0))), "'box' could be the red square at"),
        (lambda: world.edit(scene, Move("red", (40.0, 3.0))), r"place \(40, 3\) is outside"),
        (lambda: world.edit(scene, Light(gain=0.5)), "runs/a cannot make the edit 'light': it was"),
        (lambda: world.edit(scene, Add("ball", (3.0, 3.0))), "'ball' names no colour"),
        (lambda: world.edit(scene, Recolour("red", "beige")), "'beige' is no colour"),
        (lambda: lit.edit(lit.encode(grey), Camera(zoom=0.0)), "a zoom of 0 shows nothing"),
        (lambda: world.rollout(scene, 0), "at least one step"),
        (lambda: world.rollout(scene, 2, text={2: "red disappears"}), "text at frame 2 is outside"),
        (lambda: world.rollout(scene, 2, light=np.zeros((2, 3))), "is not told light; it is told"),
        (lambda: lit.rollout(lit.encode(grey), 2, light=np.zeros((3, 3))), r"give \(2, 3\)"),
        (lambda: world.rollout(scene, 2, wind=np.zeros((2, 3))), "nothing called 'wind'"),
        (lambda: world.encode(grey.astype(np.float32)), "give uint8"),
        (lambda: world.encode(grey[:, :16]), "takes .32, 32, 3.; resize"),
    ):
        with pytest.raises(UserError, match=said):
            act()


def test_a_backbone_without_slots_has_no_things_and_takes_no_edits():
    config = change(base_config(), {"model.name": "grid_gru"})
    world = World(models.build(config.model), {}, config.model.resolution, path="runs/b")
    assert world.edits == ()
    with pytest.raises(UserError, match="cannot make the edit 'push': its state has none"):
        world.edit(
            shapes.LatentState((), jnp.zeros((1, 1, 1)), None, jnp.zeros(1)), Push("a", (1, 1))
        )


def test_an_export_is_the_same_world(world, scene, tmp_path):
    params = jax.tree.map(lambda x: x.astype(jnp.float16).astype(jnp.float32), world.params)
    export(
        world.model, params, tmp_path / "a", resolution=SIZE, context=TIME,
        config=make_config().to_dict(), card="",
    )  # fmt: skip
    loaded = wm_jax.load(tmp_path / "a")
    rounded = World(world.model, params, SIZE)
    assert loaded.digest() == rounded.digest() != world.digest()
    mine, theirs = (w.rollout(w.encode(clip()[0]), 2).frames for w in (loaded, rounded))
    np.testing.assert_array_equal(mine, theirs)
    (tmp_path / "a" / "model.safetensors").write_bytes(b"other")
    with pytest.raises(UserError, match="was changed since the export"):
        wm_jax.load(tmp_path / "a")


def test_what_is_no_model_is_said(tmp_path):
    with pytest.raises(UserError, match=str(tmp_path)):
        wm_jax.load(tmp_path)


@pytest.fixture
def line(world):
    line = Timeline(world, clip()[0], source={"video": "mine.npy"})
    line.play(4)
    return line


def test_branches_share_their_past_and_nothing_else(world, line):
    line.fork("pushed", at=1)
    line.edit("the red box is pushed down by 2", "pushed")
    line.play(3, "pushed")
    away = line.compare("main", "pushed")
    red = f"slot {named(world, line.branch().scenes[0])['red'].slot}"
    np.testing.assert_allclose(away[red], [0, 0, 2, 4, 6], atol=0.5)
    blue = f"slot {named(world, line.branch().scenes[0])['blue'].slot}"
    np.testing.assert_array_equal(away[blue], 0)
    assert away["pixels"][:2].max() == 0 < away["pixels"][2]


def test_a_rewound_branch_forgets(line):
    before = [frame.copy() for frame in line.branch().frames]
    line.rewind(2)
    line.edit("blue disappears")
    line.rewind(2)
    line.play(2)
    np.testing.assert_array_equal(np.stack(line.branch().frames), np.stack(before))
    assert line.branch().edits == []


def test_a_timeline_is_replayed_to_the_bit(world, line, tmp_path):
    line.fork("other", at=2)
    line.edit(["the red box turns green", Push("green", (1.0, 1.0))], "other")
    line.play(2, "other")
    line.fork("third", "other")
    line.edit("blue disappears", "third")
    line.save(tmp_path / "timeline.json")
    saved = read(tmp_path / "timeline.json")
    again = Timeline.replay(saved, world, clip()[0])
    assert list(again.branches) == ["main", "other", "third"]
    assert again.differs(saved) == []
    assert json.loads(json.dumps(again.to_json())) == saved
    again.branch("other").frames[-1] = again.branch("other").frames[-1] + 1
    assert again.differs(saved) == ["other"]


def test_a_replay_from_something_else_is_refused(world, lit, line):
    saved = line.to_json()
    with pytest.raises(UserError, match="runs/a has other weights"):
        Timeline.replay(saved, lit, clip()[0])
    with pytest.raises(UserError, match="began with other frames"):
        Timeline.replay(saved, world, clip()[0][::-1])
    with pytest.raises(UserError, match="format 9"):
        Timeline.replay({**saved, "format": 9}, world, clip()[0])
    for act, said in (
        (lambda: line.fork("main"), "a branch 'main' already"),
        (lambda: line.play(1, "mian"), "there is no branch 'mian'; there are main"),
        (lambda: line.rewind(9), "frame 9 is not of this branch, which ends at 4"),
    ):
        with pytest.raises(UserError, match=said):
            act()


def test_the_verb_draws_both_futures_and_makes_them_again(world, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("wm_jax.world.load", lambda path: world)
    np.save(tmp_path / "mine.npy", clip()[0])
    base = ["--model", "runs/a", "--video", str(tmp_path / "mine.npy")]
    assert edit_cli.main([*base, "--json"]) == 0
    assert {"red square", "blue square"} == {t["name"] for t in json.loads(capsys.readouterr().out)}
    said = ["the red box is pushed down by 2", "2: the blue box disappears"]
    assert edit_cli.main([*base, *said, "--steps", "4", "--out", str(tmp_path / "out")]) == 0
    assert "red square" in capsys.readouterr().out
    for name in ("futures.png", "futures.gif", "timeline.json"):
        assert (tmp_path / "out" / name).is_file()
    replay = ["--replay", str(tmp_path / "out" / "timeline.json")]
    assert edit_cli.main([*replay, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["differing"] == []
    np.savez(tmp_path / "other.npz", pictures=clip()[0])
    (tmp_path / "part.json").write_text('{"checkpoint": {}}')
    for more, wrong in (
        (["--model", "runs/a", "--video", str(tmp_path / "other.npz")], "and no array 'frames'"),
        (["--replay", str(tmp_path / "part.json")], "is no timeline"),
        (["--replay", str(tmp_path / "mine.npy")], "is no JSON"),
        ([*base, "the green ball disappears", "--out", "x"], "there is no green ball"),
        ([*base, said[0]], "--out is missing"),
        ([*base, "9: red disappears", "--steps", "4", "--out", "x"], "is said after the last of 4"),
        ([*base, "--frames", "0"], "--frames is 0; it is at least 1"),
        ([*base, "--frames", "-3"], "--frames is -3"),
        ([*base, "red disappears", "--steps", "0", "--out", "x"], "--steps is 0"),
        (["--video", "x"], "--model is missing"),
        (["--model", "runs/a"], "give --data"),
        (["--model", "runs/a", "--video", str(tmp_path / "none.npy")], "cannot be read"),
        (["--replay", str(tmp_path / "none.json")], "does not exist"),
    ):
        with pytest.raises(UserError, match=wrong):
            edit_cli.main(more)
