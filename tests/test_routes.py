"""Three ways to a change: into the state, told to the next step, and in words."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data_pipelines.twins import make_group
from tests.models.quick import random_variables
from wm_jax import edit_cli, export, export_loader, models, shapes, words
from wm_jax.config import base_config, change
from wm_jax.edit import Gravity, Move, Push, Remove, as_vector, no_edits
from wm_jax.errors import UserError
from wm_jax.models.conditioning import Conditioning, TextEncoder, dropped, one_of_said
from wm_jax.timeline import Timeline, read
from wm_jax.world import World, pixels

SIZE = 16
TOLD = {
    "model.resolution": SIZE,
    "model.patch": 8,
    "model.embed": 8,
    "model.decoder_hidden": 8,
    "model.dynamics.width": 8,
    "model.dynamics.hidden": 8,
    "model.told_width": 8,
    "model.modalities": ("intervention", "text", "light"),
}


def make(name="grid_gru", **changes):
    config = change(base_config(name), {**TOLD, **changes})
    model = models.build(config.model)
    first = jnp.zeros((1, 2), bool).at[:, 0].set(True)
    frames = jnp.zeros((1, 2, SIZE, SIZE, 3), jnp.uint8)
    batch = shapes.Batch(frames, first, ~first | True, shapes.no_conditions(1, 2))
    made = jax.eval_shape(model.init, jax.random.key(0), batch)
    random = np.random.default_rng(0)
    params = jax.tree.map(lambda x: jnp.asarray(0.4 * random.normal(size=x.shape), x.dtype), made)
    return World(model, params, SIZE, tuple(config.model.modalities), path="runs/told")


@pytest.fixture(scope="module")
def world():
    return make()


@pytest.fixture(scope="module")
def scene(world):
    frames = np.random.default_rng(1).integers(0, 255, (3, SIZE, SIZE, 3), np.uint8)
    return world.encode(frames)


def future(world, scene, **told):
    return world.rollout(scene, 4, **told).frames[0].astype(int)


def test_a_change_waits_for_the_next_step_and_is_said_once(world, scene):
    assert world.routes == ("trained", "text")
    told = world.edit(scene, Push("red ball", (2.0, 0.0)))
    assert told.pending.intervention.mask.all()
    np.testing.assert_array_equal(world.decode(told), world.decode(scene))
    assert (future(world, told) != future(world, scene)).any()
    after, _, _ = world.advance(told)
    assert not after.pending.intervention.mask.any()


def test_the_same_change_by_hand_is_the_same_future(world, scene):
    edits = no_edits(1)
    edits.kind[:], edits.named[:], edits.speed[:] = 1, (1, 0, 0), (2 / SIZE, 0)
    told = shapes.no_conditions(1)
    vector = as_vector(edits)
    said = world.edit(scene, Push("red circle", (2.0, 0.0))).pending.intervention.value
    assert np.abs(np.asarray(said) - vector).max() < 0.3  # its red is the world's, not pure
    told = told._replace(intervention=shapes.Signal(said, jnp.ones(1, bool)))
    by_hand, _, _ = world.advance(scene, told)
    edited, _, _ = world.advance(world.edit(scene, Push("red circle", (2.0, 0.0))))
    np.testing.assert_array_equal(by_hand.tokens, edited.tokens)


def test_a_push_by_nothing_is_not_said(world, scene):
    told = world.edit(scene, Push("red ball", (0.0, 0.0)))
    assert not told.pending.intervention.mask.any()
    np.testing.assert_array_equal(future(world, told), future(world, scene))


def test_a_second_change_before_the_first_was_heard_is_refused(world, scene):
    push, words_ = Push("red ball", (2.0, 0.0)), "the red circle disappears"
    for changes in ([push, push], [words_, words_]):
        with pytest.raises(UserError, match="hears one change a step, and one is waiting"):
            world.edit(scene, changes)
    later, _, _ = world.advance(world.edit(scene, push))
    assert world.edit(later, push).pending.intervention.mask.all()


def test_other_words_are_another_future(world, scene):
    futures = [
        future(world, world.edit(scene, sentence)).tobytes()
        for sentence in ("the red circle disappears", "the blue circle disappears")
    ]
    assert len({*futures, future(world, scene).tobytes()}) == 3
    by_name = world.edit(scene, "the red circle disappears", route="text")
    assert future(world, by_name).tobytes() == futures[0]
    assert np.asarray(by_name.pending.text.value[0, :2]).tolist() == [
        1 + words.VOCABULARY.index("the"),
        1 + words.VOCABULARY.index("red"),
    ]


def test_text_during_a_rollout_and_light_that_holds(world, scene):
    lit = world.edit(scene, Gravity((0.0, 0.1)))
    clip = future(world, scene, text={2: "the red circle disappears"})
    plain = future(world, scene)
    np.testing.assert_array_equal(clip[:2], plain[:2])
    assert (clip[2:] != plain[2:]).any()
    assert (future(world, lit) != plain).any()
    watched = world.watch(lit, np.zeros((2, SIZE, SIZE, 3), np.uint8))
    unwatched = world.watch(scene, np.zeros((2, SIZE, SIZE, 3), np.uint8))
    assert (np.asarray(watched.tokens) != np.asarray(unwatched.tokens)).any()
    assert not watched.pending.intervention.mask.any()


@pytest.mark.parametrize(
    ("changes", "route", "sentence"),
    [
        (Remove("red circle"), "text", "takes a sentence"),
        (Remove("red circle"), "state", "was not trained for edits by the route 'state'"),
        (Remove("red circle"), "magic", "no route 'magic'; there are state, text, trained"),
        (Remove(3), None, "no slots to find '3' among; name the object by its colour"),
        (Remove("circle"), None, "name the object by its colour"),
        (Move("red circle", (99.0, 0.0)), None, "outside the frame"),
    ],
)
def test_what_cannot_be_done_is_said(world, scene, changes, route, sentence):
    with pytest.raises(UserError, match=sentence):
        world.edit(scene, changes, route=route)


def test_without_words_in_training_a_sentence_is_refused():
    deaf = make(**{"model.modalities": ("intervention",)})
    scene = deaf.encode(np.zeros((2, SIZE, SIZE, 3), np.uint8))
    with pytest.raises(UserError, match="was not trained for edits by the route 'text'"):
        deaf.edit(scene, "the red circle disappears", route="text")


def moving_square():
    frames = np.full((6, SIZE, SIZE, 3), 128, np.uint8)
    for t, frame in enumerate(frames):
        frame[4:8, 2 + t : 6 + t] = (204, 25, 25)
    return frames


@pytest.fixture(scope="module")
def slots():
    few = {"model.patch": 1, "model.dynamics.slots": 3, "model.dynamics.foresight": 3}
    return make("grid_slots", **few, **{"model.modalities": ("intervention", "text")})


def test_a_model_with_slots_takes_changes_in_each_way(slots):
    world = slots
    assert world.routes == ("state", "trained", "text")
    scene = world.encode(moving_square())
    push = Push((9.0, 4.0), (0.0, 1.0))
    written, told = (world.edit(scene, push, route=route) for route in ("state", "trained"))
    assert written.pending is None or not written.pending.intervention.mask.any()
    assert (written.carry.speed != scene.carry.speed).any()
    np.testing.assert_array_equal(told.carry.speed, scene.carry.speed)
    assert told.pending.intervention.mask.all()
    np.testing.assert_array_equal(world.edit(scene, push).carry.speed, written.carry.speed)
    said = world.edit(scene, "what is red is pushed down", route="text")
    assert said.pending.text.mask.all() and not said.pending.intervention.mask.any()
    with pytest.raises(UserError, match="there is no blue square; there is"):
        world.edit(scene, "the blue square disappears", route="text")
    with pytest.raises(UserError, match="'hexagon' in 'the red hexagon' is neither"):
        world.edit(scene, "the red hexagon explodes", route="text")
    with pytest.raises(UserError, match="no route 'magic'"):
        world.edit(scene, push, route="magic")
    by_rollout = world.rollout(scene, 3, text={1: push}, route="trained")
    by_hand, _, _ = world.advance(world.edit(world.advance(scene)[0], push, route="trained"))
    np.testing.assert_array_equal(by_rollout.frames[:, 1], pixels(world.decode(by_hand) / 255))
    assert (by_rollout.frames != world.rollout(scene, 3, text={1: push}).frames).any()


def test_a_timeline_and_the_verb_keep_by_which_route(slots, tmp_path, monkeypatch):
    world, frames, push = slots, moving_square(), Push((9.0, 4.0), (0.0, 1.0))
    line = Timeline(world, frames)
    line.fork("told")
    line.edit(push, "told", route="trained")
    line.play(2, "told")
    line.edit(push, "told")
    line.play(1, "told")
    line.save(tmp_path / "line.json")
    saved = read(tmp_path / "line.json")
    (_, *first), (_, *second) = saved["branches"]["told"]["edits"]
    assert first[1:] == ["trained"] and second[1:] == []
    again = Timeline.replay(saved, world, frames)
    assert again.differs(saved) == [] and json.loads(json.dumps(again.to_json())) == saved
    with pytest.raises(UserError, match="takes a sentence, not Push"):
        line.edit(push, "told", route="text")

    monkeypatch.setattr("wm_jax.world.load", lambda path: world)
    np.save(tmp_path / "mine.npy", frames)
    base = ["--model", "runs/a", "--video", str(tmp_path / "mine.npy"), "--steps", "2"]
    said = ["a red square appears in the middle", "--out", str(tmp_path / "out")]
    written = {}
    for route in ("text", "state"):
        assert edit_cli.main([*base, *said, "--route", route]) == 0
        kept = read(tmp_path / "out" / "timeline.json")["branches"]["edited"]
        [[_, change, by]], written[route] = kept["edits"], kept["sha256"]
        assert by == route and (change["kind"] == "sentence") == (route == "text")
    assert written["text"] != written["state"]
    assert edit_cli.main(["--replay", str(tmp_path / "out" / "timeline.json")]) == 0
    with pytest.raises(UserError, match="there is no route 'magic'"):
        edit_cli.main([*base, *said, "--route", "magic"])


def test_guidance_goes_beyond_what_was_said(scene):
    worlds = [make(**{"model.guidance": g}) for g in (0.0, 1.0, 3.0)]
    told = worlds[1].edit(scene, Push("red ball", (2.0, 0.0)))
    none, one, three = (np.asarray(w.advance(told)[0].carry) for w in worlds)
    plain = np.asarray(worlds[1].advance(scene)[0].carry)
    np.testing.assert_allclose(none, plain, atol=1e-6)
    assert np.abs(one - plain).max() > 1e-3
    np.testing.assert_allclose(three - plain, 3 * (one - plain), atol=1e-5)
    # Where nothing is said there is nothing to follow.
    np.testing.assert_allclose(np.asarray(worlds[2].advance(scene)[0].carry), plain, atol=1e-6)


def test_absent_words_weigh_nothing_and_places_count():
    encoder = TextEncoder(8)
    ids = np.stack([words.encode(s) for s in ("the red circle", "circle the red", "")])
    variables = random_variables(encoder, ids)
    out = np.asarray(encoder.apply(variables, ids))
    longer = np.asarray(encoder.apply(variables, np.pad(ids[:, :8], ((0, 0), (0, 24)))))
    np.testing.assert_allclose(longer, out, atol=1e-6)
    assert np.abs(out[0] - out[1]).max() > 1e-2, "the order of words is part of a sentence"
    told = Conditioning(("text",), 8)
    silent = shapes.no_conditions(2)
    noise = silent._replace(text=silent.text._replace(value=jnp.asarray(ids[:2])))
    known = random_variables(told, silent)
    np.testing.assert_array_equal(told.apply(known, silent), told.apply(known, noise))


def test_a_number_is_told_by_its_value():
    """Not as one of many words: as much more moves what is said as far again."""
    encoder = TextEncoder(8)
    said = [f"the red circle is pushed by ({x}, 0.5)" for x in (1, 1.2, 1.4)]
    ids = np.stack([words.encode(s) for s in (*said, "the red circle is pushed by (cat, 0.5)")])
    out = np.asarray(encoder.apply(random_variables(encoder, ids), ids))
    once, twice = out[1] - out[0], out[2] - out[0]
    assert np.abs(once).max() > 1e-3
    assert np.abs(twice - 2 * once).max() < 0.3 * np.abs(twice).max()
    assert np.abs(out[3] - out[0]).max() > 1e-2, "a word in its place is something else"


def test_embeddings_from_elsewhere_are_told_as_they_are():
    told = Conditioning(("text",), 8, words=False)
    heard = shapes.no_conditions(1)
    vector = jax.random.normal(jax.random.key(0), (1, 32))
    heard = heard._replace(text=shapes.Signal(vector, jnp.ones(1, bool)))
    known = random_variables(told, heard)
    assert not [k for k in known["params"] if k == "text"]
    other = heard._replace(text=heard.text._replace(value=vector * 1.01))
    assert (np.asarray(told.apply(known, heard)) != np.asarray(told.apply(known, other))).any()


def test_what_a_sentence_says_of_a_light_that_is_told_is_told():
    world = make(**{"model.modalities": ("light", "intervention", "text")})
    scene = world.encode(np.zeros((2, SIZE, SIZE, 3), np.uint8))
    for route in (None, "text"):
        dim = world.edit(scene, "the light goes to 0.5", route=route)
        np.testing.assert_allclose(np.asarray(dim.pending.light.value)[0, 0], 0.5)
        assert not dim.pending.text.mask.any()
    both = world.edit(scene, ["the light goes to 0.5", "the red circle disappears"], route="text")
    assert both.pending.text.mask.all() and both.pending.light.mask.all()
    blind = make(**{"model.modalities": ("intervention", "text")})
    said = blind.edit(blind.encode(np.zeros((2, SIZE, SIZE, 3), np.uint8)), "the light goes to 0.5")
    assert said.pending.text.mask.all() and not said.pending.light.mask.any()


def test_what_is_said_is_said_in_one_way():
    full = jax.tree.map(
        lambda x: jnp.ones_like(x) if x.dtype == bool else x, shapes.no_conditions(1024, 5)
    )
    one = one_of_said(full, 0.6, jax.random.key(0))
    words_told, vector = (np.asarray(x.mask) for x in (one.text, one.intervention))
    assert (words_told ^ vector).all() and (words_told == words_told[:, :1]).all()
    assert 0.55 < words_told[:, 0].mean() < 0.65
    assert one.light.mask.all() and one.actions.mask.all()


def test_dropped_modalities_are_absent_for_a_whole_stream():
    full = jax.tree.map(
        lambda x: jnp.ones_like(x) if x.dtype == bool else x, shapes.no_conditions(1024, 5)
    )
    kept = dropped(full, 0.3, jax.random.key(0))
    for name in shapes.CONDITION_SIZES:
        mask = np.asarray(getattr(kept, name).mask)
        assert (mask.all(1) | ~mask.any(1)).all()
        assert 0.65 < mask[:, 0].mean() < 0.75
    apart = np.asarray(kept.text.mask[:, 0]) != np.asarray(kept.intervention.mask[:, 0])
    assert apart.any(), "each is dropped by itself"
    some = dropped(full, 0.3, jax.random.key(0), ("text", "intervention"))
    for name in shapes.CONDITION_SIZES:
        same = np.asarray(getattr(some, name).mask), np.asarray(getattr(kept, name).mask)
        if name in ("text", "intervention"):
            np.testing.assert_array_equal(*same)
        else:
            assert same[0].all(), name


def test_a_timeline_keeps_what_was_said_in_words_and_plays_it_again(world, tmp_path):
    frames = np.random.default_rng(1).integers(0, 255, (3, SIZE, SIZE, 3), np.uint8)
    line = Timeline(world, frames)
    line.fork("other")
    line.edit("the red circle disappears", "other")
    line.play(2, "other")
    line.edit(Push("red circle", (1.0, 0.0)), "other")
    line.play(2, "other")
    line.play(4)
    assert (line.compare("main", "other")["pixels"][1:] > 0).all()
    line.save(tmp_path / "line.json")
    saved = read(tmp_path / "line.json")
    first, second = saved["branches"]["other"]["edits"]
    assert first == [0, {"kind": "sentence", "text": "the red circle disappears"}]
    assert second[1]["kind"] == "push"
    again = Timeline.replay(saved, world, frames)
    assert again.differs(saved) == []


def test_the_verb_says_no_sentence_of_the_data_set_by_itself():
    episode = make_group("twins:motion", 0, length=48, resolution=SIZE * 2, sound=False, twins=1)[1]
    at = int(episode["intervention/frame"])
    both = ("intervention", "text", "light")

    def opened(directory, split, fields):
        assert {"intervention/sentence", "light"} <= set(fields)
        return [episode]

    source = {"video": None, "data": "somewhere", "split": "test", "episode": 0, "start": 0}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("data_pipelines.twins.open_source", opened)
        _, told, ahead = edit_cli.read(source | {"frames": at + 1}, both, 4)
    assert set(told) == set(ahead) == {"light"}


@pytest.mark.slow
@pytest.mark.ci
@pytest.mark.parametrize("name", ["grid_slots", "grid_gru"])
def test_what_is_told_changes_can_be_exported(name, tmp_path):
    slots = {"model.patch": 1, "model.dynamics.slots": 3, "model.dynamics.foresight": 3}
    modalities = {"model.modalities": ("intervention", "text")}
    world = make(name, **(slots if name == "grid_slots" else {}), **modalities)
    rounded = jax.tree.map(lambda x: x.astype(jnp.float16).astype(jnp.float32), world.params)
    config = base_config(name).to_dict()
    sizes = {"resolution": SIZE, "context": 6, "config": config, "card": "# card\n"}
    export.export(world.model, rounded, tmp_path / "out", **sizes)
    exported = export_loader.load(tmp_path / "out")
    frames = np.stack([moving_square(), moving_square()[:, ::-1]])
    state = exported.encode(frames)
    own = shapes.encode(world.model, rounded, jnp.asarray(frames))
    said = np.stack(
        [words.encode(s) for s in ("the red circle disappears", "a red circle appears")]
    )
    after = exported.step(state, {"text": said})
    conditions = shapes.no_conditions(2)
    signal = shapes.Signal(jnp.asarray(said), jnp.ones(2, bool))
    expected = world.model.step(rounded, own, conditions._replace(text=signal))
    np.testing.assert_allclose(after["tokens"], expected.tokens, atol=1e-4)
    silent = exported.step(state)
    assert np.abs(np.asarray(silent["tokens"]) - np.asarray(after["tokens"])).max() > 1e-3
