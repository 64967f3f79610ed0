"""Every sentence that the data set says of a change is understood, and others are refused."""

import numpy as np
import pytest

from data_pipelines.twins import KINDS, Simulator, sample_intervention
from data_pipelines.twins.scene import draw_scene
from data_pipelines.twins.world import HUES, SHAPES, get_world
from wm_jax import edit, naming, sentences
from wm_jax.edit import Add, Camera, Gravity, Light, Move, Push, Recolour, Remove
from wm_jax.errors import UserError
from wm_jax.naming import Thing

SCENE = [
    Thing(0, "red", "circle", (20.0, 30.0), (0.0, 0.0), (0.77, 0.08, 0.08)),
    Thing(1, "blue", "square", (50.0, 30.0), (0.0, 0.0), (0.08, 0.08, 0.77)),
]


def parse(sentence, resolution=64, gain=1.0):
    return sentences.parse(sentence, SCENE, resolution, gain)


@pytest.mark.parametrize(
    ("sentence", "change"),
    [
        ("the red circle is pushed left", Push("the red circle", (-2.0, 0.0))),
        ("The red ball is pushed to the right by 3.", Push("the red ball", (3.0, 0.0))),
        ("red is moved up by 12", Move(0, (20.0, 18.0))),
        ("the blue square is moved right", Move(1, (60.0, 30.0))),
        ("the blue square is moved to (8, 9.5)", Move(1, (8.0, 9.5))),
        ("the red circle turns azure", Recolour("the red circle", "azure")),
        ("the red circle disappears", Remove("the red circle")),
        ("the blue box is removed", Remove("the blue box")),
        ("a pink triangle appears at the top left", Add("a pink triangle", (64 / 6, 64 / 6))),
        ("a pink triangle appears in the middle", Add("a pink triangle", (32.0, 32.0))),
        ("the camera moves down and zooms in", Camera((0.0, 6.0), 1.15)),
        ("the camera zooms out", Camera((0.0, 0.0), 1 / 1.15)),
        ("gravity now pulls left", Gravity((-0.03, 0.0))),
        ("the red ball is pushed by (1.5, -0.25)", Push("the red ball", (1.5, -0.25))),
        ("a red box of 5 px appears at the left", Add("a red box", (64 / 6, 32.0), radius=5.0)),
        (
            "a red box of 5.5 px appears at (8, 9) and moves by (-1, 0.5)",
            Add("a red box", (8.0, 9.0), (-1.0, 0.5), 5.5),
        ),
        ("a red box appears at (8, 9)", Add("a red box", (8.0, 9.0))),
        ("the light goes to 0.6", Light(0.6)),
        ("the light goes to 0.6 with a gradient of (0.1, -0.05)", Light(0.6, (0.1, -0.05))),
        ("the camera moves by (3, -1)", Camera((3.0, -1.0))),
        ("the camera moves by (3, -1) and zooms 1.1 times", Camera((3.0, -1.0), 1.1)),
        ("gravity pulls by (0.01, -0.02)", Gravity((0.01, -0.02))),
    ],
)
def test_what_a_sentence_means(sentence, change):
    assert parse(sentence) == change


def test_lengths_go_with_the_frame_and_light_with_the_light():
    assert parse("red is pushed up", 128) == Push("red", (0.0, -4.0))
    assert parse("the light gets dimmer", gain=0.8) == Light(gain=pytest.approx(0.6))
    assert parse("the light gets brighter", gain=0.6) == Light(gain=pytest.approx(0.8))


def test_every_sentence_of_the_data_set_is_of_its_kind_and_object():
    heard = set()
    for seed in range(12):
        scene = draw_scene(get_world("full"), seed)
        state = Simulator(scene).state()
        there = [
            Thing(int(i), HUES[state["hue"][i]], SHAPES[state["shape"][i]],
                  tuple(state["position"][i].tolist()), (0.0, 0.0),
                  tuple(naming.colour_of(HUES[state["hue"][i]]).tolist()))
            for i in np.flatnonzero(state["present"])
        ]  # fmt: skip
        for kind in KINDS:
            said = sample_intervention(kind, 0, scene, state, np.random.default_rng(seed))
            if said is None:
                continue
            change = sentences.parse(said.sentence, there, 64, 0.8)
            assert edit.kind_of(change) == kind
            if kind in ("move", "push", "recolour", "remove"):
                assert naming.choose(change.what, there, 64).slot == said.target
            if kind == "recolour":
                assert change.colour == HUES[int(said.params[0])]
            if kind in ("push", "gravity"):
                way = np.asarray(change.velocity if kind == "push" else change.pull)
                assert way @ said.params[:2] > 0.7 * np.linalg.norm(way) * np.linalg.norm(
                    said.params[:2]
                )
            heard.add(kind)
    assert heard == set(KINDS)


@pytest.mark.parametrize(
    "sentence", ["the red ball", "push the red ball", "the red circle is pushed away", ""]
)
def test_what_is_no_sentence_is_refused_with_examples(sentence):
    with pytest.raises(UserError, match="is no sentence that is known here; try 'the red circle"):
        parse(sentence)


def test_a_change_survives_json():
    for change in (Push((3.0, 4.0), (1.0, 0.0)), Light(gain=0.5), Add("a red ball", (1.0, 2.0))):
        assert edit.from_json(edit.to_json(change)) == change
    with pytest.raises(UserError, match="there is no edit 'shove'"):
        edit.from_json({"kind": "shove"})
    with pytest.raises(UserError, match="'push' takes what, velocity"):
        edit.from_json({"kind": "push", "whom": "red"})


def test_what_a_sentence_calls_by_its_colour_is_there():
    sentences.check_named("the hand pushes the red circle", SCENE, 64)
    sentences.check_named("the red and the blue one meet a lime square", SCENE, 64)
    with pytest.raises(UserError, match="there is no lime"):
        sentences.check_named("the lime square is shy", SCENE, 64)
