"""What is struck out of sight is known better to who is told of it, and only of that."""

import dataclasses

import jax
import numpy as np
import pytest

from tests.evaluation.conftest import twins_world
from wm_jax import shapes
from wm_jax.evaluation import causal, causal_page, causal_rows, causal_subjects, counterfactual
from wm_jax.evaluation import sound as sounds
from wm_jax.evaluation.protocol import CausalProtocol
from wm_jax.evaluation.tracker import Instrument


class Fabulist:
    """Knows the truth where it hears the true sound, and thinks that all stands still elsewhere."""

    name, edits = "default", ()

    def encode(self, clips, sample):
        return clips.frames

    def imagine(self, state, clips, stages, sample):
        return state[:, 16:]

    def hear(self, state, clips, sound, sample):
        still = np.repeat(state[:, 15:16], state.shape[1] - 16, 1)
        return state[:, 16:] if sound is None else still

    def observe(self, state, clips, count, sample):
        return state[:, 16 + count :]


@pytest.fixture(scope="module")
def told():
    """A world, its clips with a sound for each, and what each subject makes of them."""
    world = twins_world("twins:motion", 32, 16, 80)
    rules = CausalProtocol(
        world=world.name, resolution=32, episodes=16, starts=(0, 24), horizon=40, kinds=()
    )
    clips = world.clips("test", rules.length, rules.starts, rules.episodes)
    loud = np.arange(clips.truth.hue.shape[0], dtype=np.float32)
    audio = shapes.Signal(
        np.broadcast_to(loud[:, None, None], (len(loud), rules.length, 16)).copy(),
        np.ones((len(loud), rules.length), bool),
    )
    clips = clips._replace(conditions=clips.conditions._replace(audio=audio))
    instrument = Instrument(world.palette, 32)
    facts = counterfactual.factual(clips, world, rules)
    heard = sounds.heard_otherwise(clips, rules)

    def slower(scenes):
        return world.put(scenes, velocity=0.85 * world.get(scenes, "velocity"))

    subjects = [
        Fabulist(),
        causal_subjects.Simulated("see_then_simulate", world, rules, instrument),
        causal_subjects.Simulated("too slow", world, rules, instrument, slower),
        causal_subjects.Simulated("truth", world, rules, None),
    ]
    measured = {
        s.name: causal.measure(s, facts, (), rules, instrument, sounds=heard) for s in subjects
    }
    return world, rules, clips, facts, heard, measured


@pytest.fixture(scope="module")
def rows(told):
    world, rules, _, facts, heard, measured = told
    table = causal_rows.table(measured, facts, (), world, rules, 0, ["default"], None, heard)
    return [row for row in table if row["metric"] in sounds.METRICS]


def value(rows, model, metric, control=None):
    (row,) = [
        r
        for r in rows
        if (r["model"], r["metric"], r["control"], r["step"]) == (model, metric, control, 0)
    ]
    return row["value"]


def test_only_what_was_hit_unseen_is_asked_for_when_it_is_back(told):
    _, rules, clips, *_ = told
    hit, asked = sounds.struck(clips, rules)
    assert hit.any() and asked.any()
    visible = clips.truth.visible[:, rules.context :]
    assert (visible[hit] < rules.unseen_share).all()
    assert (visible[asked] >= rules.visible_share).all()
    for clip, step, slot in np.argwhere(asked)[:200]:
        since = hit[clip, max(0, step - rules.heard_frames + 1) : step + 1, slot]
        assert since.any(), "nothing is asked for that was not struck lately"
    bare = clips._replace(truth=clips.truth._replace(touching=np.zeros_like(clips.truth.touching)))
    assert sounds.heard_otherwise(bare, rules) is None


def test_a_horizon_may_be_shorter_than_what_is_asked_for(told):
    _, rules, clips, *_ = told
    short = dataclasses.replace(rules, horizon=5)
    first = jax.tree.map(lambda x: x[:, : short.length], clips.truth)
    hit, asked = sounds.struck(clips._replace(truth=first), short)
    assert hit.shape[1] == asked.shape[1] == 5
    np.testing.assert_array_equal(hit, sounds.struck(clips, rules).hit[:, :5])


def test_silence_and_other_sounds_begin_after_the_context(told):
    _, rules, clips, _, heard, _ = told
    first, apart = rules.context, len(rules.starts)
    assert set(heard) == {None, "silent", "shuffled"}
    silent, other = (heard[s].conditions.audio for s in sounds.OTHERWISE)
    assert silent.mask[:, :first].all() and not silent.mask[:, first:].any()
    assert other.mask.all()
    own = np.asarray(clips.conditions.audio.value)
    np.testing.assert_array_equal(other.value[:, :first], own[:, :first])
    assert (clips.unit[np.asarray(other.value[:, -1, 0], int)] != clips.unit).all()
    np.testing.assert_array_equal(other.value[:, first:], np.roll(own, apart, 0)[:, first:])


def test_who_is_told_of_a_blow_gains_and_the_truth_cannot(rows):
    assert value(rows, "truth", "struck_error") < 0.3
    assert value(rows, "truth", "sound_gain") == 0, "it made every blow itself"
    assert abs(value(rows, "see_then_simulate", "sound_gain")) < 0.1, "and here so does it"
    off = {s: value(rows, "too slow", "struck_error", s) for s in (None, "silent")}
    gain = value(rows, "too slow", "sound_gain")
    assert gain == pytest.approx(off["silent"] - off[None], abs=1e-4)
    assert gain > 0.3
    assert not [r for r in rows if r["model"] != "default" and r["control"] == "shuffled"]


def test_a_model_that_hears_gains_by_the_true_sound_alone(rows):
    assert value(rows, "default", "sound_gain") > 2
    assert value(rows, "default", "sound_gain", "shuffled") == 0
    assert value(rows, "default", "struck_error") < 0.3
    assert value(rows, "default", "struck_error", "shuffled") > 2


def test_the_page_shows_it_where_there_is_something_to_show(told, rows):
    world, rules, *_ = told
    report = causal_page.CausalReport(rows, rules, ["default"], [], {}, [], True)
    page = causal_page._sound(report)
    assert "Use of sound" in page and "gained" in page
    empty = causal_page.CausalReport([], rules, ["default"], [], {}, [], True)
    assert causal_page._sound(empty) == ""


def test_a_model_that_is_not_told_sound_has_no_rows(told):
    world, rules, clips, facts, heard, _ = told
    from wm_jax.models.baselines import CopyLast

    deaf = causal_subjects.ModelSubject("deaf", CopyLast((32, 32)), {}, rules)
    assert deaf.hear(None, clips, None, 0) is None
    assert sounds.measure({}, clips, rules) == {}
