"""The temporal suite on a small world: the truth keeps everything, a frozen image nothing."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from wm_jax.evaluation import suite, temporal, temporal_page
from wm_jax.evaluation.protocol import TemporalProtocol
from wm_jax.evaluation.summary import find
from wm_jax.evaluation.temporal import METRICS
from wm_jax.models.baselines import CopyLast


@pytest.fixture(scope="module")
def rules(world):
    return TemporalProtocol(
        world=world.name, resolution=32, episodes=5, starts=(0, 40), context=12, horizon=40,
        long_horizon=80, longest_hidden=world.longest_hidden(0.5),
    )  # fmt: skip


@pytest.fixture(scope="module")
def reported(world, rules, instrument):
    short = world.clips("test", rules.length, rules.starts, rules.episodes, covered=True)
    long = world.clips("test", rules.long_length, rules.long_starts, rules.episodes)
    extended = dataclasses.replace(rules, horizon=rules.long_horizon)
    shorts, longs, subjects = {}, {}, {}
    for of in (rules, extended):
        copy = suite.model_subject("copy_last", CopyLast((32, 32)), {}, of)
        for subject in (copy, temporal.truth(of.context)):
            subjects[subject.name] = subject
            if of is rules:
                shorts[subject.name] = temporal.measure_short(subject, short, world, of, instrument)
            else:
                longs[subject.name] = temporal.measure_long(subject, long, rules, instrument)
    rows = temporal.table(shorts, longs, rules, 0, ["copy_last"])
    return temporal_page.TemporalReport(
        rows, rules, ["copy_last"], shorts, longs, subjects["copy_last"], long, True
    )


def value(report, model, metric, step=0, control=None):
    return find(report.rows, model, metric, step, control)["value"]


def test_the_truth_is_the_top_of_the_scale(reported):
    assert value(reported, "truth", "permanence") == 1
    assert value(reported, "truth", "permanence_error") < 0.5
    assert value(reported, "truth", "permanence_identity") == 1
    assert value(reported, "truth", "flicker") == 0
    assert value(reported, "truth", "coherence_half_life") > reported.protocol.long_horizon


def test_a_frozen_picture_keeps_nothing(reported):
    assert value(reported, "copy_last", "permanence") < 0.5
    assert value(reported, "copy_last", "coherence", 80) < 0.2
    assert value(reported, "copy_last", "first_violation", 0, "astray") > 0.5
    assert abs(value(reported, "copy_last", "flicker")) < 1, "it does not flicker, either"


def test_rows_have_units_and_say_how_many(reported):
    assert {row["metric"] for row in reported.rows} == {*METRICS, "first_violation"}
    assert all(row["suite"] == "temporal" for row in reported.rows)
    assert all(0 <= row["n"] <= 5 for row in reported.rows)
    events = reported.short["truth"].events
    assert len(events.kind) > 5 and set(events.kind) <= {0, 1, 2}


def test_the_section_shows_curves_tables_and_strips(reported):
    html = temporal_page.section(reported)
    for text in ("temporal suite", "Found again: touched while hidden", "half-life", "Shortest"):
        assert text in html
    assert html.count("<svg") == 2 and "data:image/png" in html
    assert "copy-last" in temporal_page.headline(reported)
    assert "truth" in temporal_page.terminal_table(reported)


def test_covered_pixels_are_where_objects_are(world, rules):
    clips = world.clips("test", 20, (0,), 2, covered=True)
    bare = world.clips("test", 20, (0,), 2)
    assert bare.covered is None and clips.covered.shape == clips.frames.shape[:-1]
    moved = np.abs(np.diff(clips.frames.astype(int), axis=1)).max(-1) > 8
    free = ~(clips.covered[:, 1:] | clips.covered[:, :-1])
    # All but slivers beside a bar, which cover less than half of every pixel.
    assert (moved & free).sum() < 0.01 * moved.sum()
    assert clips.covered.mean() < 0.4
