"""A window tells a change as the evaluator would, at the frame after which it acts."""

import numpy as np
import pytest

from data_pipelines import window
from data_pipelines.twins import make_group, telling
from data_pipelines.twins.render import PALETTE
from data_pipelines.twins.world import HUES, SHAPES
from wm_jax import sentences
from wm_jax.edit import KINDS, as_vector, kind_of, no_edits
from wm_jax.evaluation import twins_changes, twins_scene
from wm_jax.evaluation.world import Changes
from wm_jax.naming import Thing
from wm_jax.telling import write

BOTH = ("intervention", "text")


@pytest.fixture(scope="module")
def twins():
    group = make_group("twins:full", 3, resolution=32, sound=False, twins=8)
    return {str(e["intervention/kind"]): e for e in group}


@pytest.mark.parametrize("kind", [k for k in KINDS if k not in ("light", "camera")])
def test_training_tells_what_the_evaluator_tells(twins, kind):
    episode = twins[kind]
    at = int(episode["intervention/frame"])
    values, said = telling.intervention(episode, episode["camera"])
    assert np.flatnonzero(said).tolist() == [at]
    scenes = twins_scene.scenes_of(episode)[at : at + 1]
    changes = Changes(
        kind,
        np.array([True]),
        np.array([int(episode["intervention/target"])]),
        np.asarray(episode["intervention/params"])[None],
    )
    judged = twins_changes.edits(scenes, changes)
    np.testing.assert_allclose(values[at], as_vector(judged)[0], atol=1e-5)
    assert twins_changes.sentences(scenes, changes) == (str(episode["intervention/sentence"]),)


@pytest.mark.parametrize("kind", ["", "light", "camera"])
def test_what_is_no_change_or_told_anyway_is_not_said(twins, kind):
    values, said = telling.intervention(twins[kind])
    assert not said.any() and not values.any()


def test_words_with_all_numbers_say_what_the_vector_says(twins):
    """Parsed again they are the very change, to the digits that they are said in."""
    for kind, episode in twins.items():
        at = int(episode["intervention/frame"])
        sentence, params = str(episode["intervention/sentence"]), episode["intervention/params"]
        camera, who = episode["camera"][at], sentence.partition(" is ")[0]
        exact = telling.exactly(kind, who, params, camera, 32, episode["light"][at]) if kind else ""
        if not exact:
            assert kind in ("", "recolour", "remove")
            continue
        there = [
            Thing(slot, HUES[hue], SHAPES[shape], (3.0, 4.0), (0.0, 0.0), tuple(PALETTE[hue]))
            for slot, (hue, shape) in enumerate(
                zip(episode["truth/hue"][at], episode["truth/shape"][at], strict=True)
            )
            if hue >= 0
        ]
        change = sentences.parse(exact, there, 32)
        assert kind_of(change) == kind
        if kind == "light":
            np.testing.assert_allclose(change.gain, episode["light"][at, 0] + params[0], atol=1e-3)
        elif kind == "camera":
            np.testing.assert_allclose(change.pan, params[:2], atol=1e-2)
            np.testing.assert_allclose(np.log(change.zoom), params[2], atol=1e-3)
        else:
            edits = no_edits(1)
            write(edits, 0, change, there, 32)
            wanted = telling.filled(telling.fields(kind, np.asarray(params)[None], camera[None]), 1)
            for name in ("place", "speed", "paint", "shape", "radius", "pull"):
                near = {"place": 0.06, "radius": 0.06, "pull": 1e-4}.get(name, 6e-3) / 32
                got, value = getattr(edits, name), getattr(wanted, name)
                np.testing.assert_allclose(got, value, atol=near, err_msg=f"{kind}: {name}")


def test_every_other_change_is_said_with_its_numbers():
    plain = exact = 0
    for seed in range(8):
        for episode in make_group("twins:motion", seed, resolution=32, sound=False, twins=6)[1:]:
            ids, mask = window.said(episode)
            at = int(episode["intervention/frame"])
            assert np.flatnonzero(mask).tolist() == [0, at]
            if str(episode["intervention/kind"]) in ("move", "push", "add"):
                exact += (ids[at] < 0).any()
                plain += (ids[at] >= 0).all()
    assert min(plain, exact) > 0.25 * (plain + exact)


def test_vectors_tell_kinds_and_colours_apart():
    edits = no_edits(4)
    edits.kind[:3] = [KINDS.index("push"), KINDS.index("push"), KINDS.index("remove")]
    edits.named[:3] = PALETTE[[0, 1, 0]]
    vectors = as_vector(edits)
    assert len({v.tobytes() for v in vectors}) == 4
    assert not vectors[3].any(), "nothing is all zeros"
    assert np.abs(vectors).max() <= 1


def test_a_window_says_it_where_it_acts_and_pads_the_rest(twins):
    episode = twins["push"]
    at = int(episode["intervention/frame"])
    whole = window.trim({k: episode[k] for k in window.fields(BOTH)}, BOTH)
    cut = window.cut(whole, at - 2, 80)
    for name in BOTH:
        assert np.flatnonzero(cut[f"{name}_mask"]).tolist() == [2]
        assert cut[name][2].any() and not cut[name][3:].any()
    assert window.cut(whole, 0, 8)["text_mask"].tolist() == [True] + [False] * 7, "the caption"
    batch = window.collate([cut, cut])
    assert batch["text"].shape == (2, 80, 32) and batch["intervention"].shape == (2, 80, 24)


def test_a_window_is_cut_around_the_change_that_it_tells(twins):
    episode, rng = twins["push"], np.random.default_rng(0)
    at = int(episode["intervention/frame"])
    whole = window.trim({k: episode[k] for k in window.fields(BOTH)}, BOTH)
    starts = np.array([window.draw_start(rng, whole, 24) for _ in range(200)])
    assert starts.min() >= 0 and starts.max() <= 64 - 24
    assert (starts + window.MARGIN <= at).all() and (at < starts + 24 - window.MARGIN).all()
    assert len(set(starts)) > 5
    plain = window.trim({k: episode[k] for k in window.fields(())}, ())
    anywhere = {window.draw_start(rng, plain, 24) for _ in range(400)}
    assert anywhere == set(range(41)), "elsewhere a start is as likely as another"


def test_truth_is_not_needed_and_not_read(twins):
    wanted = window.fields(BOTH)
    assert not [name for name in wanted if name.startswith("truth")]
