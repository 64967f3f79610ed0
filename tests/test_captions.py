"""Scenes from words: what is named is there and nothing else, and it is in the right place."""

import json

import numpy as np
import pytest

from tests.test_world import make_world
from wm_jax import captions, imagine_cli
from wm_jax.errors import UserError


@pytest.fixture(scope="module")
def world():
    return make_world(**{"model.dynamics.pull": 0.02})


def test_a_caption_is_read_as_the_data_set_writes_it():
    found = captions.parse(
        "A red circle, an orange square and a mint triangle, with two bars in front; "
        "gravity pulls left"
    )
    assert found.things == ("red circle", "orange square", "mint triangle")
    assert (found.bars, found.pull) == (2, "left")
    assert captions.parse("a blue box").things == ("blue square",)
    assert captions.parse("a blue ball, with a bar in front").bars == 1


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a red thing", "names no shape"),
        ("a square", "names no colour"),
        ("a red dog", "neither a colour nor a shape"),
        ("with a bar in front", "names no object"),
        ("a red circle; a hand pushes", "a hand cannot be put"),
    ],
)
def test_what_cannot_be_meant_is_said_in_a_sentence(text, says):
    with pytest.raises(UserError, match=says):
        captions.parse(text)


def test_what_is_named_is_in_every_sample_and_the_samples_differ(world):
    scene = captions.imagine(world, "a red circle and a blue triangle", samples=3, seed=1)
    places = []
    for stream in range(3):
        there = world.things(scene, stream)
        assert sorted(t.name for t in there) == ["blue triangle", "red circle"]
        places.append([t.place for t in there])
        assert all(np.hypot(*t.velocity) > 0.3 for t in there)
    assert len({str(p) for p in places}) == 3
    again = captions.imagine(world, "a red circle and a blue triangle", samples=3, seed=1)
    assert [t.place for t in world.things(again, 2)] == places[2]


def test_the_pull_that_is_named_is_the_one_that_acts(world):
    """After eight frames an untrained model's objects have fallen, all the same way."""
    text = "a red circle; gravity pulls down"
    scene = captions.imagine(world, text, samples=2)
    fallen = world.objects(world.rollout(scene, 8).state).speed - world.objects(scene).speed
    there = np.asarray(world.objects(scene).present) > 0.5
    assert (np.asarray(fallen)[there][:, 1] > 1e-3).all()


def test_too_many_objects_and_what_a_model_cannot_do_is_said():
    small = make_world(**{"model.dynamics.slots": 2})
    with pytest.raises(UserError, match="holds 2 objects at most; the caption names 3"):
        captions.imagine(small, "a red circle, a blue circle and a lime circle")
    with pytest.raises(UserError, match="does not take the edit 'gravity'"):
        captions.imagine(small, "a red circle; gravity pulls up")
    with pytest.raises(UserError, match="do not fit into a frame"):
        captions.imagine(small, " and ".join(["a red circle"] * 30))
    with pytest.raises(UserError, match="at least one sample"):
        captions.imagine(small, "a red circle", samples=0)


def test_bars_are_drawn_where_they_are_said_and_nothing_else_is():
    caption = captions.Caption(("red circle",), bars=2)
    for seed in range(20):
        stage = captions._stage(caption, np.random.default_rng(seed))
        frame = captions._drawn(stage, 64)
        assert len(np.unique(frame[0, :, 0])) <= 6
        dark = frame[0, :, 0] < 255 * 0.22
        assert 2 * 8 <= dark.sum() <= 2 * 14
        assert np.diff(dark.astype(int)).clip(0).sum() == 2


def test_the_verb_writes_pictures_and_says_what_it_drew(world, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("wm_jax.world.load", lambda path: world)
    args = ["--model", "runs/a", "--out", str(tmp_path / "o"), "--samples", "2", "--steps", "3"]
    assert imagine_cli.main([*args, "--json", "a lime square"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [len(s) for s in told["samples"]] == [1, 1]
    assert {p.name for p in (tmp_path / "o").iterdir()} == {
        "scenes.png",
        "scenes.gif",
        "scenes.json",
    }
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        imagine_cli.main([*args[:3], str(tmp_path / "file" / "o"), *args[4:], "a lime square"])
    with pytest.raises(UserError, match="at least one frame"):
        imagine_cli.main([*args[:-1], "0", "a lime square"])
