"""Faults planted in true futures: which scores must notice, which may, which must not.

`mutations.csv` is the matrix: ``+`` the score must get worse, ``0`` it must not, ``?`` it may. A
score that notices what it should not would blame the wrong thing; one that does not notice what it
should is no use. Of a doubled object either may be taken for the one that was asked for; SSIM
hardly sees a gain; what stands still half hidden has an outline that says another shape.
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from tests.evaluation.conftest import twins_world
from wm_jax.evaluation import (
    causal,
    causal_rows,
    causal_subjects,
    counterfactual,
    physics,
    suite,
    temporal,
)
from wm_jax.evaluation.informed import Prediction
from wm_jax.evaluation.protocol import CausalProtocol, TemporalProtocol
from wm_jax.evaluation.suite import Subject
from wm_jax.evaluation.tracker import Instrument

TABLE = (Path(__file__).parent / "mutations.csv").read_text()
MATRIX = list(csv.DictReader(TABLE.splitlines()))
#: Scores of which less is worse; of the energy, what is further from 1.
DOWN = ("psnr", "ssim", "matched_share", "identity", "permanence")
CONTEXT, HORIZON, AT = 12, 84, 20
#: How much is noise: an instrument that reads other frames reads them a little differently.
SLACK = {"psnr": 0.05, "position_error": 0.05, "wall_penetration": 0.1, "flicker": 0.5,
         "energy_ratio": 0.03, "restitution_error": 0.02, "momentum_error": 0.03}  # fmt: skip


@pytest.fixture(scope="module")
def world():
    return twins_world("twins:motion", 64, episodes=8, length=CONTEXT + HORIZON)


@pytest.fixture(scope="module")
def rules(world):
    return TemporalProtocol(
        world=world.name, resolution=64, episodes=8, starts=(0,), context=CONTEXT, horizon=HORIZON,
        long_starts=(0,), long_horizon=HORIZON, longest_hidden=40,
    )  # fmt: skip


@pytest.fixture(scope="module")
def clips(world):
    return world.clips("test", CONTEXT + HORIZON, (0,), 8, covered=True)


def ahead(world, clips, **changed):
    """The true horizon with some fields of its scenes changed, drawn."""
    return world.draw(world.put(clips.scenes[:, CONTEXT:], **changed)).frames


def mutate(name, world, clips):
    scenes = clips.scenes[:, CONTEXT:]
    place, hue = world.get(scenes, "position").copy(), world.get(scenes, "hue").copy()
    late = slice(AT, None)
    if name == "none":
        return clips.frames[:, CONTEXT:]
    if name == "swap":
        hue[:, late, :2] = hue[:, late, 1::-1]
        return ahead(world, clips, hue=hue)
    if name == "teleport":
        place[:, late, 0] = 8 + (place[:, late, 0] - 8 + 24) % 48
        return ahead(world, clips, position=place)
    if name == "vanish":
        hue[:, late, 0] = -1
        return ahead(world, clips, hue=hue)
    if name == "double":
        # Another one of the first object's colour, mirrored in the middle of the arena.
        free = place.shape[2] - 1
        place[:, late, free], hue[:, late, free] = 64 - place[:, late, 0], hue[:, late, 0]
        tables = {k: world.get(scenes, k).copy() for k in ("radius", "shape", "angle", "depth")}
        for key, value in tables.items():
            value[:, :, free] = value[:, :, 0] if key != "depth" else -1
        return ahead(world, clips, position=place, hue=hue, **tables)
    if name == "through_walls":
        return ahead(world, clips, position=32 + 1.2 * (place - 32))
    if name == "flicker":
        frames = clips.frames[:, CONTEXT:].astype(int)
        frames[:, ::2] += 8
        return np.clip(frames, 0, 255).astype(np.uint8)
    if name == "brake":
        # A tenth of its pace from some step on.
        slow = [place[:, AT + (t - AT) // 10] for t in range(AT, HORIZON)]
        place[:, late] = np.stack(slow, 1)
        return ahead(world, clips, position=place)
    if name == "frozen":
        return np.repeat(clips.frames[:, CONTEXT - 1 : CONTEXT], HORIZON, 1)
    assert name == "mean_image"
    image = np.broadcast_to(world.mean_image(), clips.frames[:, CONTEXT:].shape)
    return np.ascontiguousarray(image)


@pytest.fixture(scope="module")
def scored(world, clips, rules):
    """Every score of every mutation and of none."""
    instrument = Instrument(world.palette, world.resolution)
    causal_rules = CausalProtocol(world=world.name, resolution=64, context=CONTEXT, horizon=HORIZON)
    scenes = clips.scenes[:, CONTEXT:]
    there = clips.truth.present[:, CONTEXT:]
    true = world.to_pixels(world.get(scenes, "position"), scenes)
    true = physics.course(true, there, clips, world, causal_rules)
    out = {}
    for name in ["none", *(row["mutation"] for row in MATRIX)]:
        frames = mutate(name, world, clips)
        subject = Subject(name, lambda batch, sample, frames=frames: Prediction(frames))
        sums = suite.measure(subject, clips, rules, instrument)[0]
        score = {k: v.total.sum() / max(v.weight.sum(), 1e-9) for k, v in sums.items()}
        short = temporal.measure_short(subject, clips, world, rules, instrument)
        long = temporal.measure_long(subject, clips, rules, instrument)
        rows = temporal.table({name: short}, {name: long}, rules, None, [])
        find = {(r["metric"], r["control"], r["step"]): r["value"] for r in rows}
        for metric in ("permanence", "flicker"):
            score[metric] = find[metric, None, 0]
        for kind in ("lost", "doubled", "swapped", "astray"):
            score[kind] = find["first_violation", kind, 0]
        places = causal.places(instrument.track(frames), clips, causal_rules)
        own = physics.course(*places, clips, world, causal_rules)
        for metric, s in physics.measure(own, true, clips, world, causal_rules).items():
            weight = s.weight.sum()
            score[metric] = s.total.sum() / weight if weight else None
        out[name] = score
    return out


def worse(metric, value, base):
    if metric == "energy_ratio":
        return abs(np.log(max(value, 1e-9))) - abs(np.log(base))
    return base - value if metric in DOWN else value - base


@pytest.mark.parametrize("row", MATRIX, ids=[row["mutation"] for row in MATRIX])
def test_scores_notice_what_they_must_and_nothing_else(scored, row):
    wrong = []
    for metric, expected in row.items():
        if metric == "mutation" or expected == "?":
            continue
        value, base = scored[row["mutation"]][metric], scored["none"][metric]
        by = worse(metric, value, base) if value is not None else None
        noticed = by is not None and by > SLACK.get(metric, 0.01)
        if noticed != (expected == "+"):
            wrong.append(f"{metric}: {base} became {value}, the matrix says {expected}")
    assert not wrong, wrong


def test_truth_is_without_fault(scored):
    base = scored["none"]
    assert base["position_error"] < 0.5 and base["matched_share"] == 1 and base["identity"] == 1
    assert base["permanence"] > 0.95 and abs(base["energy_ratio"] - 1) < 0.15
    assert base["lost"] == base["doubled"] == base["swapped"] == base["astray"] == 0


class Hasty:
    """The true simulator, but every object that an edit does not mean drifts off at once."""

    def __init__(self, world, rules):
        self.inner = causal_subjects.Simulated("hasty", world, rules, None)
        self.name, self.edits, self.world = "hasty", self.inner.edits, world
        self.encode, self.observe = self.inner.encode, self.inner.observe

    def imagine(self, state, clips, stages, sample):
        if not stages:
            return self.inner.imagine(state, clips, stages, sample)
        scenes = counterfactual.play(state.scene, stages, clips, self.world, self.inner.protocol)
        place = self.world.get(scenes, "position").copy()
        drift = 0.5 * np.arange(1, place.shape[1] + 1)[None, :, None]
        target = stages[0].changes.target[:, None, None]
        other = np.arange(place.shape[2]) != target
        place[..., 0] += np.where(other, np.where(place[..., 0] < 32, drift, -drift), 0)
        return self.world.draw(self.world.put(scenes, position=place)).frames


def test_an_early_divergence_is_action_at_a_distance(world):
    rules = CausalProtocol(
        world=world.name, resolution=64, episodes=8, starts=(0,), context=CONTEXT, horizon=40,
        kinds=("push",), doses=(), sequence=(),
    )  # fmt: skip
    clips = world.clips("test", rules.length, rules.starts, rules.episodes)
    instrument = Instrument(world.palette, world.resolution)
    facts = counterfactual.factual(clips, world, rules)
    error = counterfactual.seen_by(instrument, facts, rules)
    twins = [counterfactual.make(s, facts, world, rules, error)
             for s in counterfactual.scenarios(rules)]  # fmt: skip
    subjects = causal_subjects.Simulated("truth", world, rules, None), Hasty(world, rules)
    measured = {s.name: causal.measure(s, facts, twins, rules, instrument) for s in subjects}
    rows = causal_rows.table(measured, facts, twins, world, rules, None, [])
    value = {(r["model"], r["metric"], r["step"]): r["value"] for r in rows if r["control"] is None}
    assert value["truth", "locality", 20] < 0.1 < 3 < value["hasty", "locality", 20]
    assert value["truth", "onset_within", 0] == 1 > value["hasty", "onset_within", 0]
    assert value["hasty", "onset_error", 0] < -2
