"""The probes suite: right at both ends of its scale, and honest about what a state does not say."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tests.evaluation.conftest import twins_world
from wm_jax.errors import UserError
from wm_jax.evaluation import cli, outside, probe_states, probes, probes_page, readouts
from wm_jax.evaluation.judge_probes import judge_probes
from wm_jax.evaluation.probes import FIELDS, NUMBERS
from wm_jax.evaluation.protocol import ProbeProtocol
from wm_jax.evaluation.readouts import Examples, Features, Tuning
from wm_jax.evaluation.summary import find

TUNING = Tuning(hidden=32, updates=400, batch=64, learning_rates=(1e-2,))
#: A model that knows two frames and keeps them: numpy alone, without a decoder worth the name.
MINE = """
import numpy as np


class Mine:
    def encode(self, frames, conditions):
        return frames[:, -2:].mean((2, 3)) / 255

    def step(self, state, conditions):
        return state

    def decode(self, state):
        raise AssertionError("nobody asked for frames")

    def tokens(self, state):
        return state


class Mute(Mine):
    tokens = None
"""


@pytest.fixture(scope="module")
def world():
    return twins_world("twins:motion", 32, episodes=60, length=44)


@pytest.fixture(scope="module")
def rules(world):
    return ProbeProtocol(
        world=world.name, resolution=32, episodes=30, starts=(0, 20), context=12, horizon=10,
        looks=(8, 12), ahead=(5, 10), train_episodes=60, train_starts=(0, 10, 20),
        probes=("linear",),
    )  # fmt: skip


@pytest.fixture(scope="module")
def mine(tmp_path_factory):
    path = tmp_path_factory.mktemp("outside") / "mine.py"
    path.write_text(MINE)
    return path


@pytest.fixture(scope="module")
def judged(world, rules, mine):
    return judge_probes({"outside": outside.load(f"{mine}:Mine")}, world, rules, "wm-jax evaluate")


def value(rows, model, metric, step=0, control=None):
    row = find(rows, model, metric, step, control)
    return None if row is None else row["value"]


def test_the_true_scene_is_the_top_and_shuffled_labels_the_bottom(judged, rules):
    rows = judged[0].rows
    for score in ("position", "velocity", "contact"):
        for step in (0, *rules.ahead):
            assert value(rows, "truth", f"{score}_linear", step) > 0.95, (score, step)
    # Of some hues these few episodes hide nothing, so nothing was learned of them.
    assert value(rows, "truth", "hidden_presence_linear") > 0.8
    for score in ("position", "velocity"):
        assert abs(value(rows, "outside", f"{score}_linear", 0, "shuffled_labels")) < 0.5
    assert value(rows, "truth", "position_error_linear") < 1
    # All masses of this world are equal, so there is nothing to explain.
    assert value(rows, "truth", "mass_linear") is None


def test_a_state_that_says_nothing_gets_nothing(judged, rules):
    rows = judged[0].rows
    assert value(rows, "outside", "velocity_linear") < 0.3
    assert value(rows, "outside", "position_error_linear") > 3
    assert value(rows, "constant_velocity", "position_error") < 1
    assert value(rows, "outside", "position_error_linear_difference", 0, "constant_velocity") > 2
    assert {row["step"] for row in rows} == {0, *rules.ahead}


def test_controls_that_a_model_from_outside_can_be_asked_for(judged):
    found = {r["control"] for r in judged[0].rows if r["model"] == "outside"}
    assert found == {None, "one_frame", "shuffled_labels", "constant_velocity"}


def test_the_page_and_the_terminal_say_what_the_rows_say(judged):
    report, result = judged
    page = probes_page.section(report)
    assert page.count("<svg") == len(probes_page.scores_of(report)) == 5
    assert page.count('alt="read-out"') == 3 * 3
    number = value(report.rows, "truth", "velocity_linear")
    assert f"{number:.2f}" in page and f"{number:.2f}" in probes_page.terminal_table(report)
    assert probes_page.headline(report).startswith("Of outside's state")
    assert result["protocol"]["digest"] == report.protocol.digest()


def test_a_model_without_a_state_to_show_is_told_so(world, rules, mine):
    with pytest.raises(UserError, match="no function 'tokens', which the probes suite"):
        judge_probes({"outside": outside.load(f"{mine}:Mute")}, world, rules, "")
    with pytest.raises(UserError, match="at least 5 training episodes"):
        few = dataclasses.replace(rules, train_episodes=4)
        judge_probes({"outside": outside.load(f"{mine}:Mine")}, world, few, "")
    args = cli._parser().parse_args(["--videos", "x", "--data", "y", "--suite", "probes"])
    with pytest.raises(UserError, match="shows no state"):
        cli._check(args)


def test_targets_are_the_true_scene_by_hue(world, rules):
    clips = world.clips("test", rules.length, rules.starts, rules.episodes)
    told = probes.targets(clips, world, rules)
    for number, moment in enumerate(rules.moments):
        for clip, slot in zip(*np.nonzero(clips.truth.present[:, moment]), strict=True):
            hue = clips.truth.hue[clip, moment, slot]
            place = told.value[clip, number, hue, FIELDS["position"]]
            if clips.truth.visible[clip, moment, slot] > 0.99:
                assert np.abs(place - clips.truth.centroid[clip, moment, slot]).max() < 0.6
            seen = clips.truth.visible[clip, : min(moment, rules.context - 1) + 1, slot]
            known = bool((seen >= rules.visible_share).any())
            assert told.asked[clip, number, hue, 0] == known
            gone = clips.truth.visible[clip, moment, slot] < rules.hidden_share
            assert told.hidden[clip, number, hue] == (known and gone)
            assert told.asked[clip, number, hue, FIELDS["presence"]].item() == (known and gone)
    # A velocity is what the place changes by, where nothing was touched.
    there = told.asked[:, 0, :, 0] & (told.value[:, 0, :, 5] == 0)
    later = dataclasses.replace(rules, looks=(rules.looks[0] + 1, *rules.looks[1:]))
    moved = probes.targets(clips, world, later).value - told.value
    free = there & (probes.targets(clips, world, later).value[:, 0, :, 5] == 0)
    off = np.abs(moved[:, 0, :, :2] - told.value[:, 0, :, 2:4])[free]
    assert off.max() < 0.05


def examples(tokens, value, asked=None):
    whole = tokens.reshape(len(tokens), -1)
    asked = np.ones(value.shape, bool) if asked is None else asked
    return Examples(Features(whole, tokens), value, asked, np.arange(len(tokens)))


def explained(read, tokens, value):
    guess = read(Features(tokens.reshape(len(tokens), -1), tokens))
    return 1 - np.square(guess - value).mean() / value.var()


def test_only_attention_reads_objects_in_no_order():
    rng = np.random.default_rng(0)
    count, hues = 2000, 3
    place = rng.uniform(0, 64, (count, hues, 1))
    order = np.argsort(rng.random((count, hues)), 1)
    colour = np.broadcast_to(np.eye(hues), (count, hues, hues))
    ordered = np.concatenate([place / 20 - 1.6, 2 * colour], -1)
    mixed = np.take_along_axis(ordered, order[..., None], 1).astype(np.float32)
    half = slice(0, 1000), slice(1000, count)
    score = {}
    for probe in readouts.PROBES:
        read = readouts.fit(probe, examples(mixed[half[0]], place[half[0]]), TUNING, 0)
        score[probe] = explained(read, mixed[half[1]], place[half[1]])
    assert score["attentive"] > 0.9
    assert score["linear"] < 0.4  # a third: their mean place, which no order changes
    read = readouts.fit(
        "linear", examples(ordered[half[0]].astype(np.float32), place[half[0]]), TUNING, 0
    )
    assert explained(read, ordered[half[1]], place[half[1]]) > 0.999


def test_what_is_not_asked_for_teaches_nothing():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(300, 1, 4)).astype(np.float32)
    value = (x[..., :2] @ np.array([[1.0], [2.0]])).transpose(0, 2, 1)
    asked = rng.random(value.shape) < 0.5
    wrong = np.where(asked, value, 1e3)
    for probe in readouts.PROBES:
        read = readouts.fit(probe, examples(x, wrong, asked), TUNING, 0)
        assert explained(read, x, value) > 0.9, probe


def test_the_mlp_reads_what_is_not_linear():
    rng = np.random.default_rng(2)
    x = rng.normal(size=(3000, 1, 4)).astype(np.float32)
    value = np.abs(x[:, :, :1])
    read = {p: readouts.fit(p, examples(x, value), TUNING, 0) for p in ("linear", "mlp")}
    assert explained(read["linear"], x, value) < 0.1
    assert explained(read["mlp"], x, value) > 0.8


def test_every_state_is_projected_by_the_same_matrix(rules):
    tokens = np.random.default_rng(0).normal(size=(4, 4, 2, 300)).astype(np.float32)
    first, second = (probe_states.Projection(tokens, rules) for _ in range(2))
    assert np.array_equal(first(tokens).whole, second(tokens).whole)
    assert first(tokens).whole.shape == (4, 4, rules.width)
    assert first(tokens).tokens.shape == (4, 4, 2, rules.width)
    assert np.isfinite(first(0 * tokens).whole).all()


def test_a_glimpse_is_of_one_frame(world, rules):
    """What was before the last frame changes no state that saw that frame alone."""
    from wm_jax.models.baselines import CopyLast

    clips = world.clips("test", rules.length, (0,), 2)
    whole = probe_states.ModelReader(CopyLast((32, 32)), {}, rules)(clips)
    glimpse = probe_states.ModelReader(CopyLast((32, 32)), {}, rules, glimpse=True)(clips)
    assert np.array_equal(whole, glimpse)
    assert whole.shape == (2, len(rules.moments), 1, 32 * 32 * 3)
    shown = clips.frames[:, 11].reshape(2, -1) / 255
    assert np.allclose(whole[:, 1, 0], shown, atol=1e-6)


def test_untrained_parameters_give_states_too(rules):
    from experiments.configs.twins import get_config
    from wm_jax import models
    from wm_jax.config import change

    small = {"layers": 1, "width": 16, "hidden": 16}
    changes = {f"model.dynamics.{name}": size for name, size in small.items()}
    grid = {"model.name": "grid_linear", "model.resolution": 32, "model.patch": 4}
    config = change(get_config("quickstart"), {**grid, **changes})
    model = models.build(config.model)
    params = probe_states.untrained(model, rules)
    read = probe_states.ModelReader(model, params, rules)
    world = twins_world("twins:motion", 32, episodes=1, length=40)
    tokens = read(world.clips("test", rules.length, (0,), 1))
    assert tokens.shape[:2] == (1, len(rules.moments)) and np.isfinite(tokens).all()
    assert NUMBERS == 7
