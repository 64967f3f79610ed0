"""The causal suite on a small world: the scale is right at both ends."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from data_pipelines.twins import sample_intervention
from tests.evaluation.conftest import twins_world
from wm_jax import checkpoint
from wm_jax.config import base_config, change
from wm_jax.errors import UserError
from wm_jax.evaluation import (
    causal,
    causal_page,
    causal_rows,
    causal_subjects,
    counterfactual,
    judge,
    physics,
    twins_scene,
)
from wm_jax.evaluation.judge import Run
from wm_jax.evaluation.judge_causal import judge_causal
from wm_jax.evaluation.lighting import light_error
from wm_jax.evaluation.protocol import CausalProtocol
from wm_jax.models.baselines import CopyLast

CONTEXT = 12
CALIBRATED = [f"calibration_{name}" for name in ("position_error", "identity", "shape", "objects")]


@pytest.fixture(scope="module")
def rules(world):
    return CausalProtocol(
        world=world.name, resolution=32, episodes=3, starts=(0,), context=CONTEXT, horizon=20,
        doses=(2.0,),
    )  # fmt: skip


@pytest.fixture(scope="module")
def judged(world, rules):
    """Of a run whose model is copy-last, which takes no edit."""
    run = Run(Path("runs/a"), CopyLast((32, 32)), {"none": np.zeros(3)}, base_config(), updates=7)
    return judge_causal({"default": run}, world, rules, "wm-jax evaluate --suite causal")


def value(report, model, metric, scenario, control=None, step=0):
    row = causal_page.find(report, model, metric, scenario, step, control)
    return None if row is None else row["value"]


def test_the_simulator_is_the_top_of_the_scale(judged, rules):
    report = judged[0]
    assert report.scenarios == (
        ["move", "push", "recolour", "remove", "add", "push_x2", "sequence", "undone"]
    )
    for scenario in report.scenarios[:-1]:
        assert value(report, "truth", "edit_success", scenario) > 0.97
        assert value(report, "truth", "edit_success_common", scenario) > 0.97
        assert value(report, "truth", "edit_success_ssim", scenario) > 0.999
    for scenario in ("move", "push", "remove", "add"):
        assert value(report, "truth", "locality", scenario) < rules.untouched
    assert value(report, "truth", "undo_error", "undone") == 0
    assert value(report, "truth", "null_change", "null", "null") == 0


def test_shuffled_edits_are_worth_nothing_and_what_is_seen_nearly_everything(judged):
    report = judged[0]
    for scenario in ("move", "push", "recolour", "add"):
        assert value(report, "truth", "edit_success", scenario, "shuffled") < 0.5
        assert value(report, "see_then_simulate", "edit_success", scenario) > 0.6
    for scenario in ("recolour", "remove", "add"):
        assert value(report, "see_then_simulate", "edit_success", scenario, "oracle") > 0.6


def test_a_model_without_edits_has_the_oracle_alone(judged):
    report = judged[0]
    for row in report.rows:
        if row["model"] in ("default", "copy_last") and row["metric"] not in physics.METRICS:
            assert row["control"] == "oracle"
    assert value(report, "default", "edit_success_ssim", "recolour", "oracle") is not None
    assert "cannot be edited" in causal_page.headline(report)
    assert "not supported" in causal_page.section(report)


def test_rows_name_the_intervention_and_the_share_that_counts(judged):
    report, result = judged
    success = [r for r in result["rows"] if r["metric"].startswith("edit_success")]
    assert {r["intervention"] for r in success} == set(report.scenarios) - {"undone"}
    assert all(0 <= r["share"] <= 1 and 0 <= r["n"] <= 3 for r in success)
    assert {r["metric"] for r in result["rows"]} <= {
        *causal_rows.METRICS,
        *physics.METRICS,
        *CALIBRATED,
    }
    assert result["protocol"]["split_hash"]


def test_twins_share_the_past_and_differ_by_their_change_alone(world, rules, instrument):
    rules = dataclasses.replace(rules, kinds=world.interventions)
    clips = world.clips("test", rules.length, rules.starts, rules.episodes)
    facts = counterfactual.factual(clips, world, rules)
    error = counterfactual.seen_by(instrument, facts, rules)
    assert 0 < error < 0.3
    recolour, remove = (
        counterfactual.make(s, facts, world, rules, error)
        for s in counterfactual.scenarios(rules)
        if s.name in ("recolour", "remove")
    )
    again = counterfactual.make(
        counterfactual.Scenario("remove", ((0, "remove", 1.0),)), facts, world, rules, error
    )
    np.testing.assert_array_equal(remove.clips.frames, again.clips.frames)
    context = rules.context
    for twin in (recolour, remove):
        np.testing.assert_array_equal(twin.clips.frames[:, :context], facts.frames[:, :context])
        assert (twin.clips.frames[:, context] != facts.frames[:, context]).any()
        assert (twin.span > 4).all()
    far, _ = counterfactual.displacement(facts, recolour.clips, world, rules)
    assert far.max() == 0, "a colour moves nothing"
    gone = remove.clips.truth.present[:, context:].sum(-1)
    assert (gone == facts.truth.present[:, context:].sum(-1) - 1).all()
    assert remove.edited().sum(1).tolist() == [1, 1, 1]


def test_physics_of_what_happened_and_of_what_stands_still(judged):
    rows = {(r["model"], r["metric"]): r["value"] for r in judged[0].rows if r["step"] == 0}
    for name in ("truth", "default"):
        assert rows[name, "wall_penetration"] < 1
    assert abs(rows["truth", "energy_ratio"] - 1) < 0.2
    assert rows["default", "energy_ratio"] < 0.01
    assert rows["truth", "restitution_error"] < 0.15
    assert rows["default", "restitution_error"] is None  # nothing of it ever bounces
    assert "Physics of the unedited rollouts" in causal_page.section(judged[0])


@pytest.fixture(scope="module")
def full():
    """A world with light, a camera, gravity and a hand, judged with copy-last under test."""
    world = twins_world("twins:full", 64, 4, 48)
    rules = CausalProtocol(
        world=world.name, resolution=64, episodes=4, starts=(0,), horizon=20, doses=(), sequence=()
    )
    run = Run(Path("runs/a"), CopyLast((64, 64)), {"none": np.zeros(3)}, base_config(), updates=7)
    return judge_causal({"default": run}, world, rules, "wm-jax evaluate --suite causal")


def test_light_camera_and_gravity_have_their_twins_too(full):
    report = full[0]
    for kind in ("light", "camera", "gravity"):
        assert kind in report.scenarios and report.spans[kind] > 5
        assert value(report, "truth", "edit_success", kind) > 0.97
    assert value(report, "see_then_simulate", "edit_success", "light") > 0.9
    assert value(report, "truth", "edit_success", "light", "shuffled") < 0.5


def test_what_no_frame_shows_has_a_ceiling_of_its_own_where_objects_differ_in_it(full, judged):
    told, typical = "see_then_simulate", "see_then_simulate_typical"
    rows = {(r["model"], r["metric"], r["intervention"]): r["value"] for r in full[0].rows
            if r["step"] == 0 and r["control"] is None and "intervention" in r}  # fmt: skip
    for kind in ("move", "push", "light"):
        assert rows[typical, "edit_success", kind] > 0.2
    lower = [rows[told, "edit_success", k] - rows[typical, "edit_success", k]
             for k in ("move", "push", "camera", "gravity")]  # fmt: skip
    assert np.mean(lower) > 0
    assert "told typical masses" in causal_page.section(full[0])
    assert not any(r["model"] == typical for r in judged[0].rows)
    assert "told typical masses" not in causal_page.section(judged[0])


def test_the_instrument_holds_on_every_twin(full, judged):
    assert judged[1]["instrument_holds"] is True
    for report, result in (full, judged):
        found = {(r["control"], r["metric"]): r["value"] for r in result["rows"]
                 if r["model"] == "instrument"}  # fmt: skip
        for name in report.scenarios:
            error = found[f"twin_{name}", "calibration_position_error"]
            assert error < report.protocol.calibration
            assert found[f"twin_{name}", "calibration_identity"] > 0.995
        assert "On true twins: move" in causal_page.section(report)


def test_a_copy_of_the_last_frame_does_not_heed_the_hand(full):
    rows = {(r["model"], r["metric"]): r["value"] for r in full[0].rows if r["step"] == 0}
    assert rows["default", "action_sensitivity"] == 1
    assert rows["truth", "action_sensitivity"] > 5
    assert rows["see_then_simulate", "action_sensitivity"] > 1.2
    assert "told other actions" in causal_page.section(full[0])


def test_errors_of_gain_and_gradient_are_those_that_were_made():
    rng = np.random.default_rng(0)
    ground = rng.integers(60, 140, (1, 32, 32, 1)).repeat(3, -1).astype(np.float64)
    across = ((np.arange(32) + 0.5) / 16 - 1)[None, None, :, None]
    lit = ground * (1.2 + 0.1 * across)
    ground[:, 4:9, 4:9] = lit[:, 20:25, 20:25] = (200, 20, 20)  # objects count for nothing
    gain, gradient = light_error(lit.round().astype(np.uint8), ground.astype(np.uint8))
    assert gain[0] == pytest.approx(0.2, abs=0.005) and gradient[0] == pytest.approx(0.1, abs=0.005)
    same = light_error(ground.astype(np.uint8), ground.astype(np.uint8))
    assert np.allclose(same, 0)


def test_what_a_sentence_says_is_read_off_the_true_twin_and_not_off_another(judged):
    """The simulator makes the very change, so it happens; another change of the kind rarely is the
    one that was said."""
    report = judged[0]
    said = [
        s for s in report.scenarios if value(report, "truth", "prompt_adherence", s) is not None
    ]
    assert set(said) >= {"move", "push", "recolour", "remove", "add"}
    for scenario in said:
        assert value(report, "truth", "prompt_adherence", scenario) == 1
    others = [value(report, "truth", "prompt_adherence", s, "shuffled") for s in said]
    assert np.mean(others) < 0.5
    assert value(report, "default", "prompt_adherence", "push") is None
    assert "Told in words" in causal_page.section(report)


def test_sentences_are_those_of_the_data_set(world, rules):
    clips = world.clips(rules.split, rules.length, rules.starts, rules.episodes)
    start = clips.scenes[:, rules.context - 1]
    for kind in ("move", "push", "recolour", "remove", "add", "light", "camera", "gravity"):
        rngs = [np.random.default_rng(i) for i in range(len(start))]
        changes = world.draw_changes(start, kind, rules.split, rngs)
        words = world.sentences(start, changes)
        for i, scene in enumerate(start):
            simulator = twins_scene.simulator(scene)
            drawn = sample_intervention(
                kind, 0, simulator.scene, simulator.state(), np.random.default_rng(i),
                simulator.objects,
            )  # fmt: skip
            assert words[i] == ("" if drawn is None else drawn.sentence)


class Listener(causal_subjects.ModelSubject):
    """Hears, and understands a sentence as the change that the grammar makes of it in the true
    scene."""

    edits = ("move", "push", "recolour", "remove", "add", "gravity")

    def __init__(self):
        self.heard = []

    def understand(self, state, clips, stage):
        self.heard.append(stage.words)
        return stage

    def encode(self, clips, sample):
        return clips

    def imagine(self, state, clips, stages, sample):
        return clips.frames[:, CONTEXT:]


def test_where_a_sentence_leaves_numbers_out_one_with_numbers_is_asked_too(world, rules):
    clips = world.clips(rules.split, rules.length, rules.starts, rules.episodes)
    facts = counterfactual.factual(clips, world, rules)
    subject, asked = Listener(), {}
    start = facts.scenes[:, CONTEXT - 1]
    for kind in ("push", "recolour"):
        rngs = [np.random.default_rng(i) for i in range(len(start))]
        changes = world.draw_changes(start, kind, rules.split, rngs)
        words, exact = (world.sentences(start, changes, exact) for exact in (False, True))
        told = np.zeros((len(start), 3), np.float32)
        stage = counterfactual.Stage(0, changes, world.edits(start, changes), told, words, exact)
        always = np.ones((len(start), rules.horizon), bool)
        span = np.full(len(start), rules.horizon)
        twin = counterfactual.Twins(
            kind, (stage,), (stage,), facts, always, span, [None] * len(start)
        )
        asked[kind] = causal.controls(subject, twin)
        index = np.arange(len(start))
        for control in asked[kind][3:]:
            causal._future(subject, facts, facts, facts, twin, control, index, rules, 0)
    assert asked["recolour"] == (None, "shuffled", "oracle", "sentence")
    assert asked["push"] == (*asked["recolour"], "numbers")
    plain, numbers = subject.heard[:2]
    assert all(
        " is pushed by (" in n and n.partition(" is ")[0] in p
        for p, n in zip(plain, numbers, strict=True)
    )


def test_a_route_is_taken_where_there_is_one_and_else_refused(monkeypatch, tmp_path):
    def restored(modalities):
        config = change(base_config("grid_gru"), {"model.modalities": modalities})
        monkeypatch.setattr(checkpoint, "restore_params", lambda workdir: ({}, config, 1))
        return judge.restore([tmp_path], "trained")

    (run,) = restored(("intervention",)).values()
    assert run.about(1)["route"] == "trained"
    refused = "no run takes edits by the route 'trained'.*grid_gru: none"
    with pytest.raises(UserError, match=refused):
        restored(())
